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
    value,
)
from mrisem.results.run import Run


def method_summaries(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, dict[str, Any]]:
    """Return ``{method: {column: {mean, std, n, low, high}}}``; intervals resample whole files."""
    summaries = {}
    for label in labels_of(rows):
        own = [row for row in rows if row["method"] == label]
        files = [row["file"] for row in own]
        summaries[label] = {
            column.name: summarise([value(row, column) for row in own], files) for column in columns
        }
    return summaries


def paired_tests(
    rows: Sequence[Row], columns: Sequence[Column], references: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Test every method against its reference on the slices that both have.

    ``p_holm`` is corrected over all tests of one metric (`mrisem.metrics.statistics.holm`).

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
        for column in columns:
            if column == SECONDS or column.better is None:
                continue
            own, other = (
                [value(slices[method][key], column) for key in shared]
                for method in (label, reference)
            )
            facts = {"metric": column.name, "method": label, "reference": reference}
            tests.append({**facts, **paired_test(own, other, column.better).as_row()})
    return corrected(tests)


def corrected(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each test its ``p_holm``, corrected over all tests of its metric."""
    for metric in {test["metric"] for test in tests}:
        family = [test for test in tests if test["metric"] == metric]
        for test, p in zip(family, holm([test["p_value"] for test in family]), strict=True):
            test["p_holm"] = p
    return tests


def summary_of(
    rows: Sequence[Row], columns: Sequence[Column], runs: Sequence[Run], wanted: str | None = None
) -> dict[str, Any]:
    """Return the scores' part of `summary.json`: all together, and each comparable group.

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
