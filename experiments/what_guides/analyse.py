"""Each arm against the fit without a prior: a table, a forest plot of subjects, a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from mrisem.metrics.statistics import PairedTest, bootstrap_interval, holm, paired_test
from mrisem.results.rows import Row, read_rows

REFERENCE = "unrolled"
PRIMARY = ("haarpsi", "nmse")  # named before it was run: better by subject, corrected over arms
SHOWN = {"psnr": 2, "ssim": 4, "haarpsi": 4, "nmse": 5, "lpips": 4, "hfen": 4, "lesion_error": 4}
LOWER = ("nmse", "lpips", "hfen", "lesion_error")  # is better
PICTURE = "forest.webp"
MAX_BYTES = 60_000
LEVEL = 0.05
# what a label holds, in this order -> what the arm is
_WORDS = (
    ("as trained", "network as trained"),
    ("random_seed", "control: vgg16 with random weights"),
    ("target=negative", "control: sides exchanged"),
    ("target=shuffled", "control: labels dealt anew"),
    ("target=random", "control: one random direction"),
    ("acquisition=None", "control: bank of another contrast"),  # the scan's anatomy
    ("auxiliary", "control: bank of the other anatomy"),
    ("image_cross", "control: bank of another contrast"),
)


def arm_of(method: str) -> str:
    """Return what an arm is, of the label that tells it apart.

    >>> arm_of("unrolled + image_same [encoder=vgg16]"), arm_of("l1_wavelet")
    ('vgg16', 'l1_wavelet alone')
    >>> arm_of("unrolled + tv"), arm_of("unrolled + tv + image_same [encoder=vgg16]")
    ('tv as regulariser', 'vgg16 and tv')
    """
    if not method.startswith("unrolled"):
        return f"{method} alone"
    for word, name in _WORDS:
        if word in method:
            return name
    network = next((n for n in ("alexnet", "janus_mini") if f"encoder={n}" in method), "vgg16")
    terms = [word for word in ("tv", "l1_wavelet") if f" {word}" in method]
    if "image_same" not in method:
        return f"{terms[0]} as regulariser" if terms else "no prior"
    return " and ".join([network, *terms])


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each group and arm: mean changes over subjects, with p where the score is primary.

    Draws the forest plot into the folder, which `run.py` copies beside the page.
    """
    groups = arms_of(read_rows(folder / "runs" / "metrics.csv"))
    table = []
    for title, arms in sorted(groups.items()):
        without = arms[REFERENCE]
        methods = sorted(arms.keys() - {REFERENCE}, key=order)
        tests = {
            score: [compare(arms[method], without, score) for method in methods] for score in SHOWN
        }
        corrected = {score: holm([test.p_value for test in tests[score]]) for score in PRIMARY}
        for place, method in enumerate(methods):
            facts: dict[str, Any] = {"scans": title, "arm": arm_of(method)}
            facts |= {"subjects": tests["psnr"][place].n_subjects}
            for score, digits in SHOWN.items():
                p = corrected[score][place] if score in PRIMARY else None
                facts[score] = change(tests[score][place], digits, p)
            table.append(facts)
    draw(groups, folder / PICTURE)
    return table


def arms_of(rows: list[Row]) -> dict[str, dict[str, dict[str, Row]]]:
    """Sort rows: anatomy and mask -> method -> subject -> the row of its one slice."""
    groups: dict[str, dict[str, dict[str, Row]]] = {}
    for row in rows:
        arms = groups.setdefault(f"{row['anatomy']}, {row['mask']}", {})
        arms.setdefault(row["method"], {})[row["subject"]] = row
    return groups


def compare(arm: dict[str, Row], without: dict[str, Row], score: str) -> PairedTest:
    """Test an arm's score against the fit without a prior, over the subjects that have both."""
    subjects = [s for s in arm if _scored(arm[s], score) and _scored(without[s], score)]
    values, reference = ([rows[s][score] for s in subjects] for rows in (arm, without))
    return paired_test(values, reference, subjects, "lower" if score in LOWER else "higher")


def _scored(row: Row, score: str) -> bool:
    return row.get(score) is not None and np.isfinite(row[score])


def change(test: PairedTest, digits: int, p_holm: float | None) -> str:
    """Return a mean change and in how many subjects it is for the better; p where it is tested."""
    if test.mean_difference is None or test.share_better is None:
        return "-"
    better = round(test.share_better * test.n_subjects)
    text = f"{test.mean_difference:+.{digits}f} ({better})"
    return text if p_holm is None else f"{text} p = {p_holm:.2g}"


def outcome(own: list[dict[str, Any]]) -> str:
    """Return the verdict: which arms are better in both primary scores, and which are worse."""
    sides: dict[str, dict[str, list[str]]] = {}
    for row in own:
        signs = {significant(row[score], score) for score in PRIMARY}
        said = "better" if signs == {1} else "worse" if signs == {-1} else "neither"
        sides.setdefault(row["scans"], {}).setdefault(said, []).append(row["arm"])
    lines = []
    for scans, arms in sides.items():
        n = next(row["subjects"] for row in own if row["scans"] == scans)
        told = [f"{word}: {', '.join(arms[word])}" for word in ("better", "worse") if word in arms]
        lines.append(f"{scans}, {n} subjects: " + ("; ".join(told) or "no arm differs in both"))
    return f"HaarPSI and NMSE against no prior, p < {LEVEL} (Holm). " + "<br>".join(lines)


def significant(text: str, score: str) -> int:
    """Return 1 for a significant improvement, -1 for the opposite, else 0.

    >>> significant("+0.0100 (12) p = 0.01", "haarpsi"), significant("+0.1 (1) p = 0.01", "nmse")
    (1, -1)
    >>> significant("+0.0100 (12) p = 0.2", "haarpsi"), significant("+0.0100 (3)", "haarpsi")
    (0, 0)
    """
    if " p = " not in text or float(text.split(" p = ")[1]) >= LEVEL:
        return 0
    rises = float(text.split()[0]) > 0
    return 1 if rises == (score != "nmse") else -1


def draw(groups: dict[str, dict[str, dict[str, Row]]], path: Path, score: str = "haarpsi") -> None:
    """Draw each arm's change of a score: a dot a subject, the mean and its 95 % interval.

    Raises:
        ValueError: when the picture does not fit into `MAX_BYTES`.
    """
    figure, panels = plt.subplots(
        1, len(groups), figsize=(3.1 * len(groups) + 2, 5.4), sharey=True, squeeze=False
    )
    for axes, (title, arms) in zip(panels[0], sorted(groups.items()), strict=True):
        without = arms[REFERENCE]
        methods = sorted(arms.keys() - {REFERENCE}, key=order)
        for place, method in enumerate(methods):
            changes = np.array([r[score] - without[s][score] for s, r in arms[method].items()])
            low, high = bootstrap_interval([*changes], [*arms[method]])
            axes.plot(changes, np.full(len(changes), place), "o", ms=3, alpha=0.35, color="0.4")
            axes.plot([low, high], [place, place], lw=2, color="C0")
            axes.plot(changes.mean(), place, "D", ms=5, color="C0")
        axes.axvline(0, color="0.2", lw=0.8)
        axes.set_title(title, fontsize=9)
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_xlabel("change of HaarPSI", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0][0].set_yticks(range(len(methods)), [arm_of(method) for method in methods])
    panels[0][0].invert_yaxis()
    figure.tight_layout()
    with mpl.rc_context({"savefig.dpi": 110}):
        figure.savefig(path, pil_kwargs={"quality": 80})
    plt.close(figure)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} must be below {MAX_BYTES} bytes, is {path.stat().st_size}")


def order(method: str) -> tuple[bool, bool, str]:
    """Sort priors first, then their controls, then methods without a prior."""
    arm = arm_of(method)
    return "image" not in method, arm.startswith("control"), arm
