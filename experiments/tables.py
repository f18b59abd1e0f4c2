"""Write the results of `run.py` into the READMEs: each question's table, and the table of claims.

python experiments/tables.py [--scale demo] [--results outputs/experiments/SCALE]

Each question's ``result.json`` is copied beside its ``sweep.yaml`` (what is needed of it), so that
the tables can be made again without the runs. Text between ``<!-- result -->`` and
``<!-- /result -->`` is replaced; all other words are people's.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from run import HERE, own_module, questions

SCORES = ("psnr", "ssim", "haarpsi", "lpips", "vif", "tenengrad", "tenengrad_distance")
CLAIMED = ("psnr", "haarpsi", "tenengrad_distance")  # in the table of claims
TESTED = ("psnr", "ssim", "haarpsi", "lpips", "tenengrad_distance")
README = HERE.parent / "README.md"
Result = dict[str, Any]


def keep(result: Result) -> Result:
    """Leave of a result what the tables show."""
    methods = {
        name: {score: row[score] for score in SCORES if score in row}
        for name, row in result["methods"].items()
    }
    tests = [test for test in result["paired_tests"] if test["metric"] in TESTED]
    columns = {name: result["columns"][name] for name in SCORES if name in result["columns"]}
    kept = {key: result[key] for key in ("question", "commit", "seconds") if key in result}
    kept |= {"columns": columns, "methods": methods, "paired_tests": tests}
    return kept | ({"own": result["own"]} if "own" in result else {})


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def p_text(p: float | None) -> str:
    """Return a p-value in two digits; a dash where there is none.

    >>> p_text(0.0312), p_text(None)
    ('p = 0.031', '-')
    """
    return "-" if p is None else f"p = {p:.2g}"


def change(test: dict[str, Any]) -> str:
    """Return the mean difference with its p-values: of the test alone, and by Holm."""
    if test["mean_difference"] is None:
        return "-"
    p = test["p_value"]
    inside = p_text(p) if p is None else f"{p_text(p)}, Holm {test['p_holm']:.2g}"
    return f"{test['mean_difference']:+.4f} ({inside})"


def means_table(result: Result) -> str:
    """Means over all slices."""
    columns = result["columns"]
    header = ["method", *(f"{c['label']}" for c in columns.values()), "n"]
    rows = []
    for name, row in result["methods"].items():
        cells = [
            "-" if row[s]["mean"] is None else f"{row[s]['mean']:.{columns[s]['digits']}f}"
            for s in columns
        ]
        rows.append([name, *cells, str(row["psnr"]["n"])])
    return markdown(header, rows)


def changes_table(result: Result) -> str:
    """Each method against its reference, slice by slice."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for test in result["paired_tests"]:
        found.setdefault((test["method"], test["reference"]), {})[test["metric"]] = test
    shown = [s for s in TESTED if any(s in tests for tests in found.values())]
    labels = [result["columns"][s]["label"] for s in shown]
    rows = [
        [method, reference, *(change(tests[s]) if s in tests else "-" for s in shown)]
        for (method, reference), tests in found.items()
    ]
    return markdown(["method", "against", *labels], rows)


def own_table(own: Any) -> str:
    """What the question's own analysis found."""
    rows = [flat(row) for row in (own if isinstance(own, list) else [own])]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return markdown(keys, [[cell(row.get(key)) for key in keys] for row in rows])


def flat(row: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested facts with joined names.

    >>> flat({"a": 1, "b": {"c": 2}})
    {'a': 1, 'b: c': 2}
    """
    facts: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            facts |= flat(value, f"{before}{key}: ")
        else:
            facts[before + key] = value
    return facts


def cell(value: Any) -> str:
    """Return a fact as a cell."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def section(result: Result) -> str:
    """Return the text between the markers of a question's README."""
    minutes = max(1, round(result["seconds"] / 60))
    facts = (
        f"`make {result['question'].replace('_', '-')}`, commit {result['commit']}, {minutes} min"
    )
    parts = [f"{facts}. Means over all slices:", means_table(result)]
    parts += ["Mean change and Wilcoxon's p over slices:", changes_table(result)]
    if "own" in result:
        parts += ["Of this question alone:", own_table(result["own"])]
    return "\n\n".join(parts)


def claims_table(results: dict[str, Result]) -> str:
    """Return the table of claims: what the paper says, where it is tried, what came out."""
    rows = []
    for question, result in results.items():
        own = yaml.safe_load((HERE / question / "sweep.yaml").read_text(encoding="utf-8"))
        link = f"[{question}](experiments/{question}/README.md)"
        rows.append([own["claim"], link, outcome(question, result)])
    return markdown(["claim", "experiment", "our result (simulated scans, `janus_mini`)"], rows)


def outcome(question: str, result: Result) -> str:
    """Return a result in few words: the question's own, or the changes that each variant makes."""
    analysis = own_module(question, "analyse")
    if analysis is not None and hasattr(analysis, "outcome"):
        return str(analysis.outcome(result["own"]))
    variants: dict[str, dict[str, Any]] = {}
    for test in result["paired_tests"]:
        if " + " in test["method"]:
            variants.setdefault(test["method"], {})[test["metric"]] = test
    shown = [s for s in CLAIMED if any(s in tests for tests in variants.values())]
    own = result.get("own", [])
    harmed = {row["method"]: f"; {row['harmed']} harmed" for row in own if "harmed" in row}
    names = short_names(variants)
    lines = ["Change of " + ", ".join(result["columns"][s]["label"] for s in shown) + ":"]
    for method, tests in variants.items():
        digits = {s: result["columns"][s]["digits"] + 1 for s in shown}
        changes = [
            f"{tests[s]['mean_difference']:+.{digits[s]}f} ({p_text(tests[s]['p_value'])})"
            for s in shown
        ]
        n, harm = max(test["n"] for test in tests.values()), harmed.get(method, "")
        lines.append(f"{names[method]}, n = {n}: {', '.join(changes)}{harm}")
    return "<br>".join(lines)


def short_names(methods: Iterable[str]) -> dict[str, str]:
    """Name variants by those settings in brackets that not all share, others by the whole name.

    >>> short_names(["inr", "inr [a=1, b=[2,3]]", "inr [a=1, b=4]"])
    {'inr': 'inr', 'inr [a=1, b=[2,3]]': 'b=[2,3]', 'inr [a=1, b=4]': 'b=4'}
    """
    found = {method: re.search(r" \[(.*)\]$", method) for method in methods}
    settings = {method: match[1].split(", ") for method, match in found.items() if match}
    shared = set.intersection(*map(set, settings.values())) if len(settings) > 1 else set()
    return {
        method: ", ".join(s for s in settings.get(method, [method]) if s not in shared)
        for method in found
    }


def replace(file: Path, name: str, text: str) -> None:
    """Put a text between a file's markers.

    Raises:
        SystemExit: when the file has no such markers.
    """
    old = file.read_text(encoding="utf-8")
    between = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not between.search(old):
        raise SystemExit(f"{file} must hold <!-- {name} --> and <!-- /{name} -->, has neither")
    new = between.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old)
    file.write_text(new, encoding="utf-8")


def main() -> None:
    """Collect, write, and say what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="demo")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    folder = arguments.results or Path("outputs/experiments") / arguments.scale
    results = {}
    for question in questions():
        made, kept = folder / question / "result.json", HERE / question / f"{arguments.scale}.json"
        if made.is_file():
            text = json.dumps(keep(json.loads(made.read_text(encoding="utf-8"))), indent=1)
            kept.write_text(text + "\n", encoding="utf-8")
        if not kept.is_file():
            print(f"{question}: no result yet; make {question.replace('_', '-')}")
            continue
        results[question] = json.loads(kept.read_text(encoding="utf-8"))
        replace(HERE / question / "README.md", "result", section(results[question]))
    replace(README, "claims", claims_table(results))
    print(f"{len(results)} results -> READMEs")


if __name__ == "__main__":
    main()
