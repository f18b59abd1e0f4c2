"""Rows of peers on the same scan: SENSE operator, CG-SENSE, l1-wavelet and sensitivity maps.

Peers run in a process of their own (`peer_worker.py`), so that their packages need not suit ours.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from measure import Row, Setting, Spent, alternate, apart, timed
from scans import as_batch, sampled_columns, simulated_kspace
from torch import Tensor

from mrisem.baselines.sparse import L1Wavelet
from mrisem.physics.coils import combine, estimate_sensitivity_maps, root_sum_of_squares
from mrisem.physics.espirit import espirit
from mrisem.physics.fourier import center_crop, ifft2c
from mrisem.physics.sense import SenseOperator
from mrisem.physics.solvers import conjugate_gradient
from mrisem.types import Batch

_LINES, _THRESHOLD = 24, 0.02
_WEIGHT, _ITERATIONS = 0.01, 10  # of CG-SENSE
_L1_WEIGHT, _L1_ITERATIONS = 0.001, 60
PEERS = ("sigpy", "mrpro", "deepinv", "bart")


@dataclass
class Worker:
    """Peers in their own interpreter, which take the time themselves."""

    process: subprocess.Popen[str]
    folder: Path
    versions: dict[str, str]

    def call(self, peer: str, what: str) -> tuple[Spent, Tensor]:
        """Let a peer do something; return its seconds and its result."""
        answer = self._ask(f"{peer} {what}")
        if "error" in answer:
            raise RuntimeError(f"{peer} {what}: {answer['error']}")
        result = torch.from_numpy(np.load(self.folder / "result.npy"))
        return Spent(*answer["spent"]), result.reshape(answer["shape"])

    def _ask(self, line: str) -> dict[str, Any]:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@contextmanager
def worker(setting: Setting, **arrays: Any) -> Iterator[Worker]:
    """Start the peers with a scan; end them with the block."""
    with tempfile.TemporaryDirectory() as name:
        np.savez(Path(name) / "scan.npz", **arrays)
        command = [setting.peers_python, Path(__file__).with_name("peer_worker.py"), name]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            peers = Worker(process, Path(name), json.loads(process.stdout.readline()))
            yield peers
            process.stdin.close()


def read_scan(setting: Setting) -> Tensor:
    """K-space ``(slice, coil, y, x)`` of up to 16 slices, of a file or simulated."""
    if setting.scan is None:
        return simulated_kspace(*setting.size((16, 8, (200, 200)), (2, 3, (32, 32))))[0]
    with h5py.File(setting.scan) as file:
        return torch.from_numpy(file["kspace"][:16])


def peer_rows(setting: Setting) -> Iterator[Row]:
    """Operator and reconstructions of the middle slice, four times undersampled."""
    kspace = read_scan(setting)
    middle = kspace[len(kspace) // 2][None]
    n_coils, y, x = middle.shape[1:]
    maps = estimate_sensitivity_maps(middle, min(_LINES, x // 2))[0]
    batch = as_batch(middle, maps, (y, x))
    truth = combine(ifft2c(middle), maps[None]) / batch.scale
    turns, place = setting.turns, f"{n_coils} x {y} x {x}"
    with worker(
        setting,
        kspace=batch.masked_kspace[0].numpy(),
        maps=maps.numpy(),
        columns=sampled_columns(x).numpy(),
        image=truth[0].numpy(),
        numbers=(_WEIGHT, _ITERATIONS, _L1_WEIGHT, _L1_ITERATIONS),
    ) as peers:
        cases = our_methods(batch, truth)
        for what, (name, call, able) in cases.items():
            calls = {"ours": timed(call)} | {
                peer: partial(peers.call, peer, what) for peer in able if peer in peers.versions
            }
            seconds, results = alternate(turns, calls)
            for peer in able:
                yield _row(f"{name}, {place}", peer, peers, seconds, results, truth)


def our_methods(
    batch: Batch, truth: Tensor
) -> dict[str, tuple[str, Callable[[], Tensor], tuple[str, ...]]]:
    """What is compared: key -> name, ours, and who else has it."""
    sense = SenseOperator(batch.sensitivity_maps, batch.mask)

    def cg_sense() -> Tensor:
        return conjugate_gradient(
            lambda x: sense.normal(x) + _WEIGHT * x,
            sense.adjoint(batch.masked_kspace),
            tolerance=0,
            max_iterations=_ITERATIONS,
        ).image

    def wavelet() -> Tensor:
        return L1Wavelet(_L1_WEIGHT, _L1_ITERATIONS)(batch).image

    return {
        "normal": ("SENSE operator A^H A", lambda: sense.normal(truth), PEERS[:3]),
        "cg_sense": (f"CG-SENSE, {_ITERATIONS} iterations", cg_sense, PEERS),
        "wavelet": (f"l1-wavelet, {_L1_ITERATIONS} iterations", wavelet, ("bart",)),
    }


def _row(name: str, peer: str, peers: Worker, seconds: dict, results: dict, truth: Tensor) -> Row:
    if peer not in peers.versions:
        return Row(name, peer, seconds["ours"], None)
    ours, theirs = results["ours"], results[peer].reshape(results["ours"].shape)
    errors = f"errors to the full scan {apart(ours, truth):.3g} and {apart(theirs, truth):.3g}"
    against = f"{peer} {peers.versions[peer]}"
    note = "" if name.startswith("SENSE") else errors
    return Row(name, against, seconds["ours"], seconds[peer], apart(theirs, ours), note)


def espirit_rows(setting: Setting) -> Iterator[Row]:
    """Sensitivity maps per slice: the same calibration, threshold and kernel for all."""
    kspace = read_scan(setting)
    n, n_coils, y, x = kspace.shape
    lines = min(_LINES, x // 2)
    signal = root_sum_of_squares(ifft2c(kspace[0]))
    inside = signal > 0.1 * signal.max()

    def every_pixel(kspace: Tensor = kspace) -> Tensor:
        return espirit(center_crop(kspace, (lines, lines)), (y, x), threshold=_THRESHOLD)[0]

    splines = partial(estimate_sensitivity_maps, kspace, lines)
    calls = {
        "ours": timed(every_pixel, 1 / n),
        "ours on 64 x 64 and splines": timed(splines, 1 / n),
    }
    if torch.cuda.is_available():
        there = kspace.cuda()
        calls["ours on a GPU"] = timed(lambda: every_pixel(there).cpu(), 1 / n)
    with worker(setting, full=kspace[0].numpy(), lines=lines, threshold=_THRESHOLD) as peers:
        present = [peer for peer in ("sigpy", "bart") if peer in peers.versions]
        calls |= {peer: partial(peers.call, peer, "espirit") for peer in present}
        seconds, results = alternate(setting.turns, calls)
        versions = peers.versions
    name = f"ESPIRiT at every pixel, {n_coils} x {y} x {x}, per slice of {n}"
    for other in [*list(calls)[1:], *(p for p in ("sigpy", "bart") if p not in versions)]:
        against, note = f"{other} {versions.get(other, '')}".strip(), ""
        if other in results:
            theirs = results[other].reshape(-1, n_coils, y, x)[:1]
            angles = degrees(results["ours"][:1], theirs)[:, inside].quantile(
                torch.tensor([0.5, 0.99])
            )
            note = "{:.4f} degrees apart (99 %: {:.4f})".format(*angles.tolist())
        yield Row(name, against, seconds["ours"], seconds.get(other), note=note)


def degrees(maps: Tensor, reference: Tensor) -> Tensor:
    """Per pixel, the angle between the lines that two coil vectors span."""
    unit = reference / root_sum_of_squares(reference)[:, None].clamp_min(1e-12)
    rest = unit - maps * (maps.conj() * unit).sum(1, keepdim=True)
    return torch.rad2deg(root_sum_of_squares(rest).clamp(max=1).asin())
