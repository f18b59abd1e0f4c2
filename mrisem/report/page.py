"""The HTML page: one file that needs no network, and the same pictures as PNG files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

import mrisem
from mrisem.metrics.statistics import SMALLEST_CLUSTERS
from mrisem.report import audit, drawings, lesions
from mrisem.report.audit_figure import DIFFERENCE_MAP
from mrisem.report.figures import colour_stops
from mrisem.report.group import Group, Samplings
from mrisem.report.inline import Pictures, slug
from mrisem.report.runs import Run
from mrisem.report.summary import Column
from mrisem.report.sweeps import Sweep
from mrisem.report.tables import p_text

_SWEEP_LEGEND = (
    "A line is a method whose runs differ in this parameter alone; a point is a mean over the "
    "slices that all of them have. Bars: 95 % interval (from few files: standard deviation) of "
    "what remains when each slice's own level is taken out."
)


@dataclass
class Page:
    """The page and the PNG files beside it.

    Args:
        html: the page's text.
        pictures: file name to PNG bytes.
    """

    html: str = ""
    pictures: Pictures = field(default_factory=dict)


def make_page(
    title: str,
    groups: Sequence[Group],
    runs: Sequence[Run],
    evaluations: Sequence[str],
    samplings: Sequence[Samplings] = (),
) -> Page:
    """Draw everything and fill the template.

    Args:
        title: the page's heading.
        groups: in the order of the page.
        runs: in table order.
        evaluations: the commands that made the scores.
        samplings: what compares the groups of one anatomy.
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
        groups=[_group(group, page.pictures) for group in groups],
        samplings=[_samplings(one, page.pictures) for one in samplings],
        runs=[_run(run) for run in runs],
        evaluations=evaluations,
        fewest_files=SMALLEST_CLUSTERS,
        sweep_legend=_SWEEP_LEGEND,
        error_stops=colour_stops(),
        difference_stops=colour_stops(DIFFERENCE_MAP),
    )
    return page


def _group(group: Group, pictures: Pictures) -> dict[str, object]:
    title = group.table.title
    return {
        "table": group.table,
        "id": slug(title),
        "has_intervals": any(cell.interval for row in group.table.rows for cell in row.cells),
        "panels": [drawings.draw_panel(panel, title, pictures) for panel in group.panels],
        "dots": [drawings.draw_dots(column, group, pictures) for column in group.drawn],
        "sweeps": _sweeps(group.sweeps, title, group.drawn, pictures),
        "curves": drawings.draw_curves(group, pictures),
        "pictures": drawings.draw_embeddings(group, pictures),
        "note": group.note,
        "audit": next(iter(audit.audit_tables(group.audit)), None),
        "maps": [drawings.draw_maps(*one, pictures) for one in group.maps],
        "lesions": next(iter(lesions.page_tables(group.lesions)), None),
    }


def _samplings(one: Samplings, pictures: Pictures) -> dict[str, object]:
    title = f"{one.anatomy or 'all'}, across samplings"
    sweeps = _sweeps(one.sweeps, title, one.columns, pictures)
    return {"title": title, "id": slug(title), "sweeps": sweeps}


def _sweeps(
    sweeps: Sequence[Sweep], title: str, columns: Sequence[Column], pictures: Pictures
) -> list[dict[str, Any]]:
    return [
        {"sweep": sweep, "figures": drawings.draw_sweep(sweep, title, columns, pictures)}
        for sweep in sweeps
    ]


def _run(run: Run) -> dict[str, object]:
    settings = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    return {"run": run, "settings": settings if run.config else ""}
