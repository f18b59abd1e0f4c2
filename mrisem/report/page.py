"""HTML page in one file that needs no network, with the same pictures as PNG files."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from omegaconf import DictConfig

import mrisem
from mrisem.files import reading, write_bytes, write_text
from mrisem.metrics.statistics import MIN_RESAMPLED, MIN_TESTED
from mrisem.report.figures import DIFFERENCE_MAP, ERROR_MAP, HEADROOM, colour_stops
from mrisem.report.sections import make_sections
from mrisem.results.evaluated import Evaluated
from mrisem.results.headline import headline, model_words, question
from mrisem.results.inside import inside, slug
from mrisem.results.run import Run
from mrisem.results.tables import Table, as_csv, as_latex, p_text

_PICTURE_NAME = re.compile(r"(panel|dots|sweep|loss|embedding|audit)_[a-z0-9_]+\.png")
_LIST = "figures.json"  # file with the names of the pictures of a report

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
    """Page and the files beside it.

    Args:
        html: text of the page.
        pictures: file name -> PNG.
        tables: tables of all groups.
    """

    html: str
    pictures: dict[str, bytes]
    tables: list[Table]

    def write(self, folder: Path) -> None:
        """Write figures, tables and the page; remove pictures of an earlier report."""
        former = _former_pictures(folder)
        # The page is written last, so that it never exists without its files. The list names old
        # and new pictures until the old ones are gone, in case the process is killed.
        (folder / "index.html").unlink(missing_ok=True)
        write_text(folder / _LIST, json.dumps(sorted({*self.pictures, *former}), indent=1) + "\n")
        for name in {*former} - {*self.pictures}:
            inside(folder, f"figures/{name}").unlink(missing_ok=True)
        for name, png in self.pictures.items():
            write_bytes(inside(folder, f"figures/{name}"), png)
        write_text(folder / _LIST, json.dumps(sorted(self.pictures), indent=1) + "\n")
        write_text(folder / "table.csv", as_csv(self.tables))
        write_text(folder / "table.tex", as_latex(self.tables))
        write_text(folder / "index.html", self.html)


def _former_pictures(folder: Path) -> list[str]:
    """Return the names of the pictures of an earlier report in a folder."""
    path = inside(folder, _LIST)
    if not path.is_file():
        return []
    with reading(path, "a list of pictures of mrisem report", "remove it"):
        listed: Any = json.loads(path.read_text(encoding="utf-8"))
        return [name for name in [*listed] if _PICTURE_NAME.fullmatch(name)]


def make_page(runs: Sequence[Run], evaluated: Evaluated, config: DictConfig) -> Page:
    """Draw all figures and fill the template.

    Args:
        runs: runs of the page, in table order.
        evaluated: results of their evaluations.
        config: configuration of `mrisem report`.
    """
    pictures: dict[str, bytes] = {}
    groups, samplings = make_sections(runs, evaluated, config, pictures)
    html = TEMPLATES.get_template("page.html.j2").render(
        title=config.title or question(runs),
        facts=headline(runs, evaluated.rows),
        guided=any(run.has_prior for run in runs),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, mrisem {mrisem.__version__}",
        groups=groups,
        headroom=HEADROOM,
        models=model_words(runs),
        samplings=samplings,
        runs=runs,
        evaluations=evaluated.commands,
        failed=evaluated.failed,
        min_resampled=MIN_RESAMPLED,
        min_tested=MIN_TESTED,
        error_map=ERROR_MAP,
        difference_map=DIFFERENCE_MAP,
    )
    tables = [t for g in groups for t in (g["table"], *g["audits"], *g["lesions"])]
    return Page(html, pictures, tables)
