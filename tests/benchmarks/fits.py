"""Rows of fits: several slices in one batch against one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from measure import Row, Setting, alternate, apart, timed
from scans import simulated_batch

from mrisem.networks.adapters import LoRA
from mrisem.networks.inr import INR
from mrisem.networks.unet import Unet
from mrisem.networks.unrolled import Unrolled
from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.fitting import PerScanFit
from mrisem.tasks.inr import INRTask
from mrisem.tasks.network import NetworkTask


def demo_tasks(iterations: int, levels: int = 4) -> dict[str, ReconstructionTask]:
    """Return the backbones of scale=demo, with random weights: name -> task.

    None of the weights is zero: Adam would divide gradients that are rounding alone by their size.
    """
    fit = PerScanFit(iterations=iterations, progress=False, log_every=iterations)
    lora = replace(fit, lora=LoRA(rank=4, alpha=4))
    free = replace(fit, loss_share=None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tasks = {
            "unet": NetworkTask(Unet(16, levels), fit, final_lambda=0.5),
            "unrolled": NetworkTask(Unrolled(3, 8, levels, cg_iterations=5), fit),
            "unrolled lora": NetworkTask(Unrolled(3, 8, levels, cg_iterations=5), lora),
            "inr": INRTask(INR(4, 64, adaptor_width=32), free, replace(free, iterations=2)),
        }
        for parameter in (p for task in tasks.values() for p in task.network.parameters()):
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    return tasks


def stacked_rows(setting: Setting) -> Iterator[Row]:
    """A fit of each backbone at demo size, per slice."""
    n, n_coils, side, iterations = setting.size((4, 8, 192, 8), (2, 3, 32, 2))
    batch = simulated_batch(n, n_coils, (side, side))
    for name, task in demo_tasks(iterations, setting.size(4, 1)).items():
        yield stacked_row(name, task, batch, setting.turns)


def stacked_row(name: str, task: ReconstructionTask, batch, turns: int) -> Row:
    """Fit all slices at once, and each by itself."""
    n = len(batch)

    def one_at_a_time() -> torch.Tensor:
        return torch.cat([task.solve(batch.select(i))[0].image for i in range(n)])

    # a copy has no measurements: all that is prepared counts
    at_once = timed(lambda: task.solve(replace(batch))[0].image, 1 / n)
    seconds, images = alternate(turns, {"ours": at_once, "single": timed(one_at_a_time, 1 / n)})
    return Row(
        f"fit of {n} slices at once, per slice, {name}",
        "one slice at a time",
        seconds["ours"],
        seconds["single"],
        apart(images["ours"], images["single"]),
    )
