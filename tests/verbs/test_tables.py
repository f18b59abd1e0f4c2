"""Tables in a terminal fit its width and lose nothing; elsewhere they are plain text."""

import re

import pytest

from mrisem.results.rows import Column
from mrisem.results.tables import as_text, build_table
from mrisem.verbs import tables


def table(n_columns=9):
    columns = [Column(f"score{i}", f"score number {i}", "higher", 2) for i in range(n_columns)]

    def summary(mean):
        return {"mean": mean, "std": 0.5, "low": None, "high": None, "n_subjects": 7, "n_slices": 9}

    methods = {
        "zero_filled": {column.name: summary(20.0 + i) for i, column in enumerate(columns)},
        "unrolled + [prior]": {column.name: summary(31.0 + i) for i, column in enumerate(columns)},
    }
    test = {"method": "unrolled + [prior]", "metric": "score0", "reference": "zero_filled"}
    tests = [test | {"p_holm": 0.0312}]
    group = {"anatomy": "brain", "mask": "gaussian R=4", "methods": methods, "paired_tests": tests}
    return build_table(group, columns)


@pytest.fixture
def shown(monkeypatch, capsys):
    """A function that prints tables in a terminal of some width and returns the text."""

    def show(width, *given):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        tables.show_scores(given)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return show


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_tables_are_as_wide_as_the_terminal_and_keep_every_number(shown, width):
    text = shown(width, table())
    assert max(map(len, text.splitlines())) <= width
    for i in range(9):
        assert text.count(f"{20 + i:.2f} ± 0.50") + text.count(f"{31 + i:.2f} ± 0.50") >= 2
        assert f"score number {i}" in text
    assert (text.count("method") == 1) == (width == 300)
    assert "p = 0.031" in text
    assert "against zero_filled" in text
    assert "unrolled + [prior]" in text
    assert "brain, gaussian R=4" in text


def test_a_pipe_gets_plain_text(capsys):
    given = table(3)
    tables.show_scores([given])
    assert capsys.readouterr().out == as_text(given) + "\n\n"


def test_pairs_are_wrapped_beside_their_titles(monkeypatch, capsys):
    rows = [("data", "word " * 30), ("encoder", "MISSING: [it] is not there")]
    tables.show_pairs(rows, ["plain"])
    assert capsys.readouterr().out == "plain\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    tables.show_pairs(rows, ["plain"])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith(" " * 12 + "word")
    assert "[it] is not there" in lines[-1]
