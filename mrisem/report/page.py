"""The HTML page: one file that needs no network, and the same pictures as PNG files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from omegaconf import DictConfig

import mrisem
from mrisem.metrics.statistics import SMALLEST_CLUSTERS
from mrisem.report.evaluated import Evaluated
from mrisem.report.figures import DIFFERENCE_MAP, ERROR_MAP, colour_stops
from mrisem.report.runs import Run, slug
from mrisem.report.sections import make_sections
from mrisem.report.tables import Table, as_csv, as_latex, p_text

_KINDS = ("panel", "dots", "sweep", "loss", "embedding", "audit")  # of figures

TEMPLATES = Environment(
    loader=PackageLoader("mrisem.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"p_text": p_text, "stops": colour_stops, "slug": slug}
TEMPLATES.filters["yaml"] = partial(yaml.safe_dump, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Page:
    """The page and the files beside it."""

    html: str
    pictures: dict[str, bytes]  # file name to PNG
    tables: list[Table]  # of all groups

    def write(self, folder: Path) -> None:
        """Write page, figures and tables; the page last, so that it never stands without them."""
        figures = folder / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").unlink(missing_ok=True)
        for old in (old for kind in _KINDS for old in figures.glob(f"{kind}_*.png")):
            old.unlink()
        for name, png in self.pictures.items():
            (figures / name).write_bytes(png)
        (folder / "table.csv").write_text(as_csv(self.tables), encoding="utf-8")
        (folder / "table.tex").write_text(as_latex(self.tables), encoding="utf-8")
        partial = folder / "index.html.partial"
        partial.write_text(self.html, encoding="utf-8")
        partial.replace(folder / "index.html")


def make_page(runs: Sequence[Run], found: Evaluated, config: DictConfig) -> Page:
    """Draw everything and fill the template; ``config`` is that of `mrisem report`."""
    pictures: dict[str, bytes] = {}
    groups, samplings = make_sections(runs, found, config, pictures)
    html = TEMPLATES.get_template("page.html.j2").render(
        title=config.title,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, mrisem {mrisem.__version__}",
        groups=groups,
        samplings=samplings,
        runs=runs,
        evaluations=dict.fromkeys(
            filter(None, (s.get("command") for s in found.summaries.values()))
        ),
        fewest_files=SMALLEST_CLUSTERS,
        error_map=ERROR_MAP,
        difference_map=DIFFERENCE_MAP,
    )
    tables = [t for g in groups for t in (g["table"], *g["audits"], *g["lesions"])]
    return Page(html, pictures, tables)
