"""Small files in the fastMRI layout, written as each test needs them."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mrisem.data.writer import ismrmrd_header
from mrisem.physics.fourier import center_crop, fft2c, ifft2c


@pytest.fixture
def real_data():
    """Folder of measured files, or a skip."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("MRISEM_TEST_DATA", beside)) / "real"
    if not folder.is_dir():
        pytest.skip("measured k-space not found: set MRISEM_TEST_DATA to its folder")
    return folder


def coil_kspace(shape, padding, seed):
    """``(slice, coil, y, x)`` of a noisy disc seen by smooth coils, zero outside the padding."""
    rng = np.random.default_rng(seed)
    n_slices, n_coils, height, width = shape
    y, x = np.meshgrid(np.linspace(-2, 2, height), np.linspace(-1, 1, width), indexing="ij")
    disc = (x**2 + y**2 < 0.6) * (1 + 0.5 * np.cos(8 * x + seed))
    angles = 2 * np.pi * np.arange(n_coils) / n_coils
    coils = [np.exp(-((x - np.cos(a)) ** 2) - (y - np.sin(a)) ** 2 + 1j * x * a) for a in angles]
    images = disc * np.stack(coils) * np.arange(1, n_slices + 1)[:, None, None, None]
    images = images + 0.01 * rng.standard_normal((*shape, 2)).view(np.complex128)[..., 0]
    kspace = fft2c(torch.from_numpy(images.astype(np.complex64))).numpy()
    kspace[..., : padding[0]] = 0
    kspace[..., padding[1] :] = 0
    return kspace


@pytest.fixture
def make_file():
    """A function that writes one file and returns its path; None leaves an attribute out."""

    def make(
        path,
        *,
        shape=(2, 4, 64, 48),
        crop=(32, 32),
        padding=(2, 46),
        acquisition="AXT2",
        subject="subject-a",
        header=True,
        target=True,
        mask=None,
        kspace=None,
        seed=0,
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        kspace = coil_kspace(shape, padding, seed) if kspace is None else kspace
        with h5py.File(path, "w") as file:
            file["kspace"] = kspace
            if header:
                file["ismrmrd_header"] = np.bytes_(ismrmrd_header(shape, crop, padding))
            if target:
                images = ifft2c(torch.from_numpy(kspace)).abs().square().sum(1).sqrt()
                file["reconstruction_rss"] = center_crop(images, crop).numpy()
            if mask is not None:
                file["mask"] = mask
            facts = {"acquisition": acquisition, "patient_id": subject}
            file.attrs.update({key: value for key, value in facts.items() if value is not None})
        return path

    return make
