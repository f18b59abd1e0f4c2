"""Sections of the page: tables and figures of each set of comparable runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig

from mrisem.files import reading
from mrisem.progress import track
from mrisem.report import embedding, panels, plots
from mrisem.report.changes import difference_window, load_changes
from mrisem.report.figures import Drawn, as_png, drawn
from mrisem.results import curves
from mrisem.results.audit import audit_summary, audit_tables
from mrisem.results.evaluated import Evaluated
from mrisem.results.headline import CORE, same_network, verdict
from mrisem.results.inside import slug
from mrisem.results.labels import references
from mrisem.results.lesions import lesion_tables, page_tables
from mrisem.results.rows import SECONDS, Column, Row, group_rows, labels_of, value
from mrisem.results.run import Run
from mrisem.results.summary import runs_of, summary_of
from mrisem.results.sweeps import Sweep, find_sampling_sweeps, find_sweeps
from mrisem.results.tables import Table, build_table

Shown = dict[str, Any]  # what the template reads
_MOST_MAPS = 3  # slices of each run
_SOLVES = "solve_"  # curves of how well linear systems were solved
_OPEN = ("psnr", "haarpsi", "ssim")  # scores whose figures are not folded


@dataclass
class Section:
    """Some runs, in table order, and the rows of their slices; PNG files are named by the title."""

    title: str
    runs: Sequence[Run]
    rows: Sequence[Row]
    pictures: dict[str, bytes]  # file name to PNG, of the whole page

    def draw(self, kind: str, name: str, figure: Figure) -> Drawn:
        """Render a figure, add it to the pictures, and return it for the page."""
        return drawn(self.keep(kind, name, as_png(figure)))

    def keep(self, kind: str, name: str, png: bytes) -> bytes:
        """Add a PNG to the pictures, and return it."""
        self.pictures[f"{kind}_{slug(f'{self.title} {name}')}.png"] = png
        return png


def make_sections(
    runs: Sequence[Run], found: Evaluated, config: DictConfig, pictures: dict[str, bytes]
) -> tuple[list[Shown], list[Shown]]:
    """Make a section of each set of slices that may be compared, its figures added to ``pictures``.

    Returns:
        the groups; and for each anatomy that was sampled in several ways, its sweeps of the mask.
    """

    def section(title: str, rows: Sequence[Row]) -> Section:
        return Section(title, runs_of(rows, runs), rows, pictures)

    groups, shown = [], []
    for rows in track(group_rows(found.rows).values(), "report", "groups of runs"):
        summary = summary_of(rows, found.columns, runs, config.reference)["groups"][0]
        table = build_table(summary, found.columns)
        group = _group(section(table.title, rows), table.columns, found, config)
        groups.append(group | _scores(summary, table, rows, group["runs"]))
        shown += [column for column in table.columns if column not in shown]
    samplings = []
    for (anatomy,), rows in group_rows(found.rows, ["anatomy"]).items():
        across = section(f"{anatomy or 'all'}, across samplings", rows)
        if sweeps := find_sampling_sweeps(across.runs, rows):
            drawings = draw_sweeps(across, sweeps, shown)
            samplings.append({"title": across.title, "sweeps": drawings})
    return groups, samplings


def _scores(
    summary: Mapping[str, Any], table: Table, rows: Sequence[Row], runs: Sequence[Run]
) -> Shown:
    """Return the verdict, and the table in two: its core, and what the page folds."""
    core = [c for name in CORE for c in table.columns if c.name == name] or [*table.columns]
    rest = [column for column in table.columns if column not in core]
    return {
        "verdict": verdict(summary, rows, table.columns, runs),
        "table": table,  # for files
        "core": build_table(summary, core),
        "rest": build_table(summary, rest) if rest else None,
        "same_network": same_network(runs, table.columns),
    }


def _group(
    section: Section, columns: Sequence[Column], found: Evaluated, config: DictConfig
) -> Shown:
    """Draw all figures of a set of comparable runs."""
    rows, folders = section.rows, {str(run.folder) for run in section.runs}
    columns = sorted(
        (column for column in columns if column != SECONDS), key=lambda c: c.name not in _OPEN
    )
    audit, lesions = (
        [row for row in table if row["run"] in folders] for table in (found.audit, found.lesions)
    )
    most = config.embedding_slices
    embedded = embedding.make_pictures(section.runs, most, config.embedding)
    labels = {picture.label for picture in embedded}
    chosen = panels.choose_slices(rows)
    compared = [column for column in columns if _is_compared(rows, column)]
    return {
        "title": section.title,
        "runs": section.runs,
        "pair": _pair(section, config.reference),
        "audits": audit_tables(audit_summary(audit)),
        "lesions": page_tables(lesion_tables(lesions, section.runs, config.reference)),
        "panels": [
            draw_panel(section, key, found, config.error_window)
            for key in track(chosen, "panels", "slices")
        ],
        "dots": [
            (column, section.draw("dots", column.name, plots.paired_dots(rows, column)))
            for column in track(compared, "dots", "scores")
        ],
        "n_open": sum(column.name in _OPEN for column in compared),
        "sweeps": draw_sweeps(section, find_sweeps(section.runs, rows, config.reference), columns),
        "curves": draw_fits(section),
        # two runs of one label on different files have a picture each: the number tells them apart
        "embeddings": [
            (e, section.draw("embedding", f"{e.label} {e.acquisition} {i}", embedding.draw(e)))
            for i, e in enumerate(embedded)
        ],
        "note": embedding.missing_pictures(section.runs, labels, most),
        "maps": draw_maps(section, audit, found),
    }


def _is_compared(rows: Sequence[Row], column: Column) -> bool:
    """Return whether several methods have the score, or there is only one method."""
    having = {row["method"] for row in rows if np.isfinite(value(row, column))}
    return len(having) > 1 or len(labels_of(rows)) == 1


def _pair(section: Section, wanted: str | None) -> tuple[str, str]:
    """Return the two methods that the viewer shows at first: a reference and its rival."""
    against = references(section.runs, wanted)
    rivals = [run.label for run in section.runs if run.label in against]
    guided = [run.label for run in section.runs if run.has_prior and run.label in against]
    rival = next(iter([*guided[-1:], *rivals[-1:]]), section.runs[0].label)
    return against.get(rival, "target"), rival


def draw_panel(
    section: Section, key: tuple[str, int], found: Evaluated, error_window: float
) -> panels.Panel:
    """Load a slice of all methods, and keep it as a file; the page shows it tile by tile."""
    panel = panels.load_panel(key, section.rows, found.targets, error_window)
    if panel.tiles:
        name = f"{Path(panel.file).stem} {panel.slice}"
        section.keep("panel", name, as_png(panels.panel_figure(panel)))
    return panel


def draw_sweeps(
    section: Section, sweeps: Iterable[Sweep], columns: Sequence[Column]
) -> list[Shown]:
    """Draw all scores of a sweep over its parameter."""
    shown = []
    for sweep in sweeps:
        figures = []
        for column in track(columns, f"sweep of {sweep.parameter}", "scores"):
            if points := sweep.points(column):
                figure = plots.sweep_curves(sweep, column, points)
                image = section.draw("sweep", f"{sweep.parameter} {column.name}", figure)
                figures.append((column, points, image))
        shown.append({"sweep": sweep, "figures": figures})
    return shown


def draw_fits(section: Section) -> list[tuple[str, Drawn]]:
    """Draw every loss, and for each level the similarities to both sides of the bank.

    Left out: what no slice has a number of, and how well the linear solves converged.
    """
    points, labels = curves.read_curves(section.runs), labels_of(section.rows)
    points = points[np.isfinite(points["value"].astype(float))]
    named = dict(list(points.groupby("name")))
    levels = points[points["name"].str.startswith("semantic_")].groupby("method")["name"].nunique()
    if len(levels) and levels.max() == 1:
        named.pop("semantic", None)  # the loss of all levels, where no run has two
    losses = [name for name in curves.loss_names([*named]) if not name.startswith(_SOLVES)]
    plans = [(name, name.replace("_", " "), {"-": named[name]}) for name in losses]
    for level in curves.levels_of([*named]):
        title = f"similarity to the bank, level {level}\nto positives solid, to negatives dashed"
        sides = {"-": named[f"positives_{level}"], "--": named[f"negatives_{level}"]}
        plans.append((f"similarity_{level}", title, sides))
    return [
        (title, section.draw("loss", name, plots.fit_curves(title, lines, labels)))
        for name, title, lines in track(plans, "fits", "curves")
    ]


def draw_maps(section: Section, audit: Sequence[Row], found: Evaluated) -> list[Shown]:
    """Load what a prior changed, for the page tile by tile; keep the evaluation's picture.

    Where image files are gone, the page shows that picture.
    """
    shown = []
    for run in track(section.runs, "maps", "runs"):
        rows = [row for row in audit if row["run"] == str(run.folder)]
        if run.folder not in found.pictures or not rows:
            continue
        picture = found.pictures[run.folder]
        png = section.pictures[picture.name] = picture.read_bytes()
        with reading(picture, "a PNG picture", "evaluate again"):
            image = drawn(png)
        folders = (Path(rows[0]["without_run"]), run.folder, found.targets[run.folder])
        maps = load_changes(rows, folders, _MOST_MAPS)
        window = difference_window(maps) if maps else 0.0
        slices = [(slice_maps.title, slice_maps.views(window)) for slice_maps in maps]
        title = f"{run.label} against {rows[0]['without']}"
        shown.append({"title": title, "image": image, "window": window, "slices": slices})
    return shown
