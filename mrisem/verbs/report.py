"""`mrisem report`: one self-contained page from evaluated run folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mrisem.errors import InputError

if TYPE_CHECKING:
    from mrisem.report.evaluated import Evaluated
    from mrisem.report.group import Group, Samplings
    from mrisem.report.page import Page
    from mrisem.report.runs import Run
    from mrisem.report.summary import Column, Row
    from mrisem.report.tables import Table

_KINDS = ("panel", "dots", "sweep", "loss", "embedding", "audit")  # of figures


def run(config: DictConfig) -> int:
    """Write the page, its figures and the tables; print where the page is."""
    from mrisem.report.evaluated import read_evaluated
    from mrisem.report.page import make_page
    from mrisem.report.runs import find_runs
    from mrisem.report.tables import as_text

    roots = [Path(root).expanduser().resolve() for root in _listed(config.runs)]
    runs = find_runs(roots)
    found = read_evaluated(roots, runs)
    _check(config, found)
    groups = make_groups(runs, found, config)
    commands = [s["command"] for s in found.summaries.values() if s.get("command")]
    evaluations = list(dict.fromkeys(commands))
    page = make_page(config.title, groups, runs, evaluations, make_samplings(runs, found, groups))
    tables = [table for group in groups for table in group.tables]
    folder = page_folder(Path(config.output_dir).expanduser().resolve())
    write_page(folder, page, tables)
    for table in tables:
        print(as_text(table), end="\n\n")
    print(folder / "index.html")
    return 0


def _listed(runs: Any) -> list[str]:
    """Return ``runs`` as a list of paths; one path alone is accepted."""
    listed = [runs] if isinstance(runs, str) else list(runs or ())
    if not listed:
        raise InputError("runs must name evaluated run folders, got none; add runs=[DIR,DIR]")
    return listed


def _check(config: DictConfig, found: Evaluated) -> None:
    from mrisem.report.summary import labels_of

    labels = labels_of(found.rows)
    if config.reference is not None and config.reference not in labels:
        raise InputError(f"reference must be one of {labels}, got {config.reference!r}")
    if not 0 < config.error_window <= 1:
        raise InputError(f"error_window must lie in (0, 1], got {config.error_window}")
    if config.embedding_slices < 0:
        raise InputError(f"embedding_slices must be 0 or more, got {config.embedding_slices}")


def make_groups(runs: list[Run], found: Evaluated, config: DictConfig) -> list[Group]:
    """Make what is shown of each set of slices that may be compared."""
    from mrisem.report.summary import Column, group_rows

    columns = [Column(**c) for s in found.summaries.values() for c in s["columns"].values()]
    columns = list({column.name: column for column in columns}.values())
    groups = []
    for members in group_rows(found.rows).values():
        folders = {row["run"] for row in members}
        mine = [run for run in runs if str(run.folder) in folders]
        groups.append(make_group(mine, members, columns, found, config))
    return groups


def make_group(
    runs: list[Run], rows: list[Row], columns: list[Column], found: Evaluated, config: DictConfig
) -> Group:
    """Make table, panels, curves, sweeps and findings of comparable runs."""
    from mrisem.report.audit import audit_summary
    from mrisem.report.curves import read_curves
    from mrisem.report.embedding import make_pictures
    from mrisem.report.group import Group
    from mrisem.report.lesions import lesion_tables
    from mrisem.report.panels import choose_slices, load_panel
    from mrisem.report.summary import summary_of
    from mrisem.report.sweeps import find_sweeps
    from mrisem.report.tables import build_table

    window, reference = config.error_window, config.reference
    keys = choose_slices(rows)
    pictures = make_pictures(runs, config.embedding_slices)
    audit, lesions = ([r for r in t if _of(r, runs)] for t in (found.audit, found.lesions))
    against = {row["run"]: f"{row['method']} against {row['without']}" for row in audit}
    return Group(
        table=build_table(summary_of(rows, columns, reference)["groups"][0], columns),
        rows=rows,
        panels=[load_panel(key, rows, found.targets, window) for key in keys],
        curves=read_curves(runs),
        pictures=pictures,
        note=missing_pictures(runs, {p.label for p in pictures}, config.embedding_slices),
        sweeps=find_sweeps(runs, rows, reference),
        audit=audit_summary(audit),
        maps=[
            (against[run], found.figures[Path(run)])
            for run in against
            if Path(run) in found.figures
        ],
        lesions=lesion_tables(lesions, reference),
    )


def _of(row: Row, runs: list[Run]) -> bool:
    return any(row["run"] == str(run.folder) for run in runs)


def make_samplings(runs: list[Run], found: Evaluated, groups: list[Group]) -> list[Samplings]:
    """Compare the masks of each anatomy that was sampled in several ways."""
    from mrisem.report.group import Samplings
    from mrisem.report.sweeps import find_sampling_sweeps

    columns = list({column.name: column for group in groups for column in group.drawn}.values())
    made = []
    for anatomy in sorted({row["anatomy"] for row in found.rows}):
        rows = [row for row in found.rows if row["anatomy"] == anatomy]
        mine = [run for run in runs if any(row["run"] == str(run.folder) for row in rows)]
        sweeps = find_sampling_sweeps(mine, rows)
        made += [Samplings(anatomy, sweeps, columns)] if sweeps else []
    return made


def missing_pictures(runs: list[Run], drawn: set[str], most_scans: int) -> str:
    """Say which runs have no picture of their embeddings, and why."""
    if not most_scans:
        return "Not drawn: embedding_slices=0."
    without = [run.label for run in runs if run.has_prior and run.label not in drawn]
    if without:
        return f"No embeddings were kept in {', '.join(without)}, though a prior guided them."
    return "" if drawn else "No embeddings were kept: no prior in these runs."


def page_folder(output: Path) -> Path:
    """Return where the page goes: ``output/report``, or ``output`` when that is named report.

    >>> page_folder(Path("a/b")).as_posix(), page_folder(Path("a/report")).as_posix()
    ('a/b/report', 'a/report')
    """
    return output if output.name == "report" else output / "report"


def write_page(folder: Path, page: Page, tables: list[Table]) -> None:
    """Write page, figures and tables; the page last, so that it never stands without them."""
    from mrisem.report.tables import as_csv, as_latex

    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").unlink(missing_ok=True)
    for kind in _KINDS:  # an earlier report's: none of its figures may linger
        for old in figures.glob(f"{kind}_*.png"):
            old.unlink()
    for name, png in page.pictures.items():
        (figures / name).write_bytes(png)
    (folder / "table.csv").write_text(as_csv(tables), encoding="utf-8")
    (folder / "table.tex").write_text(as_latex(tables), encoding="utf-8")
    partial = folder / "index.html.partial"
    partial.write_text(page.html, encoding="utf-8")
    partial.replace(folder / "index.html")
