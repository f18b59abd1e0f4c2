"""A simulated and a measured slice, and BART's ``pics`` behind a Python function."""

import os
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mrisem.data.dataset import undersample
from mrisem.physics.coils import estimate_sensitivity_maps
from mrisem.physics.fourier import fft2c
from mrisem.physics.masks import GaussianMask
from mrisem.types import Batch, SliceInfo


def disc_batch(n_coils=4, size=(48, 40), acceleration=3, calibration_lines=8, noise=0.002):
    """A structured disc under smooth coils, with its true maps; also the true image."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    image = (x**2 + y**2 < 0.7) * (0.5 + 0.5 * ((x * 4).floor() + (y * 4).floor()).remainder(2))
    image = torch.polar(image, 0.5 * x)
    coils = []
    for angle in 2 * torch.pi * torch.arange(n_coils) / n_coils:
        size_of = torch.exp(-((x - angle.cos()) ** 2) - (y - angle.sin()) ** 2)
        coils.append(torch.polar(size_of, angle * x + 0.5 * y))
    maps = torch.stack(coils)
    maps = maps / maps.abs().square().sum(0).sqrt()
    generator = torch.Generator().manual_seed(0)
    kspace = fft2c(maps * image)
    kspace = kspace + noise * torch.randn(kspace.shape, generator=generator, dtype=kspace.dtype)
    columns = GaussianMask(acceleration, calibration_lines)(size[1], (0, size[1]), 1)
    return make_batch(kspace, columns, maps, image.abs())


def make_batch(kspace, columns, maps, target):
    """One slice as a batch, and its target in the batch's scale."""
    masked, scale = undersample(kspace, columns)
    _, height, width = kspace.shape
    info = SliceInfo("a.h5", 0, 1, "AXT1", "a", width / int(columns.sum()))
    mask = columns.expand(1, height, width)
    batch = Batch(masked[None], mask, maps[None], scale[None], (height, width), (info,))
    return batch, target / scale


def psnr(image, target):
    """In dB, with the target's maximum as range."""
    error = np.mean((np.abs(np.asarray(image)) - np.asarray(target)) ** 2)
    return float(10 * np.log10(np.asarray(target).max() ** 2 / error))


@pytest.fixture
def disc():
    """`disc_batch`."""
    return disc_batch


@pytest.fixture
def as_batch():
    """`make_batch`."""
    return make_batch


@pytest.fixture
def decibel():
    """`psnr`."""
    return psnr


@pytest.fixture(scope="session")
def real_brain():
    """A measured 8-coil brain at Gaussian R = 4, its maps, and its target, or a skip."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("MRISEM_TEST_DATA", beside)) / "real"
    path = folder / "brain" / "multicoil_val" / "brain_8ch_256.h5"
    if not path.is_file():
        pytest.skip("measured k-space not found: set MRISEM_TEST_DATA to its folder")
    with h5py.File(path) as file:
        kspace = torch.from_numpy(file["kspace"][0])
        target = torch.from_numpy(file["reconstruction_rss"][0])
    width = kspace.shape[-1]
    columns = GaussianMask(4)(width, (0, width), 0)
    maps = estimate_sensitivity_maps((kspace * columns)[None], 24)[0]
    return make_batch(kspace, columns, maps, target)


def write_cfl(path, array):
    """Write BART's format: dimensions in a text header, complex64 in Fortran order."""
    sizes = [*array.shape, *[1] * (16 - array.ndim)]
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, sizes)) + "\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def read_cfl(path):
    """Read BART's format, without axes of length 1."""
    sizes = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    values = np.fromfile(path.with_suffix(".cfl"), np.complex64)
    return values.reshape(sizes, order="F").squeeze()


@pytest.fixture
def bart_pics(tmp_path):
    """Run ``bart pics OPTIONS`` on a batch of one slice -> image ``(y, x)``, or skip.

    BART's axes are (x, y, z, coil): our y and x take the places of its first and second one. Its
    Fourier transform is unitary with the zero frequency at ``n // 2``, as ours. ``-w 1`` switches
    its scaling of the data off, so that a weight means the same on both sides.
    """
    program = shutil.which("bart")
    if program is None:
        pytest.skip("bart is not installed (Debian package bart)")

    def run(batch, *options):
        for name, array in (("k", batch.masked_kspace), ("s", batch.sensitivity_maps)):
            write_cfl(tmp_path / name, np.moveaxis(array[0].numpy(), 0, -1)[:, :, None, :])
        paths = [str(tmp_path / name) for name in "ksx"]
        command = [program, "pics", "-w", "1", *options, *paths]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # tests run side by side
        subprocess.run(command, check=True, timeout=300, env=alone)
        return read_cfl(tmp_path / "x")

    return run
