"""Check and time mrisem on a GPU: one script, one call.

python tests/benchmarks/device.py [--device cuda] [--quick] [--only NAME ...]

Each section prints its rows as they come and keeps them in OUTPUT; a section that fails is named at
the end, exit code 1. Needs no data and no weights: scans are simulated, encoders random.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from fits import demo_tasks
from measure import Row, Spent, alternate, apart, now, peak_bytes
from priors import FULL, QUICK, TAU, WEIGHTS, encoder_alone, make_encoder, make_raw, project, stored
from run import cells, facts, table
from scans import simulated_batch
from steps import Paper, fit_step
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mrisem.networks.adapters import LoRA, attach
from mrisem.networks.inr import INR
from mrisem.networks.stacked import stack
from mrisem.networks.unet import Unet
from mrisem.prior.image.prior import SemanticPrior
from mrisem.types import Batch

_VOLUME, _MINUTES = 36, 10.0  # slices of a knee, and the goal


@dataclass(frozen=True)
class Bench:
    """Where and at which sizes."""

    device: torch.device
    quick: bool

    def batch(self, n: int) -> Batch:
        """Slices of a fastMRI knee: 15 coils, 640 x 368, of which the target has 320 rows."""
        n_coils, size, rows = (2, (48, 32), 32) if self.quick else (15, (640, 368), 320)
        return simulated_batch(n, n_coils, size, rows).to(self.device)

    def networks(self) -> dict[str, nn.Module]:
        """The paper's networks, the first two with LoRA factors."""
        paper = Paper(32, 2, 4, 2, 2, 2) if self.quick else Paper()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = Unet(paper.channels, paper.levels)
            inr = INR(2, 16, adaptor_width=8) if self.quick else INR()
        attach(unet, LoRA(paper.rank, paper.rank), torch.Generator().manual_seed(0))
        all_of_them = {"unet": unet, "unrolled": paper.network(), "inr": inr}
        return {name: network.to(self.device) for name, network in all_of_them.items()}

    @cached_property
    def prior(self) -> SemanticPrior:
        """A bfloat16 encoder and a bank of 720 + 720 entries."""
        size, n = (QUICK, 4) if self.quick else (FULL, 720)
        encoder = make_encoder(size).to(self.device, torch.bfloat16)
        bank = stored(project(make_raw(size, n), n), torch.bfloat16).to(self.device)
        return SemanticPrior(encoder, bank, WEIGHTS, TAU)

    def step(self, name: str, n: int, steps: int = 4) -> tuple[Spent, int]:
        """Cost of a guided step of n slices; of half as many where memory is short, and so on."""
        while True:
            try:
                network = stack(self.networks()[name], n)
                return fit_step(network, self.batch(n), steps, self.prior)[0], n
            except torch.OutOfMemoryError:
                n //= 2
            torch.cuda.empty_cache()  # outside of the handler, whose traceback holds tensors

    def timed(self, call: Callable[[], object]) -> Callable[[], tuple[Spent, object]]:
        """Wait for the device before and after."""

        def run() -> tuple[Spent, object]:
            self.wait()
            start = now()
            result = call()
            self.wait()
            return now() - start, result

        return run

    def wait(self) -> None:
        """Let the device finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self, call: Callable[[], object]) -> int:
        """Peak bytes of the device in a call; of a CPU, of the process so far."""
        if self.device.type != "cuda":
            call()
            return peak_bytes()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated()


def agreement_rows(bench: Bench) -> Iterator[Row]:
    """Fits of several slices at once, on the device and on the CPU."""
    torch.backends.cudnn.allow_tf32 = False
    side, iterations, levels = (32, 2, 1) if bench.quick else (64, 5, 4)
    batch = simulated_batch(3, 4, (side, side))
    for name, task in demo_tasks(iterations, levels).items():
        there = copy.deepcopy(task).to(bench.device)
        calls = {
            "ours": bench.timed(lambda task=there: task.solve(batch.to(bench.device))[0].image),
            "cpu": bench.timed(lambda task=task: task.solve(batch)[0].image),
        }
        seconds, images = alternate(2, calls)
        difference = apart(images["ours"].cpu(), images["cpu"])
        verdict = "right" if difference <= 1e-3 else "WRONG, more than 1e-3"
        yield Row(f"demo fit of 3 slices, {name}", "on the CPU", seconds["ours"], seconds["cpu"],
                  difference, verdict)  # fmt: skip
    torch.backends.cudnn.allow_tf32 = True


def batch_rows(bench: Bench) -> Iterator[Row]:
    """A guided step of 16 slices at once, or as many as fit, against one at a time, per slice."""
    for name in ("unet", "unrolled"):
        single, _ = bench.step(name, 1)
        spent, n = bench.step(name, 2 if bench.quick else 16)
        what = f"guided step of {n} slices at once, per slice, {name}"
        yield Row(what, "one slice at a time", spent * (1 / n), single, asked=4)


def encoder_rows(bench: Bench) -> Iterator[Row]:
    """Forward and backward of the encoder: its rate, its dtypes, compiled."""
    size, n, m = (QUICK, 2, 256) if bench.quick else (FULL, 16, 8192)
    a = torch.randn(m, m, device=bench.device, dtype=torch.bfloat16)
    seconds, _ = alternate(5, {"matmul": bench.timed(lambda: [a @ a for _ in range(10)])})
    rate = 10 * 2 * m**3 / seconds["matmul"].wall
    images = torch.rand(n, size.side, size.side, device=bench.device)
    float32 = make_encoder(size).to(bench.device)
    half = copy.deepcopy(float32).to(torch.bfloat16)
    compiled = copy.deepcopy(half)
    compiled.network.compile()
    encoders = {"float32": float32, "bfloat16": half, "bfloat16, compiled": compiled}
    steps = {name: encoder_alone(encoder) for name, encoder in encoders.items()}
    calls = {k: bench.timed(lambda step=step: step(images)) for k, step in steps.items()}
    seconds, results = alternate(3, calls)
    flops = operations(half, images)
    what = f"encoder, forward and backward, {n} images"
    for name in encoders:
        note = f"{flops / seconds[name].wall / 1e12:.3g} of {rate / 1e12:.3g} TFLOP/s"
        ideal = Spent(flops / rate, flops / rate)
        yield Row(f"{what}, {name}", "bfloat16 matrix products of as many operations",
                  seconds[name], ideal, note=note, asked=0.5 if "16" in name else None)  # fmt: skip
    difference = apart(results["bfloat16"][0], results["float32"][0])
    yield Row(f"{what}, bfloat16", "float32", seconds["bfloat16"], seconds["float32"], difference)


def operations(encoder: nn.Module, images: Tensor) -> int:
    """Count the floating-point operations of a forward and backward pass."""
    leaf = images.clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        torch.stack([f.float().mean() for f in encoder(leaf)]).sum().backward()
    return counter.get_total_flops()


def volume_rows(bench: Bench) -> Iterator[Row]:
    """Minutes for a knee volume at the paper's iterations, from some steps of a batch."""
    n, steps = (2, 3) if bench.quick else (12, 20)
    for name in ("unet", "unrolled"):
        spent, many = bench.step(name, n, steps)
        yield volume_row(name, many, spent * 1500)
    batch, inr = bench.batch(n), stack(bench.networks()["inr"], n)
    first, _ = fit_step(inr, batch, steps, loss_share=None)
    inr.get_submodule("siren").requires_grad_(False)
    second, _ = fit_step(inr, batch, steps, bench.prior, loss_share=None)
    yield volume_row("inr", n, (first + second) * 1600)


def volume_row(name: str, n: int, spent: Spent) -> Row:
    """All slices in batches of n, against the goal."""
    minutes = spent.wall * _VOLUME / n / 60
    return Row(f"{_VOLUME} slices of a knee, paper's iterations, {name}, {n} at once",
               f"the goal, {_MINUTES:g} minutes", minutes, _MINUTES,
               note="extrapolated from some steps", asked=1, unit="min")  # fmt: skip


def memory_rows(bench: Bench) -> Iterator[Row]:
    """The largest batch of guided unrolled steps, by doubling."""
    network, prior = bench.networks()["unrolled"], bench.prior
    used: dict[int, int] = {}
    for n in (1, 2) if bench.quick else (1, 2, 4, 8, 16, 32, 64, 128):
        try:
            batch = bench.batch(n)
            used[n] = bench.peak(
                lambda batch=batch, n=n: fit_step(stack(network, n), batch, 2, prior)
            )
        except torch.OutOfMemoryError:
            break
    most = max(used)
    what = f"memory of a guided step, unrolled, {most} slices, the most by doubling that fit"
    note = ", ".join(f"{n}: {b / 1e9:.3g} GB" for n, b in used.items())
    one = most * used[1] / 1e9
    yield Row(what, f"{most} times one slice", used[most] / 1e9, one, note=note, unit="GB")


def precision_rows(bench: Bench) -> Iterator[Row]:
    """Whether bfloat16, TF32 and compilation help a step of the unrolled network."""
    n = 2 if bench.quick else 8
    batch, network = bench.batch(n), bench.networks()["unrolled"]

    def step(*, tf32: bool = False, half: bool = False, compiled: bool = False) -> Spent:
        torch.backends.cudnn.allow_tf32 = tf32
        stacked = stack(network, n)
        for stage in stacked.unets if compiled else ():
            stage.unet.compile()
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=half):
            return fit_step(stacked, batch, 4)[0]

    base = step()
    for name, spent in (
        ("TF32 convolutions", step(tf32=True)),
        ("bfloat16 autocast", step(half=True)),
        ("U-Nets compiled", step(compiled=True)),
    ):
        yield Row(f"step of {n} slices, unrolled, {name}", "float32 as it is", spent, base)


SECTIONS = {
    "agreement": agreement_rows,
    "batch": batch_rows,
    "encoder": encoder_rows,
    "volume": volume_rows,
    "memory": memory_rows,
    "precision": precision_rows,
}


def main() -> int:
    """Run the sections."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="smallest sizes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--output", type=Path, default=Path("outputs/bench-device"))
    options = parser.parse_args()
    bench = Bench(torch.device(options.device), options.quick)
    about, rows, failed = facts(torch.get_num_threads()) | {"device": options.device}, [], []
    if bench.device.type == "cuda":
        about["device"] = torch.cuda.get_device_name()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        print(f"== {name}", flush=True)
        try:
            for row in SECTIONS[name](bench):
                rows.append(row)
                print("  " + " | ".join(filter(None, cells(row))), flush=True)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        kept = {"facts": about, "rows": [{"ratios": r.ratios, **asdict(r)} for r in rows]}
        (options.output / "device.json").write_text(json.dumps(kept, indent=1))
        (options.output / "device.md").write_text(table(about, rows))
    wrong = [row.name for row in rows if row.note.startswith("WRONG")]
    print(f"== {options.output}; failed: {failed or 'nothing'}; wrong: {wrong or 'nothing'}")
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
