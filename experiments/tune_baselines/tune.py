"""Regularisation weights of the classical baselines, chosen on auxiliary subjects.

See the README beside this file. Run: ``python experiments/tune_baselines/tune.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mrisem.baselines.classical import CGSense, ZeroFilled
from mrisem.baselines.grappa import Grappa
from mrisem.baselines.sparse import L1Wavelet, TotalVariation
from mrisem.data.anatomies import FastMRIBrain, FastMRIKnee
from mrisem.data.datamodules import FastMRI
from mrisem.data.dataset import SliceGroups, central_slices
from mrisem.metrics.fidelity import psnr, ssim
from mrisem.physics.fourier import center_crop
from mrisem.physics.masks import GaussianMask
from mrisem.types import Batch, Reconstruction

Method = Callable[[Batch], Reconstruction]
GRID: dict[str, tuple[Callable[..., Method], tuple[float, ...]]] = {
    "cg_sense": (CGSense, (0.003, 0.01, 0.03)),
    "tv": (TotalVariation, (0.00025, 0.0005, 0.001)),
    "l1_wavelet": (L1Wavelet, (0.0005, 0.001, 0.002, 0.004)),
    "grappa": (Grappa, (0.03, 0.1, 0.3)),
}
ACCELERATIONS = (4, 8)
TIE = 0.001
"""Mean SSIMs closer than this count as equal: PSNR decides between them."""


@dataclass(frozen=True)
class AnyWidthMask:
    """Gaussian mask with 24 calibration lines, fewer where they were over half of all lines."""

    acceleration: float

    def __call__(self, n_columns: int, padding: tuple[int, int], seed: int) -> Tensor:
        """Draw a mask; arguments and result as for `GaussianMask`."""
        half = round((padding[1] - padding[0]) / self.acceleration / 2)
        return GaussianMask(self.acceleration, min(24, half))(n_columns, padding, seed)


def auxiliary_batches(
    module: type[FastMRI], root: Path, acceleration: float, n_subjects: int
) -> list[Batch]:
    """The central slice of the first ``n_subjects`` auxiliary subjects of each acquisition.

    The datamodule itself picks them: never one that is in another folder than multicoil_train.
    """
    mask = AnyWidthMask(acceleration)
    data = module(root / module.anatomy, mask, auxiliary={"n_subjects": n_subjects})
    batches = []
    for acquisition in data.reconstructed_acquisitions:
        volumes = data.auxiliary_slices(acquisition).volumes
        groups = SliceGroups(central_slices(volumes, 1), mask, slices_at_once=1)
        batches += list(map(groups.__getitem__, range(len(groups))))
    return [batch for batch in batches if isinstance(batch, Batch)]


def score(method: Method, batch: Batch) -> dict[str, float]:
    """PSNR and SSIM, with the slice's maximum as range, and seconds of a batch of one slice."""
    start = time.perf_counter()
    image = method(batch).image
    seconds = time.perf_counter() - start
    if batch.target is None:
        raise ValueError(f"{batch.info[0].file} must hold a target to tune on, got none")
    magnitude = (center_crop(image.abs(), batch.crop) * batch.scale[:, None, None])[0].numpy()
    target = batch.target[0].numpy()
    peak = float(target.max())
    return {
        "ssim": ssim(magnitude, target, peak),
        "psnr": psnr(magnitude, target, peak),
        "seconds": seconds,
    }


def tune(root: Path, n_subjects: int) -> dict[str, Any]:
    """Score every method at every weight; choose each one's best, see `choose`."""
    cases = {
        (module.anatomy, acceleration): auxiliary_batches(module, root, acceleration, n_subjects)
        for module in (FastMRIBrain, FastMRIKnee)
        for acceleration in ACCELERATIONS
    }
    methods = {("zero_filled", 0.0): ZeroFilled()} | {
        (name, weight): make(weight=weight)
        for name, (make, weights) in GRID.items()
        for weight in weights
    }
    rows = []
    for (name, weight), method in tqdm(methods.items(), desc="method and weight"):
        for (anatomy, acceleration), batches in cases.items():
            found = [score(method, batch) for batch in batches]
            mean = {key: round(float(np.mean([f[key] for f in found])), 6) for key in found[0]}
            rows.append(
                {"method": name, "weight": weight, "anatomy": anatomy, "R": acceleration, **mean}
            )
    files = sorted({b.info[0].file for batches in cases.values() for b in batches})
    return {"files": files, "chosen": choose(rows), "rows": rows}


def choose(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the weights within `TIE` of a method's best mean SSIM, the one of the best mean PSNR."""
    groups: dict[str, dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["method"]][row["weight"]].append(row)
    chosen = {}
    for name, weights in groups.items():
        ssims = {w: float(np.mean([row["ssim"] for row in found])) for w, found in weights.items()}
        psnrs = {w: float(np.mean([row["psnr"] for row in found])) for w, found in weights.items()}
        best = max(ssims.values())
        chosen[name] = max((w for w in weights if ssims[w] > best - TIE), key=psnrs.__getitem__)
    return chosen


def table(results: dict[str, Any]) -> str:
    """SSIM / PSNR of each case and their means, a line a method and weight (Markdown)."""
    cases = list(dict.fromkeys((row["anatomy"], row["R"]) for row in results["rows"]))
    heads = [f"{anatomy} R={r}" for anatomy, r in cases]
    lines = [f"| method | weight | {' | '.join(heads)} | mean | s / slice |"]
    lines.append("|" + "---|" * (len(heads) + 4))
    groups: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in results["rows"]:
        groups[row["method"], row["weight"]].append(row)
    for (name, weight), rows in groups.items():
        mean = {key: float(np.mean([r[key] for r in rows])) for key in ("ssim", "psnr", "seconds")}
        cells = [f"{r['ssim']:.4f} / {r['psnr']:.2f}" for r in [*rows, mean]]
        star = " *" if results["chosen"][name] == weight else ""
        lines.append(f"| {name} | {weight:g}{star} | {' | '.join(cells)} | {mean['seconds']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Tune, print the table, write ``results.json`` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("outputs/demo/data"))
    parser.add_argument("--subjects", type=int, default=1, help="of each acquisition")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = tune(arguments.data, arguments.subjects)
    rows = ",\n".join(f"  {json.dumps(row)}" for row in results["rows"])
    facts = ",\n".join(f' "{key}": {json.dumps(results[key])}' for key in ("files", "chosen"))
    text = f'{{\n{facts},\n "rows": [\n{rows}\n ]\n}}\n'
    arguments.output.write_text(text, encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
