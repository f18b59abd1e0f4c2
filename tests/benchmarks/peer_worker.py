"""Peers' reconstructions of one scan: `python peer_worker.py FOLDER`.

Says which peers there are, then for each line `PEER WHAT` on stdin what that took, on stdout as
JSON; the result is in FOLDER/result.npy. Needs numpy and the peers, nothing of ours. BART's time
includes the start of its program and its files, as for everyone who calls it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np


class Scan:
    """What was measured, ``(coil, y, x)``, and the numbers of the methods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with np.load(folder / "scan.npz") as file:
            self.arrays = dict(file)

    def __getattr__(self, name: str) -> Any:
        return self.arrays[name]


class Sigpy:
    def __init__(self, scan: Scan) -> None:
        self.scan = scan

    @cached_property
    def sense(self) -> Any:
        from sigpy.mri.linop import Sense

        weights = np.broadcast_to(self.scan.columns, self.scan.maps.shape[1:])
        return Sense(self.scan.maps, weights=weights.astype(np.float32))

    def normal(self) -> np.ndarray:
        return self.sense.H(self.sense(self.scan.image))

    def cg_sense(self) -> np.ndarray:
        from sigpy.mri.app import SenseRecon

        weight, iterations = float(self.scan.numbers[0]), int(self.scan.numbers[1])
        weights = np.broadcast_to(self.scan.columns, self.scan.maps.shape[1:]).astype(np.float32)
        app = SenseRecon(self.scan.kspace, self.scan.maps, weight, weights, max_iter=iterations,
                         tol=0, show_pbar=False)  # fmt: skip
        return app.run()

    def espirit(self) -> np.ndarray:
        from sigpy.mri.app import EspiritCalib

        settings = {"thresh": float(self.scan.threshold), "crop": 0, "show_pbar": False}
        return EspiritCalib(self.scan.full, calib_width=int(self.scan.lines), **settings).run()


class Mrpro:
    """Its readout is the last axis, so k-space is transposed; it holds the sampled lines alone."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan

    @cached_property
    def operator(self) -> tuple[Any, Any]:
        import torch
        from mrpro.data import KTrajectory, SpatialDimension
        from mrpro.operators import FourierOp, SensitivityOp

        y, x = self.scan.maps.shape[1:]
        lines = torch.from_numpy(self.scan.columns).nonzero().flatten() - x // 2
        trajectory = KTrajectory(
            kz=torch.zeros(1, 1, 1, 1, 1),
            ky=lines.float()[None, None, None, :, None],
            kx=(torch.arange(y) - y // 2).float()[None, None, None, None],
        )
        size = SpatialDimension(1, x, y)
        maps = torch.from_numpy(self.scan.maps).mT[None, :, None]
        return FourierOp(size, size, trajectory) @ SensitivityOp(maps), lines + x // 2

    @cached_property
    def gram(self) -> Any:
        return self.operator[0].gram

    def normal(self) -> np.ndarray:
        import torch

        image = torch.from_numpy(self.scan.image).mT[None, None, None]
        return self.gram(image)[0][0, 0, 0].mT.numpy()

    def cg_sense(self) -> np.ndarray:
        import torch
        from mrpro.algorithms.optimizers import cg
        from mrpro.operators import IdentityOp

        operator, lines = self.operator
        kspace = torch.from_numpy(self.scan.kspace).mT[None, :, None, lines]
        weight, iterations = float(self.scan.numbers[0]), int(self.scan.numbers[1])
        system = self.gram + weight * IdentityOp()
        result = cg(system, operator.H(kspace), max_iterations=iterations, tolerance=0)
        return result[0][0, 0, 0].mT.numpy()


class Deepinv:
    def __init__(self, scan: Scan) -> None:
        self.scan = scan

    @cached_property
    def physics(self) -> Any:
        import torch
        from deepinv.physics import MultiCoilMRI

        mask = np.broadcast_to(self.scan.columns, self.scan.maps.shape[1:]).astype(np.float32)
        maps = torch.from_numpy(self.scan.maps)[None]
        return MultiCoilMRI(torch.from_numpy(mask), maps, maps.shape[-2:])

    def normal(self) -> np.ndarray:
        image = _channels(self.scan.image)
        return _complex(self.physics.A_adjoint(self.physics.A(image)))

    def cg_sense(self) -> np.ndarray:
        from deepinv.optim.linear import conjugate_gradient

        weight, iterations = float(self.scan.numbers[0]), int(self.scan.numbers[1])
        physics = self.physics
        right = physics.A_adjoint(_channels(self.scan.kspace))
        result = conjugate_gradient(
            lambda x: physics.A_adjoint(physics.A(x)) + weight * x, right, iterations, tol=0
        )
        return _complex(result)


def _channels(array: np.ndarray) -> Any:
    import torch

    return torch.view_as_real(torch.from_numpy(array)).movedim(-1, 0)[None].contiguous()


def _complex(channels: Any) -> np.ndarray:
    import torch

    return torch.view_as_complex(channels[0].movedim(0, -1).contiguous()).numpy()


class Bart:
    """Files are written once beforehand, ``(y, x, 1, coil)`` with the first index fastest."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        for name in ("kspace", "maps", "full"):
            if name in scan.arrays:
                array = scan.arrays[name]
                n_coils, y, x = array.shape
                header = f"# Dimensions\n{y} {x} 1 {n_coils}\n"
                (scan.folder / f"{name}.hdr").write_text(header)
                np.swapaxes(array, -2, -1).tofile(scan.folder / f"{name}.cfl")

    def _run(self, *command: object) -> np.ndarray:
        words = ["bart", *map(str, command), "result"]
        subprocess.run(words, check=True, cwd=self.scan.folder, capture_output=True)
        dimensions = (self.scan.folder / "result.hdr").read_text().splitlines()[1].split()
        shape = [int(n) for n in reversed(dimensions) if int(n) > 1]
        flat = np.fromfile(self.scan.folder / "result.cfl", np.complex64)
        return np.swapaxes(flat.reshape(shape), -2, -1)

    def cg_sense(self) -> np.ndarray:
        weight, iterations = self.scan.numbers[0], int(self.scan.numbers[1])
        return self._run("pics", "-w1", "-l2", "-r", weight, "-i", iterations, "kspace", "maps")

    def wavelet(self) -> np.ndarray:
        weight, iterations = self.scan.numbers[2], int(self.scan.numbers[3])
        return self._run("pics", "-w1", "-R", f"W:7:0:{weight}", "-i", iterations, "kspace", "maps")

    def espirit(self) -> np.ndarray:
        lines, threshold = int(self.scan.lines), float(self.scan.threshold) ** 2
        options = ["-t", threshold, "-k", 6, "-r", lines, "-m", 1, "-c", 0]
        return self._run("ecalib", *options, "full")


PEERS = {"sigpy": Sigpy, "mrpro": Mrpro, "deepinv": Deepinv, "bart": Bart}


def present() -> dict[str, str]:
    """Peers that are installed: name -> version."""
    found = {}
    for name in ("sigpy", "mrpro", "deepinv"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if shutil.which("bart"):
        done = subprocess.run(["bart", "version"], capture_output=True, text=True, check=True)
        found["bart"] = done.stdout.strip()
    return found


def clocks() -> tuple[float, float]:
    """Seconds of wall and CPU, BART's too."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() + children.ru_utime + children.ru_stime
    return time.perf_counter(), cpu


def answer(method: Callable[[], np.ndarray], folder: Path) -> dict[str, Any]:
    """Run and time a method, and keep its result."""
    start = clocks()
    result = method()
    spent = [after - before for after, before in zip(clocks(), start, strict=True)]
    np.save(folder / "result.npy", np.ascontiguousarray(result).astype(np.complex64))
    return {"spent": spent, "shape": list(result.shape)}


def main() -> None:
    """Answer until stdin ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # what peers print must not come between
    scan = Scan(Path(sys.argv[1]))
    found = present()
    print(json.dumps(found), file=out, flush=True)
    if {"mrpro", "deepinv"} & set(found):
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    peers = {name: PEERS[name](scan) for name in found}
    for line in sys.stdin:
        name, what = line.split()
        try:
            told = answer(getattr(peers[name], what), scan.folder)
        except Exception as error:
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()
