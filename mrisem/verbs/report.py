"""`mrisem report`: one self-contained page from evaluated run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mrisem.types import InputError

if TYPE_CHECKING:
    from mrisem.report.page import Page
    from mrisem.report.runs import Run
    from mrisem.report.tables import Table

Summary = dict[str, Any]


def run(config: DictConfig) -> int:
    """Write the page, its figures and the table; print where the page is."""
    from mrisem.report.page import make_page
    from mrisem.report.runs import find_runs
    from mrisem.report.tables import as_text

    roots = [Path(root).expanduser().resolve() for root in _listed(config.runs)]
    runs = find_runs(roots)
    rows, summaries, targets = collect_scores(roots, runs)
    groups = make_groups(runs, rows, summaries, targets, config)
    evaluations = list(dict.fromkeys(s["command"] for s in summaries if s.get("command")))
    page = make_page(config.title, groups, runs, evaluations)
    tables = [group.table for group in groups]
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


def collect_scores(
    roots: list[Path], runs: list[Run]
) -> tuple[list[dict[str, Any]], list[Summary], dict[Path, Path]]:
    """Read the rows of every run, relabelled so that runs can be told apart.

    Scores are taken from the run's own folder, else from the given folder above it that was
    evaluated as a whole.

    Returns:
        rows with ``run`` as absolute path; the summaries they came with; run to target folder.

    Raises:
        InputError: a run was not evaluated, or has new files since.
    """
    from mrisem.report.summary import read_rows

    rows: list[dict[str, Any]] = []
    summaries: dict[Path, Summary] = {}
    tables: dict[Path, list[dict[str, Any]]] = {}
    targets: dict[Path, Path] = {}
    for one in runs:
        above = [root for root in roots if root in one.folder.parents]
        for folder in [*above, one.folder]:
            summary = summaries.get(folder) or _read_summary(folder)
            name = one.folder.relative_to(folder).as_posix()
            if summary is not None and name in summary["targets"]:
                break
        else:
            raise _not_evaluated(one, (above or [one.folder])[0])
        summaries[folder] = summary
        targets[one.folder] = Path(summary["targets"][name])
        if folder not in tables:
            tables[folder] = read_rows(folder / "metrics.csv")
        own = [row for row in tables[folder] if row["run"] == name]
        if {file.name for file in one.files} - {row["file"] for row in own}:
            raise _not_evaluated(one, folder)
        rows += [row | {"run": str(one.folder), "method": one.label} for row in own]
    return rows, list(summaries.values()), targets


def _not_evaluated(one: Run, folder: Path) -> InputError:
    return InputError(
        f"runs must be evaluated before they are reported, got {one.folder} with reconstructions "
        f"that have no scores; run: mrisem evaluate output_dir={folder}"
    )


def _read_summary(folder: Path) -> Summary | None:
    """Return ``summary.json``, or None where there is none (or no table beside it)."""
    path = folder / "summary.json"
    if not (path.is_file() and (folder / "metrics.csv").is_file()):
        return None
    try:
        summary: Summary = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} must be JSON ({error}); evaluate again") from error
    if not {"columns", "targets"} <= summary.keys():
        raise InputError(f"{path} must be written by mrisem evaluate, got another file; remove it")
    return summary


def make_groups(
    runs: list[Run],
    rows: list[dict[str, Any]],
    summaries: list[Summary],
    targets: dict[Path, Path],
    config: DictConfig,
) -> list[Any]:
    """Make table, panels and curves of each set of slices that may be compared."""
    from mrisem.report.curves import read_curves
    from mrisem.report.embedding import make_pictures
    from mrisem.report.page import Group
    from mrisem.report.panels import choose_slices, load_panel
    from mrisem.report.summary import Column, group_rows, labels_of, summary_of
    from mrisem.report.tables import build_table

    labels = labels_of(rows)
    if config.reference is not None and config.reference not in labels:
        raise InputError(f"reference must be one of {labels}, got {config.reference!r}")
    if not 0 < config.error_window <= 1:
        raise InputError(f"error_window must lie in (0, 1], got {config.error_window}")
    if config.embedding_slices < 0:
        raise InputError(f"embedding_slices must be 0 or more, got {config.embedding_slices}")
    columns = [Column(**c) for c in _merged([s["columns"] for s in summaries]).values()]
    groups = []
    for members in group_rows(rows).values():
        summary = summary_of(members, columns, config.reference)
        panels = [
            load_panel(key, members, targets, config.error_window) for key in choose_slices(members)
        ]
        table = build_table(summary["groups"][0], columns)
        folders = {row["run"] for row in members}
        mine = [run for run in runs if str(run.folder) in folders]
        pictures = make_pictures(mine, config.embedding_slices)
        note = missing_pictures(mine, {p.label for p in pictures}, config.embedding_slices)
        groups.append(Group(table, members, panels, read_curves(mine), pictures, note))
    return groups


def missing_pictures(runs: list[Run], drawn: set[str], most_scans: int) -> str:
    """Say which runs have no picture of their embeddings, and why."""
    if not most_scans:
        return "Not drawn: embedding_slices=0."
    without = [run.label for run in runs if run.has_prior and run.label not in drawn]
    if without:
        return f"No embeddings were kept in {', '.join(without)}, though a prior guided them."
    return "" if drawn else "No embeddings were kept: no prior in these runs."


def _merged(parts: list[Summary]) -> Summary:
    return {key: item for part in parts for key, item in part.items()}


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
    for kind in (
        "panel",
        "dots",
        "loss",
        "embedding",
    ):  # an earlier report's: none of its figures may linger
        for old in figures.glob(f"{kind}_*.png"):
            old.unlink()
    for name, png in page.pictures.items():
        (figures / name).write_bytes(png)
    (folder / "table.csv").write_text(as_csv(tables), encoding="utf-8")
    (folder / "table.tex").write_text(as_latex(tables), encoding="utf-8")
    partial = folder / "index.html.partial"
    partial.write_text(page.html, encoding="utf-8")
    partial.replace(folder / "index.html")
