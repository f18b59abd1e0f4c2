"""The HTML page: one file that needs no network, and the same pictures as PNG files."""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

import mrisem
from mrisem.metrics.statistics import SMALLEST_CLUSTERS
from mrisem.report import figures
from mrisem.report.curves import Curves, paired_sides
from mrisem.report.embedding import Picture
from mrisem.report.embedding_figure import embedding_figure
from mrisem.report.panels import Panel
from mrisem.report.runs import Run
from mrisem.report.summary import Column, Row, labels_of
from mrisem.report.tables import Table, p_text

_NOT_DRAWN = {"seconds"}


@dataclass(frozen=True)
class Group:
    """What may be compared: one anatomy and sampling.

    Args:
        table: of its scores.
        rows: of its slices' scores.
        panels: its images.
        curves: of its fits.
        pictures: of its embeddings.
        note: which pictures are missing and why; or an empty string.
    """

    table: Table
    rows: Sequence[Row]
    panels: Sequence[Panel]
    curves: Curves
    pictures: Sequence[Picture] = ()
    note: str = ""


@dataclass
class Page:
    """The page and the PNG files beside it.

    Args:
        html: the page's text.
        pictures: file name to PNG bytes.
    """

    html: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)


def make_page(
    title: str,
    groups: Sequence[Group],
    runs: Sequence[Run],
    evaluations: Sequence[str],
) -> Page:
    """Draw everything and fill the template.

    Args:
        title: the page's heading.
        groups: in the order of the page.
        runs: in table order.
        evaluations: the commands that made the scores.
    """
    page = Page()
    environment = Environment(
        loader=PackageLoader("mrisem.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["p_text"] = p_text
    page.html = environment.get_template("page.html.j2").render(
        title=title,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, mrisem {mrisem.__version__}",
        groups=[_group(group, page) for group in groups],
        runs=[_run(run) for run in runs],
        evaluations=evaluations,
        fewest_files=SMALLEST_CLUSTERS,
        error_stops=figures.colour_stops(),
    )
    return page


def _group(group: Group, page: Page) -> dict[str, object]:
    drawn = [column for column in group.table.columns if column.name not in _NOT_DRAWN]
    reasons = {
        cell.test["reason"]
        for row in group.table.rows
        for cell in row.cells
        if cell.test and cell.test.get("reason")
    }
    return {
        "table": group.table,
        "id": slug(group.table.title),
        "reasons": sorted(reasons),
        "has_intervals": any(cell.interval for row in group.table.rows for cell in row.cells),
        "panels": [_panel(panel, group.table.title, page) for panel in group.panels],
        "dots": [_dots(column, group, page) for column in drawn],
        "curves": _curves(group, page),
        "pictures": [_picture(i, group, page) for i in range(len(group.pictures))],
        "note": group.note,
    }


def _panel(panel: Panel, title: str, page: Page) -> dict[str, object]:
    name = f"panel_{slug(title)}_{slug(panel.file.removesuffix('.h5'))}_{panel.slice}.png"
    if panel.tiles:
        page.pictures[name] = figures.as_png(figures.panel_figure(panel))
    top = panel.error_window * panel.grey
    tiles = [
        {
            "label": tile.label,
            "row": tile.row,
            "image": data_uri(figures.image_png(tile.image, panel.grey)),
            "error": None
            if tile.error is None
            else data_uri(figures.image_png(tile.error, top, figures.ERROR_MAP)),
            "ratio": f"{tile.image.shape[1]} / {tile.image.shape[0]}",
        }
        for tile in panel.tiles
    ]
    return {"panel": panel, "tiles": tiles, "percent": f"{100 * panel.error_window:g}"}


def _dots(column: Column, group: Group, page: Page) -> dict[str, str]:
    name = f"dots_{slug(group.table.title)}_{column.name}.png"
    means = ", ".join(
        f"{row.method} {cell.text}"
        for row in group.table.rows
        for shown, cell in zip(group.table.columns, row.cells, strict=True)
        if shown == column
    )
    alt = f"{column.label} of every slice for each method; means: {means}"
    return _both(name, alt, page, lambda ink: figures.paired_dots(group.rows, column, ink))


def _curves(group: Group, page: Page) -> list[dict[str, str]]:
    """Draw every curve, the similarities to both sides of the bank in one figure a level."""
    sides = paired_sides(group.curves)
    paired = {name for names in sides.values() for name in names}
    single = [_curve(name, group, page) for name in group.curves if name not in paired]
    return single + [_similarity(level, names, group, page) for level, names in sides.items()]


def _similarity(level: str, names: tuple[str, str], group: Group, page: Page) -> dict[str, str]:
    positives, negatives = (group.curves[name] for name in names)
    labels = labels_of(group.rows)
    alt = (
        f"mean similarity to the bank's positives and negatives at level {level} over the "
        f"iterations of per-scan fitting for {', '.join(positives)}"
    )
    file = f"loss_{slug(group.table.title)}_similarity_{slug(level)}.png"
    title = f"similarity to the bank, level {level}"
    return _both(
        file,
        alt,
        page,
        lambda ink: figures.similarity_curves(title, (positives, negatives), labels, ink),
    )


def _picture(number: int, group: Group, page: Page) -> dict[str, str]:
    picture = group.pictures[number]
    # Two runs of one label on different files have a picture each: the number tells them apart.
    named = (group.table.title, picture.label, picture.acquisition, str(number))
    name = f"embedding_{slug(' '.join(named))}.png"
    alt = f"Embeddings of {picture.label}, {picture.acquisition}: {picture.caption}"
    drawn = _both(name, alt, page, lambda ink: embedding_figure(picture, ink))
    return drawn | {
        "label": picture.label,
        "acquisition": picture.acquisition,
        "caption": picture.caption,
    }


def _curve(name: str, group: Group, page: Page) -> dict[str, str]:
    series, labels = group.curves[name], labels_of(group.rows)
    alt = f"{name} over the iterations of per-scan fitting for {', '.join(series)}"
    file = f"loss_{slug(group.table.title)}_{slug(name)}.png"
    return _both(file, alt, page, lambda ink: figures.loss_curves(name, series, labels, ink))


def _both(
    name: str, alt: str, page: Page, draw: Callable[[figures.Palette], Figure]
) -> dict[str, str]:
    """Draw a figure for light and dark pages; keep the light one as a file."""
    light, dark = (figures.as_png(draw(palette)) for palette in (figures.LIGHT, figures.DARK))
    page.pictures[name] = light
    return {"alt": alt, "light": data_uri(light), "dark": data_uri(dark)}


def _run(run: Run) -> dict[str, object]:
    settings = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    return {"run": run, "settings": settings if run.config else ""}


def data_uri(png: bytes) -> str:
    """Return PNG bytes as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def slug(text: str) -> str:
    """Return a text as part of a file name.

    >>> slug("brain, gaussian R=4")
    'brain_gaussian_r_4'
    """
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
