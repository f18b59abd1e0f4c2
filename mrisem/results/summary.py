"""Rows of scores to means and paired tests: what `summary.json` holds."""

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
        own = [row for row in rows if row["method"] == label]
        subjects = [subject_of(row) for row in own]
        summaries[label] = {
            column.name: summarise([value(row, column) for row in own], subjects)
            for column in columns
        }
    return summaries


def paired_tests(
    rows: Sequence[Row], columns: Sequence[Column], references: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Test every method against its reference, over the subjects of the slices that both have.

    Of rows of several anatomies or samplings the test is over all of their subjects; a subject
    that was sampled in several ways is averaged over them. ``p_holm`` is corrected over the tests
    of one metric: of all methods in these rows (`mrisem.metrics.statistics.holm`).

    Args:
        rows: rows of ``metrics.csv``.
        columns: what to test; `SECONDS` and what has no better are left out.
        references: method to the one that it is tested against (`mrisem.results.labels`).
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
        shared = sorted(slices[label].keys() & slices[reference].keys())
        subjects = [subject_of(slices[label][key]) for key in shared]
        for column in columns:
            if column == SECONDS or column.better is None:
                continue
            own, other = (
                [value(slices[method][key], column) for key in shared]
                for method in (label, reference)
            )
            facts = {"metric": column.name, "method": label, "reference": reference}
            test = paired_test(own, other, subjects, column.better)
            tests.append(facts | test.as_row())
    for column in columns:
        correct([test for test in tests if test["metric"] == column.name])
    return tests


def correct(family: Sequence[dict[str, Any]]) -> None:
    """Give each test its ``p_holm``, corrected over all of these."""
    for test, p in zip(family, holm([test["p_value"] for test in family]), strict=True):
        test["p_holm"] = p


def summary_of(
    rows: Sequence[Row], columns: Sequence[Column], runs: Sequence[Run], wanted: str | None = None
) -> dict[str, Any]:
    """Return the scores' part of `summary.json`: each comparable group, and all together.

    Args:
        rows: scores of slices; ``run`` is the absolute folder.
        columns: columns of numbers.
        runs: what the rows are of, in table order.
        wanted: label of one reference for all; None: see `mrisem.results.labels.reference_of`.
    """

    def scores(members: Sequence[Row]) -> dict[str, Any]:
        known = references(runs_of(members, runs), wanted)
        return {
            "methods": method_summaries(members, columns),
            "paired_tests": paired_tests(members, columns, known),
        }

    groups = [
        dict(zip(GROUP_COLUMNS, key, strict=True)) | scores(members)
        for key, members in group_rows(rows).items()
    ]
    named = {column.name: asdict(column) for column in columns}
    return {"columns": named, **scores(rows), "groups": groups}


def runs_of(rows: Sequence[Row], runs: Sequence[Run]) -> list[Run]:
    """Return the runs that have rows, in table order."""
    folders = {row["run"] for row in rows}
    return [run for run in runs if str(run.folder) in folders]
