"""Lesions, kept or lost: what a method shows of each, against another method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mrisem.metrics.statistics import paired_test, summarise
from mrisem.report.summary import (
    GROUP_COLUMNS,
    Column,
    corrected,
    group_rows,
    labels_of,
    reference_of,
)
from mrisem.report.tables import Table, build_table, mean_text, p_text

Row = dict[str, Any]
COLUMNS = (
    *("file", "slice", "lesion", "method", "acceleration"),
    *("pixels", "target_contrast", "contrast", "error"),
    *("acquisition", "anatomy", "mask", "run"),
)


def lesion_table(rows: Sequence[Row], method: str, reference: str | None) -> dict[str, Any]:
    """Compare two methods, or two runs, on the lesions that both show.

    Args:
        rows: of ``lesions.csv`` (`mrisem.report.summary.read_rows` reads it): one lesion in one
            slice by one method each.
        method: its label.
        reference: that of the other; None: nothing is tested.

    Returns:
        ``n`` lesions; ``contrast`` and ``error``: mean, std, n and interval by file; with a
        reference also its ``reference_contrast`` and ``reference_error``, and the paired tests
        ``contrast_test`` (of ``|contrast - 1|``, the distance from the target's) and
        ``error_test``.
    """
    own, other = (
        {_key(row): row for row in rows if row["method"] == label} for label in (method, reference)
    )
    keys = sorted(own.keys() & other.keys() if reference is not None else own.keys())
    table: dict[str, Any] = {"method": method, "reference": reference, "n": len(keys)}
    files = [own[key]["file"] for key in keys]
    for name in ("contrast", "error"):
        table[name] = summarise([own[key][name] for key in keys], files)
    if reference is None:
        return table
    for name in ("contrast", "error"):
        table[f"reference_{name}"] = summarise([other[key][name] for key in keys], files)
        pair = [[_loss(side[key], name) for key in keys] for side in (own, other)]
        table[f"{name}_test"] = paired_test(pair[0], pair[1], "lower").as_row()
    return table


def lesion_tables(rows: Sequence[Row], wanted: str | None = None) -> list[dict[str, Any]]:
    """Return the table of every method in every group against its reference.

    Args:
        rows: of ``lesions.csv``.
        wanted: one reference for all, or None (see `mrisem.report.summary.reference_of`).
    """
    tables = []
    for group, members in group_rows(rows).items():
        labels = labels_of(members)
        for label in labels:
            reference = reference_of(label, labels, wanted)
            table = lesion_table(members, label, reference)
            tables.append(dict(zip(GROUP_COLUMNS, group, strict=True)) | table)
    return tables


def page_tables(tables: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the tables of `lesion_tables` as one table for each group.

    Its tests are corrected over the methods of the group, as those of scores are.
    """
    columns = (
        Column("contrast", "contrast kept", None, 3),  # best is 1
        Column("error", "NMSE", "lower", 4),
    )
    made = []
    for group, members in group_rows(tables).items():
        anatomy, mask = group
        tests = [
            {"metric": c.name, "method": t["method"], "reference": t["reference"]}
            | t[f"{c.name}_test"]
            for t in members
            for c in columns
            if t["reference"] is not None
        ]
        shown = {
            "anatomy": f"lesions: {anatomy}",
            "mask": mask,
            "methods": {table["method"]: table for table in members},
            "paired_tests": corrected(tests),
        }
        made.append(build_table(shown, columns))
    return made


def text_tables(tables: Sequence[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """Return the tables of `lesion_tables` as cells, by title: one for each group."""
    found: dict[str, list[list[str]]] = {}
    for table in tables:
        title = f"lesions: {table['anatomy']}, {table['mask']}"
        head = ["method", "lesions", "contrast kept", "p", "NMSE", "p", "against"]
        cells = [table["method"], str(table["n"])]
        for name, digits in (("contrast", 3), ("error", 4)):
            test = table.get(f"{name}_test", {})
            cells += [mean_text(table[name], digits), p_text(test.get("p_value"))]
        found.setdefault(title, [head]).append([*cells, table["reference"] or ""])
    return found


def _key(row: Row) -> tuple[Any, ...]:
    return (*(row[key] for key in GROUP_COLUMNS), row["file"], row["slice"], row["lesion"])


def _loss(row: Row, name: str) -> float:
    """What should be small: the error, or how far the contrast is from the target's."""
    return abs(row[name] - 1) if name == "contrast" else float(row[name])
