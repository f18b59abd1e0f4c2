"""Means and paired tests from rows of scores, for `summary.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mrisem.metrics.statistics import holm, paired_test, summarise
from mrisem.results.labels import references
from mrisem.results.rows import (
    GROUP_COLUMNS,
    SECONDS,
    Column,
    Row,
    group_rows,
    labels_of,
    subject_of,
    value,
)
from mrisem.results.run import Run


def method_summaries(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, dict[str, Any]]:
    """Return ``{method: {column: summary}}`` (`mrisem.metrics.statistics.summarise`)."""
    summaries = {}
    for label in labels_of(rows):
        members = [row for row in rows if row["method"] == label]
        subjects = [subject_of(row) for row in members]
        summaries[label] = {
            column.name: summarise([value(row, column) for row in members], subjects)
            for column in columns
        }
    return summaries


def paired_tests(
    rows: Sequence[Row], columns: Sequence[Column], references: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Test each method against its reference, over the subjects of the slices that both have.

    Rows of several anatomies or masks are tested together; a subject with several masks is averaged
    over them. ``p_holm`` is corrected over the tests of all methods in one metric
    (`mrisem.metrics.statistics.holm`).

    Args:
        rows: rows of ``metrics.csv``.
        columns: columns to test; `SECONDS` and columns without a better direction are left out.
        references: label of a method -> label of its reference (`mrisem.results.labels`).
    """
    labels = labels_of(rows)
    slices: dict[str, dict[tuple[Any, ...], Row]] = {label: {} for label in labels}
    for row in rows:
        slices[row["method"]][tuple(row[key] for key in (*GROUP_COLUMNS, "file", "slice"))] = row
    tests: list[dict[str, Any]] = []
    for label in labels:
        reference = references.get(label)
        if reference not in slices:
            continue
        # paired: only slices of both, so that a missing scan does not shift one mean
        shared = sorted(slices[label].keys() & slices[reference].keys())
        subjects = [subject_of(slices[label][key]) for key in shared]
        for column in columns:
            if column == SECONDS or column.better is None:
                continue
            values, reference_values = (
                [value(slices[method][key], column) for key in shared]
                for method in (label, reference)
            )
            facts = {"metric": column.name, "method": label, "reference": reference}
            test = paired_test(values, reference_values, subjects, column.better)
            tests.append(facts | test.as_row())
    # one family for each metric: methods are compared within a metric, not across metrics
    for column in columns:
        correct([test for test in tests if test["metric"] == column.name])
    return tests


def correct(family: Sequence[dict[str, Any]]) -> None:
    """Add ``p_holm`` to each test, corrected over all tests of the family."""
    for test, p in zip(family, holm([test["p_value"] for test in family]), strict=True):
        test["p_holm"] = p


def summary_of(
    rows: Sequence[Row],
    columns: Sequence[Column],
    runs: Sequence[Run],
    reference_label: str | None = None,
) -> dict[str, Any]:
    """Return the part of `summary.json` on scores: each comparable group, and all rows together.

    Args:
        rows: scores of slices; ``run`` is the absolute folder.
        columns: columns of numbers.
        runs: runs of the rows, in table order.
        reference_label: label of the reference of all runs; None: see
            `mrisem.results.labels.reference_of`.
    """

    def scores(members: Sequence[Row]) -> dict[str, Any]:
        reference_of = references(runs_of(members, runs), reference_label)
        return {
            "methods": method_summaries(members, columns),
            "paired_tests": paired_tests(members, columns, reference_of),
        }

    groups = [
        dict(zip(GROUP_COLUMNS, key, strict=True)) | scores(members)
        for key, members in group_rows(rows).items()
    ]
    named = {column.name: asdict(column) for column in columns}
    return {"columns": named, **scores(rows), "groups": groups}


def runs_of(rows: Sequence[Row], runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the rows, in table order."""
    folders = {row["run"] for row in rows}
    return [run for run in runs if str(run.folder) in folders]
