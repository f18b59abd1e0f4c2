"""The HTML page: one file that needs no network, and the same pictures as PNG files."""

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

_OURS = re.compile(r"(panel|dots|sweep|loss|embedding|audit)_[a-z0-9_]+\.png")
_LIST = "figures.json"  # names of the pictures that a report drew

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
        """Write page, figures and tables; the page last, so that it never stands without them.

        Pictures that an earlier report listed as its own, and this one has not, are removed.
        """
        former = _former_pictures(folder)
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
    path = inside(folder, _LIST)
    if not path.is_file():
        return []
    with reading(path, "a list of pictures of mrisem report", "remove it"):
        listed: Any = json.loads(path.read_text(encoding="utf-8"))
        return [name for name in [*listed] if _OURS.fullmatch(name)]


def make_page(runs: Sequence[Run], found: Evaluated, config: DictConfig) -> Page:
    """Draw everything and fill the template; ``config`` is that of `mrisem report`."""
    pictures: dict[str, bytes] = {}
    groups, samplings = make_sections(runs, found, config, pictures)
    html = TEMPLATES.get_template("page.html.j2").render(
        title=config.title or question(runs),
        facts=headline(runs, found.rows),
        guided=any(run.has_prior for run in runs),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, mrisem {mrisem.__version__}",
        groups=groups,
        headroom=HEADROOM,
        models=model_words(runs),
        samplings=samplings,
        runs=runs,
        evaluations=found.commands,
        failed=found.failed,
        min_resampled=MIN_RESAMPLED,
        min_tested=MIN_TESTED,
        error_map=ERROR_MAP,
        difference_map=DIFFERENCE_MAP,
    )
    tables = [t for g in groups for t in (g["table"], *g["audits"], *g["lesions"])]
    return Page(html, pictures, tables)
