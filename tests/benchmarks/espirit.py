"""Seconds per slice of sensitivity maps: 16 slices of 8 x 200 x 200, ours, sigpy's and BART's.

The same calibration, threshold and kernel for all; each takes its turn a few times and its fastest
counts. ``make bench`` runs this; OMP_NUM_THREADS sets the threads of all of them (default 2).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrisem.physics.coils import estimate_sensitivity_maps, root_sum_of_squares
from mrisem.physics.espirit import espirit
from mrisem.physics.fourier import center_crop, fft2c
from mrisem.physics.simulate import coil_maps

N_SLICES, N_COILS, SIZE, LINES, THRESHOLD = 16, 8, (200, 200), 24, 0.02
N_TURNS = 3
N_SIGPY = 1  # slices a turn


def simulated_slices() -> tuple[Tensor, Tensor]:
    """K-space ``(slice, coil, y, x)`` of noisy, structured discs, and where they are ``(y, x)``."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    disc = x**2 + y**2 < 0.7
    scans = []
    for i in range(N_SLICES):
        image = disc * (1 + 0.3 * torch.cos((9 + i) * x) * torch.cos(7 * y + i))
        images = coil_maps(SIZE, N_COILS, generator) * image
        noise = torch.randn(images.shape, dtype=images.dtype, generator=generator)
        scans.append(fft2c(images + 0.005 * noise))
    return torch.stack(scans), disc


def by_sigpy(kspace: Tensor) -> Tensor:
    """Maps of sigpy at full size and its own number of iterations, slice by slice."""
    from sigpy.mri.app import EspiritCalib

    settings = {"calib_width": LINES, "thresh": THRESHOLD, "crop": 0, "show_pbar": False}
    return torch.stack(
        [torch.from_numpy(EspiritCalib(scan.numpy(), **settings).run()) for scan in kspace]
    )


def by_bart(kspace: Tensor, folder: Path) -> Tensor:
    """Maps of BART at full size, slice by slice; files are written beforehand by `bart_files`."""
    options = ["-t", str(THRESHOLD**2), "-k", "6", "-r", str(LINES), "-m", "1", "-c", "0"]
    for i in range(len(kspace)):
        command = ["bart", "ecalib", *options, f"kspace{i}", f"maps{i}"]
        subprocess.run(command, check=True, cwd=folder, capture_output=True)
    maps = [np.fromfile(folder / f"maps{i}.cfl", np.complex64) for i in range(len(kspace))]
    shape = (N_COILS, *reversed(SIZE))
    return torch.stack([torch.from_numpy(m.reshape(shape)).mT for m in maps])


def bart_files(kspace: Tensor, folder: Path) -> None:
    """Write each slice as BART's ``(y, x, 1, coil)``, first index fastest."""
    for i, scan in enumerate(kspace):
        header = f"# Dimensions\n{SIZE[0]} {SIZE[1]} 1 {N_COILS}\n"
        (folder / f"kspace{i}.hdr").write_text(header)
        scan.mT.numpy().tofile(folder / f"kspace{i}.cfl")


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds per slice, and the maps."""
    start = time.perf_counter()
    maps = call()
    if maps.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(maps), maps


def contenders(kspace: Tensor, folder: Path) -> dict[str, Callable[[], Tensor]]:
    """What is compared, by name."""

    def full_size(kspace: Tensor) -> Tensor:
        return espirit(center_crop(kspace, (LINES, LINES)), SIZE, threshold=THRESHOLD)[0]

    found = {
        "ours, every pixel": lambda: full_size(kspace),
        "ours, 64 x 64 and splines": lambda: estimate_sensitivity_maps(kspace, LINES),
        "sigpy EspiritCalib": lambda: by_sigpy(kspace[:N_SIGPY]),
    }
    if shutil.which("bart"):
        bart_files(kspace, folder)
        found["BART ecalib"] = lambda: by_bart(kspace, folder)
    else:
        print("BART ecalib                skipped: bart is not installed (Debian package bart)")
    if torch.cuda.is_available():
        on_device = kspace.cuda()
        found["ours, every pixel, CUDA"] = lambda: full_size(on_device)
        found["ours, 64 x 64, CUDA"] = lambda: estimate_sensitivity_maps(on_device, LINES)
    else:
        print("CUDA                       skipped: no GPU")
    return found


def degrees(maps: Tensor, reference: Tensor) -> Tensor:
    """Per pixel, the angle between the lines that two coil vectors span."""
    unit = reference / root_sum_of_squares(reference)[:, None].clamp_min(1e-12)
    rest = unit - maps * (maps.conj() * unit).sum(1, keepdim=True)
    return torch.rad2deg(root_sum_of_squares(rest).clamp(max=1).asin())


def main() -> None:
    """Let them take turns, and print the fastest of each beside its distance from ours."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    kspace, disc = simulated_slices()
    with tempfile.TemporaryDirectory() as folder:
        calls = contenders(kspace, Path(folder))
        turns = [{name: timed(call) for name, call in calls.items()} for _ in range(N_TURNS)]
    ours = turns[-1]["ours, every pixel"][1]
    best = {name: min(turn[name][0] for turn in turns) for name in calls}
    print(f"{torch.get_num_threads()} threads; seconds a slice; its ratio to ours; degrees to ours")
    for name, seconds in best.items():
        maps = turns[-1][name][1].cpu()
        angles = degrees(ours[: len(maps)], maps)[:, disc]
        high = angles.quantile(0.99).item()
        ratio = seconds / best["ours, every pixel"]
        print(f"{name:26} {seconds:8.4f} {ratio:8.2f} x  {angles.median():.4f} (99 %: {high:.4f})")


if __name__ == "__main__":
    main()
