"""Of each arm: the share of VGG16's gain that it keeps, its seconds, and its encoder's memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mrisem.metrics.statistics import holm, paired_test
from mrisem.results.rows import Row, read_rows

SCORE = "haarpsi"
FIT, TEACHER = "fit without a prior", "vgg16"
PASS, TRAINED = "trained without the prior, one pass", "trained with the prior, one pass"
# what a label holds, in this order -> what the arm is
_WORDS = (
    ("/without/checkpoints", PASS),
    ("/with/checkpoints", TRAINED),
    ("as trained", "start, one pass"),
    ("encoder=student", "student"),
    ("encoder=pruned", "pruned"),
    ("image_same", TEACHER),
    ("", FIT),
)


def arm_of(method: str) -> str:
    """Return what an arm is, of its label.

    >>> arm_of("unrolled + image_same [encoder=pruned, encoder.path=a]"), arm_of("unrolled")
    ('pruned', 'fit without a prior')
    """
    return next(name for word, name in _WORDS if word in method)


def analyse(folder: Path) -> list[dict[str, Any]]:
    """Return a row for each arm, over the subjects of both anatomies.

    The gain is that over the fit without a prior; of a network that was trained with the prior,
    over the one that was trained without it. p is of the test by subject, corrected (Holm).
    """
    arms: dict[str, dict[tuple[str, ...], Row]] = {}
    for row in read_rows(folder / "runs" / "metrics.csv"):
        slice_ = row["anatomy"], row["subject"], str(row["slice"])
        arms.setdefault(arm_of(row["method"]), {})[slice_] = row
    references = {TEACHER: FIT, "student": FIT, "pruned": FIT, TRAINED: PASS}
    tests = {name: compare(arms[name], arms[other]) for name, other in references.items()}
    p_values = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    whole = tests[TEACHER].mean_difference
    table = []
    for name in sorted(arms, key=lambda arm: [word for _, word in _WORDS[::-1]].index(arm)):
        facts: dict[str, Any] = {"arm": name}
        facts[SCORE] = float(np.mean([row[SCORE] for row in arms[name].values()]))
        if name in tests:
            test = tests[name]
            facts |= {"gain": test.mean_difference, "p": p_values[name] or test.reason}
            facts |= {"subjects": test.n_subjects}
            facts["share of the gain"] = test.mean_difference / whole if whole else None
        facts["seconds of a slice"] = float(np.mean([r["seconds"] for r in arms[name].values()]))
        facts["encoder, MB of an image"] = memory(folder, name)
        table.append(facts)
    return table


def compare(arm: dict[tuple[str, ...], Row], reference: dict[tuple[str, ...], Row]) -> Any:
    """Test an arm against another, over the slices of both."""
    slices = sorted(arm.keys() & reference.keys())
    values = ([rows[s][SCORE] for s in slices] for rows in (arm, reference))
    return paired_test(*values, [s[:2] for s in slices], "higher")


def memory(folder: Path, arm: str) -> float | None:
    """Return the memory of an image and its gradient in an arm's encoder, MB; None: it has none."""
    kind, side = {TEACHER: ("student", 0)}.get(arm, (arm, 1))
    files = sorted((folder / kind).glob("*/encoder.json"))
    sizes = [json.loads(f.read_text(encoding="utf-8"))["measures"]["bytes"][side] for f in files]
    return max(sizes) / 1e6 if sizes else None


def outcome(own: list[dict[str, Any]]) -> str:
    """Return the verdict: the share of the gain that each arm keeps, and its time."""
    seconds = {row["arm"]: row["seconds of a slice"] for row in own}
    lines = [
        f"{row['arm']}: {100 * row['share of the gain']:.0f} % of the gain in HaarPSI, "
        f"{seconds[TEACHER] / seconds[row['arm']]:.1f} times as fast"
        for row in own
        if row.get("share of the gain") is not None and row["arm"] != TEACHER
    ]
    return f"Of the gain by {TEACHER} is kept: " + "<br>".join(lines)
