"""The sections of the page: what the template shows of each set of comparable runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from omegaconf import DictConfig

from mrisem.errors import InputError
from mrisem.report import embedding, panels, plots
from mrisem.report.changes import difference_window, load_changes
from mrisem.report.figures import as_png, data_uri
from mrisem.results import curves
from mrisem.results.audit import audit_summary, audit_tables
from mrisem.results.evaluated import Evaluated
from mrisem.results.inside import slug
from mrisem.results.lesions import lesion_tables, page_tables
from mrisem.results.rows import SECONDS, Column, Row, group_rows, labels_of
from mrisem.results.run import Run
from mrisem.results.summary import runs_of, summary_of
from mrisem.results.sweeps import Sweep, find_sampling_sweeps, find_sweeps
from mrisem.results.tables import build_table

Shown = dict[str, Any]  # what the template reads
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_MAPS = 3  # slices of each run


@dataclass
class Section:
    """Some runs, in table order, and the rows of their slices; PNG files are named by the title."""

    title: str
    runs: Sequence[Run]
    rows: Sequence[Row]
    pictures: dict[str, bytes]  # file name to PNG, of the whole page

    def draw(self, kind: str, name: str, figure: Figure) -> str:
        """Keep a figure as a file, and return it as a ``data:`` address."""
        png = as_png(figure)
        self.pictures[f"{kind}_{slug(f'{self.title} {name}')}.png"] = png
        return data_uri(png)


def make_sections(
    runs: Sequence[Run], found: Evaluated, config: DictConfig, pictures: dict[str, bytes]
) -> tuple[list[Shown], list[Shown]]:
    """Make a section of each set of slices that may be compared, its figures added to ``pictures``.

    Returns:
        the groups; and for each anatomy that was sampled in several ways, its sweeps of the mask.
    """

    def section(title: str, rows: Sequence[Row]) -> Section:
        return Section(title, runs_of(rows, runs), rows, pictures)

    groups, drawn = [], []
    for rows in group_rows(found.rows).values():
        summary = summary_of(rows, found.columns, runs, config.reference)["groups"][0]
        table = build_table(summary, found.columns)
        columns = [column for column in table.columns if column != SECONDS]
        groups.append(_group(section(table.title, rows), columns, found, config) | {"table": table})
        drawn += [column for column in columns if column not in drawn]
    samplings = []
    for (anatomy,), rows in group_rows(found.rows, ["anatomy"]).items():
        across = section(f"{anatomy or 'all'}, across samplings", rows)
        if sweeps := find_sampling_sweeps(across.runs, rows):
            drawings = draw_sweeps(across, sweeps, drawn)
            samplings.append({"title": across.title, "sweeps": drawings})
    return groups, samplings


def _group(
    section: Section, columns: Sequence[Column], found: Evaluated, config: DictConfig
) -> Shown:
    """Draw what may be compared."""
    rows, folders = section.rows, {str(run.folder) for run in section.runs}
    audit, lesions = (
        [row for row in table if row["run"] in folders] for table in (found.audit, found.lesions)
    )
    most = config.embedding_slices
    embedded = embedding.make_pictures(section.runs, most, config.embedding)
    labels = {picture.label for picture in embedded}
    chosen = panels.choose_slices(rows)
    return {
        "title": section.title,
        "audits": audit_tables(audit_summary(audit)),
        "lesions": page_tables(lesion_tables(lesions, section.runs, config.reference)),
        "panels": [draw_panel(section, key, found, config.error_window) for key in chosen],
        "dots": [
            (column, section.draw("dots", column.name, plots.paired_dots(rows, column)))
            for column in columns
        ],
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


def draw_panel(
    section: Section, key: tuple[str, int], found: Evaluated, error_window: float
) -> panels.Panel:
    """Load a slice of all methods, and keep it as a file; the page shows it tile by tile."""
    panel = panels.load_panel(key, section.rows, found.targets, error_window)
    if panel.tiles:
        name = f"{Path(panel.file).stem} {panel.slice}"
        section.draw("panel", name, panels.panel_figure(panel))
    return panel


def draw_sweeps(
    section: Section, sweeps: Iterable[Sweep], columns: Sequence[Column]
) -> list[Shown]:
    """Draw every score that a sweep has over its parameter."""
    drawn = []
    for sweep in sweeps:
        figures = []
        for column in columns:
            if points := sweep.points(column):
                figure = plots.sweep_curves(sweep, column, points)
                image = section.draw("sweep", f"{sweep.parameter} {column.name}", figure)
                figures.append((column, points, image))
        drawn.append({"sweep": sweep, "figures": figures})
    return drawn


def draw_fits(section: Section) -> list[tuple[str, str]]:
    """Draw every loss, and for each level the similarities to both sides of the bank."""
    points, labels = curves.read_curves(section.runs), labels_of(section.rows)
    named = dict(list(points.groupby("name")))
    plans = [(n, n.replace("_", " "), {"-": named[n]}) for n in curves.loss_names([*named])]
    for level in curves.levels_of([*named]):
        title = f"similarity to the bank, level {level}\nto positives solid, to negatives dashed"
        sides = {"-": named[f"positives_{level}"], "--": named[f"negatives_{level}"]}
        plans.append((f"similarity_{level}", title, sides))
    return [
        (title, section.draw("loss", name, plots.fit_curves(title, lines, labels)))
        for name, title, lines in plans
    ]


def draw_maps(section: Section, audit: Sequence[Row], found: Evaluated) -> list[Shown]:
    """Load what a prior changed, for the page tile by tile; keep the evaluation's picture.

    Where image files are gone, the page shows that picture.
    """
    drawn = []
    for run in section.runs:
        rows = [row for row in audit if row["run"] == str(run.folder)]
        if run.folder not in found.pictures or not rows:
            continue
        picture = found.pictures[run.folder]
        png = section.pictures[picture.name] = picture.read_bytes()
        if not png.startswith(_PNG):
            raise InputError(f"{picture} must be a PNG picture, got another file; evaluate again")
        folders = (Path(rows[0]["without_run"]), run.folder, found.targets[run.folder])
        maps = load_changes(rows, folders, _MOST_MAPS)
        window = difference_window(maps) if maps else 0.0
        slices = [(slice_maps.title, slice_maps.views(window)) for slice_maps in maps]
        title = f"{run.label} against {rows[0]['without']}"
        drawn.append({"title": title, "image": data_uri(png), "window": window, "slices": slices})
    return drawn
