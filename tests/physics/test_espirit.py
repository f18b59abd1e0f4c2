"""Against formulas written down plainly, sigpy's EspiritCalib and BART's ecalib."""

import math
import os
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mrisem.errors import InputError
from mrisem.physics.coils import estimate_sensitivity_maps, root_sum_of_squares
from mrisem.physics.espirit import espirit
from mrisem.physics.fourier import center_crop, fft2c, ifft2c
from mrisem.physics.simulate import coil_maps

DATA = Path(
    os.environ.get("MRISEM_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
BRAIN = DATA / "real" / "brain" / "multicoil_val" / "brain_8ch_256.h5"
KNEE = DATA / "real" / "knee" / "multicoil_val" / "knee_1ch_640x332.h5"
needs_brain = pytest.mark.skipif(
    not BRAIN.exists(), reason="real brain k-space not found (MRISEM_TEST_DATA)"
)
needs_bart = pytest.mark.skipif(
    shutil.which("bart") is None, reason="BART is not installed (Debian package bart)"
)
# The measured field of view and a smaller one: odd, not square. Both hold the whole head with room
# to spare: where it wraps around an edge, two sets of maps explain the data, and no one is right.
SIZES = [(256, 256), (255, 215)]


def brain(size):
    """Measured k-space ``(1, coil, y, x)`` of the centre of the field of view, and the head."""
    with h5py.File(BRAIN) as file:
        images = center_crop(ifft2c(torch.from_numpy(file["kspace"][0])), size)
    magnitude = root_sum_of_squares(images)
    return fft2c(images)[None], magnitude > 0.1 * magnitude.max()


def head_of_coils(n_coils=3, size=(32, 32), seed=0, noise=0.0):
    """Simulated k-space ``(1, coil, y, x)``, true maps up to phase, and the object."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    support = x**2 + y**2 < 0.6
    maps = coil_maps(size, n_coils, generator)
    maps = maps / root_sum_of_squares(maps)
    images = maps * support * (1 + 0.3 * torch.cos(9 * x + seed) * torch.cos(7 * y))
    images = images + noise * torch.randn(images.shape, dtype=images.dtype, generator=generator)
    return fft2c(images)[None], maps, support


def central(kspace, width):
    """The calibration block, the sample ``n // 2`` in its centre."""
    return center_crop(kspace, (width, width))


def degrees(maps, reference):
    """Per pixel, the angle between the lines that two coil vectors span."""
    unit = reference / root_sum_of_squares(reference).clamp_min(1e-12)
    rest = unit - maps * (maps.conj() * unit).sum(0)
    return torch.rad2deg(root_sum_of_squares(rest).clamp(max=1).asin())


def quantiles(angles):
    """Median and 99th percentile, in degrees; pytest -rP shows them."""
    median, high = (torch.quantile(angles.double(), q).item() for q in (0.5, 0.99))
    print(f"subspace angle: median {median:.5f}, 99th percentile {high:.5f} degrees")
    return median, high


def naive(calibration, size, threshold, width):
    """ESPIRiT of one slice by loops, an SVD, and an eigendecomposition at every pixel."""
    n_coils, height, breadth = calibration.shape
    rows = [
        calibration[:, i : i + width, j : j + width].ravel()
        for i in range(height - width + 1)
        for j in range(breadth - width + 1)
    ]
    _, singular, right = np.linalg.svd(np.array(rows), full_matrices=False)
    kernels = right[singular > threshold * singular[0]].reshape(-1, n_coils, width, width)
    maps = np.zeros((n_coils, *size), complex)
    value = np.zeros(size)
    d = np.arange(width)
    for p in range(size[0]):
        for q in range(size[1]):
            r, s = (p - size[0] // 2) / size[0], (q - size[1] // 2) / size[1]
            wave = np.exp(-2j * np.pi * (d[:, None] * r + d * s))
            seen = (kernels.conj() * wave).sum((2, 3))
            values, vectors = np.linalg.eigh(seen.T.conj() @ seen / width**2)
            maps[:, p, q], value[p, q] = vectors[:, -1], values[-1]
    return maps, value


@pytest.mark.parametrize(("width", "kernel_width"), [(10, 3), (8, 6)], ids=["many", "few"])
def test_espirit_equals_a_naive_one(width, kernel_width):
    kspace, _, support = head_of_coils(noise=1e-3)
    calibration = central(kspace, width)
    settings = {"threshold": 0.02, "kernel_width": kernel_width}
    maps, eigenvalue = espirit(calibration, (19, 24), **settings)
    expected, value = naive(calibration[0].numpy(), (19, 24), 0.02, kernel_width)
    inside = torch.nn.functional.interpolate(support[None, None].float(), (19, 24))[0, 0] > 0
    assert degrees(maps[0], torch.from_numpy(expected).to(maps.dtype))[inside].max() < 0.02
    torch.testing.assert_close(eigenvalue[0], torch.from_numpy(value).float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        eigenvalue[0][inside], torch.from_numpy(value).float()[inside], atol=1e-5, rtol=0
    )


def test_espirit_finds_the_true_maps_and_shows_where_there_is_no_object():
    kspace, truth, support = head_of_coils(6, (48, 40))
    maps, eigenvalue = espirit(central(kspace, 20), (48, 40))
    assert quantiles(degrees(maps[0], truth)[support])[1] < 4
    torch.testing.assert_close(root_sum_of_squares(maps), torch.ones(1, 48, 40))
    explained = (eigenvalue[0] >= 0.95).float()
    assert explained[support].mean() > 0.99
    assert explained[~support].mean() < 0.8


def test_espirit_phase_is_that_of_the_strongest_combination():
    calibration = central(head_of_coils(4)[0], 16)
    maps, _ = espirit(calibration, (32, 32))
    u, _, _ = torch.linalg.svd(calibration[0].flatten(1))
    first = u[:, 0] * u[:, 0][u[:, 0].abs().argmax()].conj().sgn()
    seen = torch.einsum("c,cyx->yx", first.conj(), maps[0])
    torch.testing.assert_close(seen, seen.abs().to(seen.dtype), atol=1e-4, rtol=0)


def test_espirit_of_a_batch_equals_one_by_one_whatever_the_scale():
    scans = [head_of_coils(4, seed=seed, noise=1e-3)[0] * 10.0 ** (-4 * seed) for seed in range(3)]
    together = espirit(central(torch.cat(scans), 16), (21, 30))
    for i, scan in enumerate(scans):
        maps, eigenvalue = espirit(central(scan, 16), (21, 30))
        inside = eigenvalue[0] > 0.95
        assert inside.any()
        torch.testing.assert_close(together[0][i][:, inside], maps[0][:, inside], atol=1e-3, rtol=0)
        torch.testing.assert_close(together[1][i], eigenvalue[0], atol=1e-3, rtol=0)


def test_espirit_in_blocks_of_rows_equals_all_at_once(monkeypatch):
    import mrisem.physics.espirit as module

    calibration = central(head_of_coils(4)[0], 16)
    expected = espirit(calibration, (21, 30))
    monkeypatch.setattr(module, "_CHUNK_CPU", 2 * 30 * 16)
    for part, whole in zip(espirit(calibration, (21, 30)), expected, strict=True):
        torch.testing.assert_close(part, whole)


def test_espirit_calibration_may_be_oblong():
    kspace, truth, support = head_of_coils(4, (48, 40))
    maps, _ = espirit(center_crop(kspace, (30, 14)), (48, 40))
    assert quantiles(degrees(maps[0], truth)[support])[1] < 6


def test_espirit_of_a_single_coil_is_one():
    maps, eigenvalue = espirit(central(head_of_coils(1)[0], 16), (17, 23))
    torch.testing.assert_close(maps, torch.ones_like(maps))
    assert eigenvalue.shape == (1, 17, 23)
    assert eigenvalue.max() <= 1  # though single precision overshoots


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda k: central(k, 6), {}, "more than 6 fully sampled lines .* got 6"),
        (lambda k: central(k, 3), {"kernel_width": 4}, "more than 4 fully sampled lines .* got 3"),
        (lambda k: torch.cat([k, 0 * k]), {}, "must not be zero throughout its centre"),
        (lambda k: k[0], {}, r"calibration must be \(batch, coil, y, x\) complex, got \(3, 32"),
        (lambda k: k.abs(), {}, r"calibration must be .* got .* torch\.float32"),
        (lambda k: k, {"threshold": 0.0}, "0 < threshold < 1"),
        (lambda k: k, {"threshold": 1.0}, "0 < threshold < 1"),
    ],
)
def test_espirit_refuses_what_it_cannot_calibrate(change, settings, message):
    with pytest.raises(InputError, match=message) as error:
        espirit(change(head_of_coils()[0]), (8, 8), **settings)
    assert "\n" not in str(error.value)


@needs_brain
@pytest.mark.parametrize("size", SIZES)
def test_espirit_agrees_with_sigpy_on_a_real_brain(size):
    from sigpy.mri.app import EspiritCalib

    kspace, head = brain(size)
    app = EspiritCalib(
        kspace[0].numpy(), crop=0, max_iter=100, output_eigenvalue=True, show_pbar=False
    )
    theirs, their_value = (torch.from_numpy(np.ascontiguousarray(part)) for part in app.run())
    maps, eigenvalue = espirit(central(kspace, 24), size)
    median, high = quantiles(degrees(maps[0], theirs)[head])
    assert median < 0.001
    assert high < 0.01
    assert (eigenvalue[0] - their_value.reshape(size).real)[head].abs().max() < 1e-4


@needs_brain
@needs_bart
@pytest.mark.parametrize("size", SIZES)
def test_espirit_agrees_with_bart_on_a_real_brain_in_phase_too(size, tmp_path):
    kspace, head = brain(size)
    dimensions, values = kspace.shape[2:], kspace[0].permute(1, 2, 0).numpy()
    (tmp_path / "kspace.hdr").write_text("# Dimensions\n{} {} 1 8\n".format(*dimensions))
    values.astype(np.complex64).ravel(order="F").tofile(tmp_path / "kspace.cfl")
    # BART's threshold is on squared singular values
    options = ["-t", str(0.02**2), "-k", "6", "-r", "24", "-m", "1", "-c", "0"]
    command = ["bart", "ecalib", *options, "kspace", "maps"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    found = np.fromfile(tmp_path / "maps.cfl", np.complex64).reshape((*dimensions, 8), order="F")
    theirs = torch.from_numpy(found.transpose(2, 0, 1).copy())
    maps, _ = espirit(central(kspace, 24), size)
    median, high = quantiles(degrees(maps[0], theirs)[head])
    # BART interpolates the pointwise matrices, and so differs by a few hundredths of a degree
    assert median < 0.05
    assert high < 0.5
    relative = (maps[0].conj() * theirs).sum(0)[head]
    assert (relative / relative.mean()).angle().abs().quantile(0.99) < math.radians(0.5)


@needs_brain
@pytest.mark.parametrize("size", SIZES)
def test_interpolated_maps_agree_with_those_of_every_pixel(size):
    kspace, head = brain(size)
    full, _ = espirit(central(kspace, 24), size)
    coarse = estimate_sensitivity_maps(kspace, 24)
    median, high = quantiles(degrees(coarse[0], full[0])[head])
    assert median < 0.1
    assert high < 1


@needs_brain
def test_espirit_is_stable_in_single_precision():
    kspace, head = brain((256, 256))
    calibration = central(kspace, 24)
    single, _ = espirit(calibration, (256, 256))
    double, _ = espirit(calibration.to(torch.complex128), (256, 256))
    assert degrees(single[0].to(torch.complex128), double[0])[head].max() < 0.01


@pytest.mark.skipif(not KNEE.exists(), reason="real knee k-space not found (MRISEM_TEST_DATA)")
def test_espirit_of_a_real_single_channel_is_one_in_the_knee():
    with h5py.File(KNEE) as file:
        kspace = torch.from_numpy(file["kspace"][:1])
    maps, eigenvalue = espirit(central(kspace, 24), (640, 332))
    torch.testing.assert_close(maps, torch.ones_like(maps))
    magnitude = root_sum_of_squares(ifft2c(kspace))
    assert eigenvalue[magnitude > 0.1 * magnitude.max()].median() > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_espirit_on_a_gpu_equals_the_cpu():
    calibration = central(head_of_coils(6, (48, 40))[0], 20)
    expected, value = espirit(calibration, (48, 40))
    maps, eigenvalue = espirit(calibration.cuda(), (48, 40))
    assert maps.is_cuda
    inside = value[0] > 0.95
    assert degrees(maps[0].cpu(), expected[0])[inside].max() < 0.05
    torch.testing.assert_close(eigenvalue.cpu(), value, atol=1e-3, rtol=0)
