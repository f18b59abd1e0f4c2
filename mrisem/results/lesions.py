"""Comparison of two methods on lesions: the contrast that each method keeps, and its error."""

from collections.abc import Sequence
from typing import Any

from mrisem.metrics.statistics import paired_test, summarise
from mrisem.results.labels import references
from mrisem.results.rows import GROUP_COLUMNS, Column, Row, group_rows, labels_of, subject_of
from mrisem.results.run import Run
from mrisem.results.summary import correct, runs_of
from mrisem.results.tables import Table, build_table

COLUMNS = (
    *("file", "subject", "slice", "lesion", "method", "acceleration"),
    *("pixels", "target_contrast", "contrast", "error"),
    *("acquisition", "anatomy", "mask", "run"),
)
_SHOWN = (
    Column("contrast", "contrast kept", None, 3),  # best is 1
    Column("error", "NMSE", "lower", 4),
)
_KEYS = (*GROUP_COLUMNS, "file", "slice", "lesion")


def lesion_table(rows: Sequence[Row], method: str, reference: str | None) -> dict[str, Any]:
    """Compare two methods, or two runs, on the lesions that both reconstructed.

    Args:
        rows: rows of ``lesions.csv`` (read by `mrisem.results.rows.read_rows`), each for a lesion
            in a slice by a method.
        method: label of the method.
        reference: label of the other method; None: nothing is tested.

    Returns:
        ``n_lesions``; ``contrast`` and ``error``: mean, std, counts and interval
        (`mrisem.metrics.statistics.summarise`); with a reference also its
        ``reference_contrast`` and ``reference_error``, and the paired tests ``contrast_test`` (of
        ``|contrast - 1|``, the distance from the target's) and ``error_test``.
    """
    shown, other = (
        {tuple(row[key] for key in _KEYS): row for row in rows if row["method"] == label}
        for label in (method, reference)
    )
    # a lesion in several slices counts in each; the statistics average over subjects
    keys = sorted(shown.keys() if reference is None else shown.keys() & other.keys())
    subjects = [subject_of(shown[key]) for key in keys]
    table: dict[str, Any] = {"method": method, "reference": reference, "n_lesions": len(keys)}
    for name, ideal in (("contrast", 1), ("error", 0)):
        values = [shown[key][name] for key in keys]
        table[name] = summarise(values, subjects, "lesions")
        if reference is not None:
            others = [other[key][name] for key in keys]
            table[f"reference_{name}"] = summarise(others, subjects, "lesions")
            # contrast may err in both directions: its distance from the target's is tested
            losses, other_losses = ([abs(v - ideal) for v in side] for side in (values, others))
            test = paired_test(losses, other_losses, subjects, "lower")
            table[f"{name}_test"] = test.as_row("lesions")
    return table


def lesion_tables(
    rows: Sequence[Row], runs: Sequence[Run], reference_label: str | None = None
) -> list[dict[str, Any]]:
    """Return the `lesion_table` of each method in each group against its reference.

    Each test has a ``p_holm``, corrected over the methods of its group like those of scores. For
    ``runs`` and ``reference_label`` see `mrisem.results.summary.summary_of`.
    """
    entries = []
    for group, members in group_rows(rows).items():
        reference_of = references(runs_of(members, runs), reference_label)
        tables = [
            lesion_table(members, label, reference_of.get(label)) for label in labels_of(members)
        ]
        for column in _SHOWN:
            tested = [table for table in tables if table["reference"] is not None]
            correct([table[f"{column.name}_test"] for table in tested])
        entries += [dict(zip(GROUP_COLUMNS, group, strict=True)) | table for table in tables]
    return entries


def page_tables(tables: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the entries of `lesion_tables` as one table for each group."""
    shown = []
    for (anatomy, mask), members in group_rows(tables).items():
        tests = [
            {"metric": column.name, "method": t["method"], "reference": t["reference"]}
            | t[f"{column.name}_test"]
            for t in members
            for column in _SHOWN
            if t["reference"] is not None
        ]
        methods = {"methods": {t["method"]: t for t in members}}
        group = {"anatomy": f"lesions: {anatomy}", "mask": mask, "paired_tests": tests} | methods
        shown.append(build_table(group, _SHOWN, counted="lesions"))
    return shown
