"""Write the results of `run.py` into the READMEs: each question's table, and the table of claims.

python experiments/tables.py [--scale demo] [--results outputs/experiments/SCALE] [--check]

What the tables need of each question's ``result.json`` is kept beside its ``sweep.yaml``, with its
picture, so that the tables can be made again without the runs. Text between ``<!-- result -->`` and
``<!-- /result -->`` is replaced; all other words are people's. ``--check`` writes nothing: it ends
with 1 where a page and the kept results differ.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from run import HERE, own_module, questions

SCORES = ("psnr", "ssim", "haarpsi", "lpips", "vif", "tenengrad", "tenengrad_distance")
CLAIMED = ("psnr", "haarpsi", "tenengrad_distance")  # in the table of claims
TESTED = ("psnr", "ssim", "haarpsi", "lpips", "tenengrad_distance")
README = HERE.parent / "README.md"
_OF_A_MEAN = ("mean", "n_subjects", "n_slices")
_OF_A_TEST = ("metric", "method", "reference", "mean_difference", "n_subjects", "p_holm", "reason")
Result = dict[str, Any]
Columns = dict[str, dict[str, Any]]


def keep(result: Result) -> Result:
    """Leave of a result what the tables show: those of each group, and of several also of all.

    Args:
        result: that of `run.result_of`.

    Returns:
        the question's facts, ``columns``, and ``tables``: title to ``methods`` and
        ``paired_tests``, each group's (anatomy and sampling) before that of all together.
    """
    parts = {f"{group['anatomy']}, {group['mask']}": group for group in result["groups"]}
    if len(parts) > 1:
        parts["all together"] = result
    tables = {}
    for title, part in parts.items():
        methods = {
            name: {score: _picked(row[score], _OF_A_MEAN) for score in SCORES if score in row}
            for name, row in part["methods"].items()
        }
        tests = [_picked(t, _OF_A_TEST) for t in part["paired_tests"] if t["metric"] in TESTED]
        tables[title] = {"methods": methods, "paired_tests": tests}
    columns = {name: result["columns"][name] for name in SCORES if name in result["columns"]}
    facts = ("question", "commit", "seconds", "fit_seconds", "own")
    kept = {key: result[key] for key in facts if key in result}
    return kept | {"columns": columns, "tables": tables}


def _picked(facts: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return some facts, numbers in six digits."""
    return {
        name: float(f"{facts[name]:.6g}") if isinstance(facts[name], float) else facts[name]
        for name in names
        if name in facts
    }


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def p_text(test: dict[str, Any]) -> str:
    """Return a test's p-value, corrected over the methods of its table, or why there is none.

    >>> p_text({"p_holm": 0.0312}), p_text({"p_holm": None, "reason": "fewer than 6 subjects"})
    ('p = 0.031', 'fewer than 6 subjects')
    """
    return test["reason"] if test["p_holm"] is None else f"p = {test['p_holm']:.2g}"


def size(test: dict[str, Any], digits: int) -> str:
    """Return the mean difference."""
    value = test["mean_difference"]
    return "-" if value is None else f"{value:+.{digits}f}"


def change(test: dict[str, Any], digits: int) -> str:
    """Return the mean difference with its p-value."""
    return size(test, digits) + ("" if test["mean_difference"] is None else f" ({p_text(test)})")


def means_table(columns: Columns, methods: dict[str, Any]) -> str:
    """Means over the slices of one table's methods."""
    header = ["method", *(f"{c['label']}" for c in columns.values()), "subjects", "slices"]
    rows = []
    for name, row in methods.items():
        cells = [
            "-" if row[s]["mean"] is None else f"{row[s]['mean']:.{columns[s]['digits']}f}"
            for s in columns
        ]
        rows.append([name, *cells, str(row["psnr"]["n_subjects"]), str(row["psnr"]["n_slices"])])
    return markdown(header, rows)


def changes_table(columns: Columns, paired_tests: list[dict[str, Any]]) -> str:
    """Each method of one table against its reference."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for test in paired_tests:
        found.setdefault((test["method"], test["reference"]), {})[test["metric"]] = test
    shown = [s for s in TESTED if any(s in tests for tests in found.values())]
    rows = [
        [method, reference, *(change(tests[s], 4) if s in tests else "-" for s in shown)]
        for (method, reference), tests in found.items()
    ]
    return markdown(["method", "against", *(columns[s]["label"] for s in shown)], rows)


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
    facts = f"`make {result['question'].replace('_', '-')}`, commit {result['commit']}"
    if result["seconds"] is not None:
        facts += f", {max(1, round(result['seconds'] / 60))} min"
    parts = [f"{facts}; its fits took {round(result['fit_seconds'] / 60)} min of one process."]
    picture = picture_of(result["question"])
    if picture is not None:
        parts += [f"![{picture.stem.replace('_', ' ')}]({picture.name})"]
    if "own" in result:
        parts += [own_table(result["own"])]
    parts += [
        "<details><summary>Means and changes of every score</summary>",
        "Means are over slices. Changes are means over subjects, with p-values of the sign-flip "
        "test, corrected over the methods of a table (Holm).",
    ]
    for title, table in result["tables"].items():
        parts += [f"**{title}**", means_table(result["columns"], table["methods"])]
        parts += [changes_table(result["columns"], table["paired_tests"])]
    return "\n\n".join([*parts, "</details>"])


def picture_of(question: str) -> Path | None:
    """Return the picture that a question's analysis draws, beside its page."""
    analysis = own_module(question, "analyse")
    name = getattr(analysis, "PICTURE", None)
    return None if name is None else HERE / question / name


def claims_table(results: dict[str, Result]) -> str:
    """Return the table of claims: what the paper says, where it is tried, what came out."""
    rows = []
    for question in questions():
        own = yaml.safe_load((HERE / question / "sweep.yaml").read_text(encoding="utf-8"))
        link = f"[{question}](experiments/{question}/README.md)"
        command = f"not run yet with the present start: `make {question.replace('_', '-')}`"
        said = outcome(question, results[question]) if question in results else command
        rows.append([own["claim"], link, said])
    return markdown(
        ["claim", "experiment", "our result (simulated scans where nothing else is said)"], rows
    )


def outcome(question: str, result: Result) -> str:
    """Return a result in few words: the question's own, or what each variant changes.

    A variant has a line: for each score its change in each table, and the p-value of the last
    table, which is that of all together where there are several.
    """
    analysis = own_module(question, "analyse")
    if analysis is not None and hasattr(analysis, "outcome"):
        return str(analysis.outcome(result["own"]))
    variants: dict[str, dict[str, dict[str, Any]]] = {}  # method to table to metric to test
    for title, table in result["tables"].items():
        for test in table["paired_tests"]:
            if " + " in test["method"]:
                tests = variants.setdefault(test["method"], {}).setdefault(title, {})
                tests[test["metric"]] = test
    columns, names = result["columns"], short_names(variants)
    shown = [s for s in CLAIMED if any(s in t for v in variants.values() for t in v.values())]
    last = [*result["tables"]][-1]
    parts = [title for title in result["tables"] if title != last] or [last]
    labels = ", ".join(columns[s]["label"] for s in shown)
    tested = f" (p: {last})" if len(parts) > 1 else ""
    lines = [f"Change of {labels}: {' / '.join(parts)}{tested}"]
    for method, tables in variants.items():
        cells = []
        for score in shown:
            tests = [tables[title][score] for title in parts if score in tables.get(title, {})]
            changes = [size(test, columns[score]["digits"] + 1) for test in tests]
            p = f" ({p_text(tables[last][score])})" if score in tables.get(last, {}) else ""
            cells.append(" / ".join(changes) + p)
        lines.append(f"{names[method]}: {', '.join(cells)}")
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


def replace(file: Path, name: str, text: str, check: bool) -> bool:
    """Put a text between a file's markers, or only compare; return whether the page has changed.

    Raises:
        SystemExit: when the file has no such markers.
    """
    old = file.read_text(encoding="utf-8")
    between = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not between.search(old):
        raise SystemExit(f"{file} must hold <!-- {name} --> and <!-- /{name} -->, has neither")
    new = between.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old)
    if not check:
        file.write_text(new, encoding="utf-8")
    return new != old


def collect(question: str, scale: str, folder: Path) -> None:
    """Keep what the tables need of a question's result, and its picture."""
    made = folder / question / "result.json"
    if made.is_file():
        text = json.dumps(keep(json.loads(made.read_text(encoding="utf-8"))), separators=(",", ":"))
        (HERE / question / f"{scale}.json").write_text(text + "\n", encoding="utf-8")
        if (picture := picture_of(question)) is not None:
            shutil.copy(made.with_name(picture.name), picture)


def main() -> None:
    """Collect, write, and say what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="demo")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    results, changed = {}, []
    for question in questions():
        if not arguments.check:
            folder = arguments.results or Path("outputs/experiments") / arguments.scale
            collect(question, arguments.scale, folder)
        kept, page = HERE / question / f"{arguments.scale}.json", HERE / question / "README.md"
        if not kept.is_file():
            print(f"{question}: no result yet; make {question.replace('_', '-')}")
            continue
        results[question] = json.loads(kept.read_text(encoding="utf-8"))
        if replace(page, "result", section(results[question]), arguments.check):
            changed.append(page)
    if replace(README, "claims", claims_table(results), arguments.check):
        changed.append(README)
    if arguments.check and changed:
        names = ", ".join(str(page.relative_to(HERE.parent)) for page in changed)
        sys.exit(f"{names}: not what the kept results say; run python experiments/tables.py")
    print(f"{len(results)} results -> READMEs")


if __name__ == "__main__":
    main()
