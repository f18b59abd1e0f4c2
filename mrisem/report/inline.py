"""Pictures inside the page; figures are kept as PNG files too."""

import base64
import re
from collections.abc import Callable

from matplotlib.figure import Figure

from mrisem.report.figures import DARK, LIGHT, Palette, as_png, as_webp

Pictures = dict[str, bytes]  # file name to PNG


def in_both_inks(
    name: str, alt: str, pictures: Pictures, draw: Callable[[Palette], Figure]
) -> dict[str, str]:
    """Draw a figure for light and dark pages; keep the light one as a file.

    Args:
        name: of the file.
        alt: what it shows, in words.
        pictures: the files so far; the light figure is added.
        draw: makes the figure in the colours of a page.
    """
    light, dark = (as_png(draw(palette)) for palette in (LIGHT, DARK))
    pictures[name] = light
    return {"alt": alt, "light": webp_uri(light), "dark": webp_uri(dark)}


def data_uri(png: bytes) -> str:
    """Return PNG bytes as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def webp_uri(png: bytes) -> str:
    """Return a figure's PNG bytes, made smaller, as a ``data:`` address."""
    return "data:image/webp;base64," + base64.b64encode(as_webp(png)).decode("ascii")


def slug(text: str) -> str:
    """Return a text as part of a file name.

    >>> slug("brain, gaussian R=4")
    'brain_gaussian_r_4'
    """
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
