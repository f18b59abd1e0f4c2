import sys

import numpy as np
import pytest
import torch

from mrisem.baselines.classical import ZeroFilled
from mrisem.baselines.grappa import Grappa
from mrisem.errors import InputError
from mrisem.physics.fourier import fft2c


def test_grappa_fills_irregular_masks_better_than_zeros(disc, decibel):
    batch, target = disc(n_coils=8, size=(64, 64), calibration_lines=16, acceleration=2.5)
    zero_filled = decibel(ZeroFilled()(batch).image[0], target)
    assert decibel(Grappa()(batch).image[0], target) > zero_filled + 2


def test_grappa_recovers_what_obeys_its_model(as_batch):
    # Coils that are the image times exp(2 pi i c x / X) shift its k-space by c columns: each
    # missing sample is measured, one column further, by another coil.
    width, height, n_coils = 40, 24, 3
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(height, width, dtype=torch.complex64, generator=generator)
    x = (torch.arange(width) - width // 2) / width
    waves = torch.exp(2j * torch.pi * torch.arange(n_coils)[:, None, None] * x)
    maps = (waves / n_coils**0.5).expand(n_coils, height, width)
    columns = torch.zeros(width, dtype=torch.bool)
    columns[::2] = True
    columns[12:28] = True
    batch, truth = as_batch(fft2c(maps * image), columns, maps, image.abs())
    found = Grappa(weight=1e-6)(batch).image[0].abs()
    assert float((found - truth).norm() / truth.norm()) < 0.1


def test_grappa_keeps_measured_samples(disc):
    batch, _ = disc(n_coils=4, noise=0.0)
    # one slice, kernel calibrated on the data: the image must reproduce them where coils allow
    image = Grappa()(batch).image
    again = batch.mask[:, None] * fft2c(batch.sensitivity_maps * image[:, None])
    error = (again - batch.masked_kspace).norm() / batch.masked_kspace.norm()
    assert float(error) < 0.05


def test_grappa_without_its_package_names_the_extra(disc, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygrappa", None)
    with pytest.raises(InputError, match=r"mrisem\[grappa\]"):
        Grappa()(disc()[0])


def test_grappa_refuses_a_single_coil(disc):
    with pytest.raises(InputError, match=r"at least 2 coils.*got 1"):
        Grappa()(disc(n_coils=1)[0])


def test_grappa_refuses_too_few_calibration_lines(disc):
    batch, _ = disc(calibration_lines=2, acceleration=5)
    with pytest.raises(InputError, match=r"at least 9 calibration lines.*got \d"):
        Grappa(kernel_size=(3, 9))(batch)


@pytest.mark.parametrize("size", [(4, 5), (5, 0)])
def test_grappa_refuses_even_kernels(size):
    with pytest.raises(InputError, match="odd"):
        Grappa(kernel_size=size)


def test_grappa_leaves_wide_gaps_at_zero(disc):
    batch, _ = disc(size=(32, 64), acceleration=6, calibration_lines=8)
    assert np.isfinite(Grappa()(batch).image.numpy()).all()
