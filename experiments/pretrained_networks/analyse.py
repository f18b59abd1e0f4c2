"""Mean change against the fit without a prior, by anatomy; one slice a subject."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

REFERENCE = "unrolled"
SCORES = {"psnr": (1, 2), "ssim": (1, 4), "haarpsi": (1, 4), "lpips": (-1, 4)}  # sign of better


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each anatomy and arm: mean change of each score, and in how many subjects it is better.

    Raises:
        ValueError: when an arm lacks a subject that the reference has.
    """
    with (folder / "runs" / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    table = []
    for anatomy in sorted({row["anatomy"] for row in rows}):
        arms: dict[str, dict[str, dict[str, str]]] = {}
        for row in rows:
            if row["anatomy"] == anatomy:
                arms.setdefault(row["method"], {})[row["file"]] = row
        reference = arms.pop(REFERENCE)
        for arm, scans in arms.items():
            if scans.keys() != reference.keys():
                raise ValueError(f"{arm} must hold the scans {sorted(reference)}; run it again")
            facts: dict[str, Any] = {"anatomy": anatomy, "arm": short(arm), "subjects": len(scans)}
            for score, (sign, digits) in SCORES.items():
                changes = [float(scans[f][score]) - float(reference[f][score]) for f in scans]
                better = sum(sign * change > 0 for change in changes)
                mean = sum(changes) / len(changes)
                facts[score] = f"{mean:+.{digits}f} ({better})"
            table.append(facts)
    return table


def short(method: str) -> str:
    """Return the arm of a method's label; a label leaves out what equals the default, level 1.

    >>> short("unrolled + image_same [encoder=vgg16, encoder.levels=[4], prior.balance=3]")
    'vgg16 [4], balance=3'
    >>> short("unrolled + image_same [encoder=vgg16]"), short("unrolled + image_same [a=1]")
    ('vgg16 [1]', 'janus_mini')
    """
    network = re.search(r"encoder=(\w+)", method)
    if network is None:
        return "janus_mini"
    levels = re.search(r"encoder\.levels=(\[[\d,]*\])", method)
    more = re.findall(r"(balance=[\d.]+|random_seed=\d+|target=\w+)", method)
    return ", ".join([f"{network[1]} {levels[1] if levels else '[1]'}", *more])


SHOWN = ("vgg16 [4]", "alexnet [3]", "vgg16 [4], random_seed=0", "vgg16 [4], target=negative")


def outcome(own: list[dict[str, Any]]) -> str:
    """One line for the table of claims: one block of each network, and the controls."""
    return "<br>".join(
        f"{row['anatomy']}, {row['arm']}, n = {row['subjects']}: PSNR {row['psnr']}, HaarPSI "
        f"{row['haarpsi']}, LPIPS {row['lpips']}"
        for row in own
        if row["arm"] in SHOWN
    )
