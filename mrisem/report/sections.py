"""The sections of the page: what the template shows of each set of comparable runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mrisem.report import curves, embedding, panels
from mrisem.report.audit import audit_summary, audit_tables
from mrisem.report.changes import difference_window, load_changes
from mrisem.report.evaluated import Evaluated
from mrisem.report.figures import as_png, data_uri
from mrisem.report.lesions import lesion_tables, page_tables
from mrisem.report.plots import Figure, fit_curves, paired_dots, sweep_curves
from mrisem.report.runs import Run, slug
from mrisem.report.summary import SECONDS, Column, Row, group_rows, labels_of, summary_of
from mrisem.report.sweeps import Sweep, find_sampling_sweeps, find_sweeps
from mrisem.report.tables import Table, build_table

Shown = dict[str, Any]  # what the template reads
_MOST_MAPS = 3  # slices of each run


@dataclass(frozen=True)
class Section:
    """What is drawn of some runs.

    Args:
        title: heading; file names begin with it.
        runs: in table order.
        rows: of their slices' scores.
        pictures: file name to PNG, of the whole page.
    """

    title: str
    runs: Sequence[Run]
    rows: Sequence[Row]
    pictures: dict[str, bytes]

    def keep(self, kind: str, name: str, figure: Figure) -> bytes:
        """Keep a figure as a file, and return its PNG."""
        png = self.pictures[f"{kind}_{slug(f'{self.title} {name}')}.png"] = as_png(figure)
        return png

    def draw(self, kind: str, name: str, alt: str, figure: Figure) -> Shown:
        """Keep a figure as a file, and return it with what it shows in words."""
        return {"alt": alt, "image": data_uri(self.keep(kind, name, figure))}

    def head(self) -> Shown:
        """Return title and anchor."""
        return {"title": self.title, "id": slug(self.title)}


def make_groups(
    runs: Sequence[Run], found: Evaluated, config: DictConfig, pictures: dict[str, bytes]
) -> list[Shown]:
    """Make a section of each set of slices that may be compared."""
    groups = []
    for rows in group_rows(found.rows).values():
        table = build_table(
            summary_of(rows, found.columns, config.reference)["groups"][0], found.columns
        )
        section = Section(table.title, _runs_of(runs, rows), rows, pictures)
        columns = drawn_columns(table)
        folders = {row["run"] for row in rows}
        audit, lesions = (
            [row for row in t if row["run"] in folders] for t in (found.audit, found.lesions)
        )
        audited = audit_tables(audit_summary(audit))
        lesioned = page_tables(lesion_tables(lesions, config.reference))
        umaps = embedding.make_pictures(section.runs, config.embedding_slices)
        sweeps = find_sweeps(section.runs, rows, config.reference)
        drawn = {umap.label for umap in umaps}
        group = {
            "table": table,
            "tables": [table, *audited, *lesioned],
            "panels": draw_panels(section, found, config.error_window),
            "dots": [draw_dots(section, table, column) for column in columns],
            "sweeps": draw_sweeps(
                section, find_sweeps(section.runs, rows, config.reference), columns
            ),
            "curves": draw_fits(section),
            "umaps": [draw_umap(section, i, umap) for i, umap in enumerate(umaps)],
            "note": embedding.missing_pictures(section.runs, drawn, config.embedding_slices),
            "audit": next(iter(audited), None),
            "maps": draw_maps(section, audit, found),
            "lesions": next(iter(lesioned), None),
        }
        groups.append(section.head() | group)
    return groups


def make_samplings(
    runs: Sequence[Run], found: Evaluated, columns: Sequence[Column], pictures: dict[str, bytes]
) -> list[Shown]:
    """Compare the masks of each anatomy that was sampled in several ways."""
    samplings = []
    for anatomy in sorted({row["anatomy"] for row in found.rows}):
        rows = [row for row in found.rows if row["anatomy"] == anatomy]
        title = f"{anatomy or 'all'}, across samplings"
        section = Section(title, _runs_of(runs, rows), rows, pictures)
        sweeps = find_sampling_sweeps(section.runs, rows)
        if sweeps:
            samplings.append(section.head() | {"sweeps": draw_sweeps(section, sweeps, columns)})
    return samplings


def _runs_of(runs: Sequence[Run], rows: Sequence[Row]) -> list[Run]:
    folders = {row["run"] for row in rows}
    return [run for run in runs if str(run.folder) in folders]


def drawn_columns(table: Table) -> list[Column]:
    """Return the columns that are worth a figure."""
    return [column for column in table.columns if column != SECONDS]


def draw_panels(section: Section, found: Evaluated, error_window: float) -> list[Shown]:
    """Draw representative slices of all methods, tile by tile for the page, whole for the file."""
    drawn = []
    for key in panels.choose_slices(section.rows):
        panel = panels.load_panel(key, section.rows, found.targets, error_window)
        if panel.tiles:
            name = f"{panel.file.removesuffix('.h5')} {panel.slice}"
            section.keep("panel", name, panels.panel_figure(panel))
        drawn.append({"panel": panel, "grey": panel.tiles[0].view.top if panel.tiles else 1.0})
    return drawn


def draw_dots(section: Section, table: Table, column: Column) -> Shown:
    """Draw one score of every slice."""
    place = table.columns.index(column)
    means = ", ".join(f"{row.method} {row.cells[place].text}" for row in table.rows)
    alt = f"{column.label} of every slice for each method; means: {means}"
    return section.draw("dots", column.name, alt, paired_dots(section.rows, column))


def draw_sweeps(
    section: Section, sweeps: Sequence[Sweep], columns: Sequence[Column]
) -> list[Shown]:
    """Draw every score that a sweep has over its parameter."""
    drawn = []
    for sweep in sweeps:
        figures = []
        for column in columns:
            points = sweep.points(column)
            if not points:
                continue
            means = "; ".join(
                f"{line}: "
                + ", ".join(f"{at['mean']:.{column.digits}f} at {x}" for x, at in values.items())
                for line, values in points.items()
            )
            alt = f"Mean {column.label} over {sweep.parameter}; {means}"
            name = f"{sweep.parameter} {column.name}"
            figures.append(section.draw("sweep", name, alt, sweep_curves(sweep, column, points)))
        drawn.append({"sweep": sweep, "figures": figures})
    return drawn


def draw_fits(section: Section) -> list[Shown]:
    """Draw every loss, and for each level the similarities to both sides of the bank."""
    points, labels = curves.read_curves(section.runs), labels_of(section.rows)
    by_name = dict(list(points.groupby("name")))
    plans = [(n, n.replace("_", " "), {"-": by_name[n]}) for n in curves.loss_names([*by_name])]
    for level in curves.levels_of([*by_name]):
        title = f"similarity to the bank, level {level}\nto positives solid, to negatives dashed"
        sides = {"-": by_name[f"positives_{level}"], "--": by_name[f"negatives_{level}"]}
        plans.append((f"similarity_{level}", title, sides))
    drawn = []
    for name, title, lines in plans:
        methods = ", ".join(lines["-"]["method"].unique())
        alt = f"{title} over the iterations of per-scan fitting for {methods}"
        drawn.append(section.draw("loss", name, alt, fit_curves(title, lines, labels)))
    return drawn


def draw_umap(section: Section, number: int, umap: embedding.Picture) -> Shown:
    """Draw the embeddings of a run; the number tells two runs of one label apart."""
    name = f"{umap.label} {umap.acquisition} {number}"
    alt = f"Embeddings of {umap.label}, {umap.acquisition}: {umap.caption}"
    figure = embedding.embedding_figure(umap)
    return section.draw("embedding", name, alt, figure) | {"umap": umap}


def draw_maps(section: Section, audit: Sequence[Row], found: Evaluated) -> list[Shown]:
    """Draw what a prior changed, tile by tile; keep the evaluation's picture as a file.

    Where image files are gone, the page shows that picture.
    """
    drawn = []
    for run in section.runs:
        rows = [row for row in audit if row["run"] == str(run.folder)]
        picture = found.pictures.get(run.folder)
        if picture is None or not rows:
            continue
        png = section.pictures[picture.name] = picture.read_bytes()
        folders = (Path(rows[0]["without_run"]), run.folder, found.targets[run.folder])
        maps = load_changes(rows, folders, _MOST_MAPS)
        window = difference_window(maps) if maps else 0.0
        drawn.append(
            {
                "title": f"{run.label} against {rows[0]['without']}",
                "image": data_uri(png),
                "percent": f"{100 * window:g}",
                "slices": [{"title": m.title, "views": m.views(window)} for m in maps],
            }
        )
    return drawn
