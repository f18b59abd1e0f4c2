"""Lesion tables against numbers by hand."""

import numpy as np
import pytest

from mrisem.metrics.statistics import sign_flip_p
from mrisem.results.lesions import lesion_table, lesion_tables, page_tables

METHODS = ("zero_filled", "tv", "unrolled", "unrolled + image_same", "a", "a + prior", "b")


def rows_of(method, contrasts, errors, anatomy="brain"):
    """Three lesions a file, a file a subject."""
    return [
        {"file": f"{i // 3}.h5", "slice": 0, "lesion": i % 3, "method": method, "anatomy": anatomy}
        | {
            "subject": f"s{i // 3}",
            "mask": "gaussian R=4",
            "run": f"/runs/{METHODS.index(method)}",
            "contrast": contrast,
            "error": error,
        }
        for i, (contrast, error) in enumerate(zip(contrasts, errors, strict=True))
    ]


def test_lesion_table_pairs_lesions_and_tests_the_distance_from_the_target():
    rng = np.random.default_rng(0)
    plain = rng.uniform(0.6, 0.9, 18)
    over = 1 + 0.5 * (1 - plain)  # too strong, by half of what the other was too weak
    errors = rng.uniform(0.1, 0.2, (2, 18))
    rows = rows_of("a + prior", over, errors[0]) + rows_of("a", plain, errors[1])[::-1]
    table = lesion_table(rows, "a + prior", "a")
    assert (table["n_lesions"], table["contrast"]["n_subjects"]) == (18, 6)
    assert table["contrast"]["mean"] == pytest.approx(over.mean())
    assert table["reference_contrast"]["mean"] == pytest.approx(plain.mean())
    assert table["contrast_test"]["share_better"] == 1.0
    assert table["contrast_test"]["p_value"] == pytest.approx(2 / 2**6)
    of_subjects = (errors[0] - errors[1]).reshape(6, 3).mean(1)
    assert table["error_test"]["p_value"] == pytest.approx(sign_flip_p(of_subjects))


def test_lesion_table_takes_only_lesions_that_both_have():
    rows = rows_of("a", [1.0] * 4, [0.1] * 4) + rows_of("b", [0.5] * 7, [0.2] * 7)
    rows += rows_of("b", [0.5] * 7, [0.2] * 7, "other")
    table = lesion_table(rows, "b", "a")
    assert table["n_lesions"] == 4
    assert table["error_test"]["reason"] == "fewer than 6 subjects"
    alone = lesion_table(rows, "a", None)
    assert (alone["n_lesions"], alone["error"]["mean"]) == (4, pytest.approx(0.1))
    assert "error_test" not in alone


def test_lesion_tables_compare_each_method_with_its_reference_in_each_group(labelled):
    rows = rows_of("unrolled", [0.9] * 24, [0.1] * 24)
    rows += rows_of("unrolled + image_same", [0.8] * 24, [0.2] * 24)
    tables = lesion_tables([*rows, *rows_of("unrolled", [0.7], [0.3], "other")], labelled(*METHODS))
    assert [(t["anatomy"], t["method"], t["reference"]) for t in tables] == [
        ("brain", "unrolled", None),
        ("brain", "unrolled + image_same", "unrolled"),
        ("other", "unrolled", None),
    ]
    brain, other = page_tables(tables)
    assert (brain.title, other.title) == (
        "lesions: brain, gaussian R=4",
        "lesions: other, gaussian R=4",
    )
    contrast = brain.rows[-1].cells[0]
    assert contrast.text == "0.800 ± 0.000"
    assert contrast.test["p_value"] == pytest.approx(2 / 2**8)
    assert brain.rows[-1].reference == "unrolled"


def test_page_tables_correct_the_tests_over_the_methods_of_a_group(labelled):
    errors = {"zero_filled": 0.4, "tv": 0.3, "unrolled": 0.1}
    rows = [row for m, e in errors.items() for row in rows_of(m, [0.9] * 24, [e] * 24)]
    rows += rows_of("tv", [0.7], [0.3], "other")
    table, other = page_tables(lesion_tables(rows, labelled(*METHODS)))
    assert table.title == "lesions: brain, gaussian R=4"
    assert [column.heading for column in table.columns] == ["contrast kept", "NMSE ↓"]
    assert [[cell.best for cell in row.cells] for row in table.rows] == [[False] * 2] * 2 + [
        [False, True]
    ]
    assert [(row.n_subjects, row.n, table.counted) for row in table.rows] == [
        (8, 24, "lesions")
    ] * 3
    for row in table.rows[1:]:
        test = row.cells[1].test
        assert row.reference == test["reference"] == "zero_filled"
        assert test["p_holm"] == pytest.approx(2 * test["p_value"])
    assert table.reasons == ["no difference"]  # of contrasts
    assert [row.reference for row in other.rows] == [None]
    rows = rows_of("zero_filled", [1, 2], [1, 2]) + rows_of("tv", [1, 2], [1, 1])
    (few,) = page_tables(lesion_tables(rows, labelled(*METHODS)))
    assert few.reasons == ["fewer than 6 subjects"]
