"""ISMRMRD: sorting, averages, reversed readouts, noise, 3-D, placement, and what is refused."""

import ismrmrd
import numpy as np
import pytest

from mrisem.data.readers.mrd_header import moved_to_crop
from mrisem.errors import InputError
from tests.data.readers.conftest import lines_of, readout, write_mrd


@pytest.fixture
def header(source):
    return source["ismrmrd_header"]


def test_mrd_averages_and_reversed_readouts(source, padding, header, converted, tmp_path):
    kspace = source["kspace"]
    first = list(lines_of(kspace + 1, padding))
    second = list(lines_of(kspace[..., ::-1, :] - 1, padding, average=1,
                           flags=[ismrmrd.ACQ_IS_REVERSE]))  # fmt: skip
    write_mrd(tmp_path / "scan.h5", header, [*second, *first])
    read = converted(tmp_path / "scan.h5")["kspace"]
    assert np.abs(read - kspace).max() <= 1e-6 * (1 + np.abs(kspace).max())


def test_mrd_undersampled_columns_become_the_mask(source, padding, header, converted, tmp_path):
    lines = list(lines_of(source["kspace"], padding))
    kept = [line for line in lines if line.idx.kspace_encode_step_1 % 3 == 0]
    write_mrd(tmp_path / "scan.mrd", header, kept)
    read = converted(tmp_path / "scan.mrd")
    expected = np.zeros(source["kspace"].shape[-1], bool)
    expected[padding[0] : padding[1] : 3] = True
    assert (read["mask"] == expected).all()
    assert (read["kspace"] == source["kspace"] * expected).all()


def test_mrd_partial_echo_is_placed_by_its_centre(source, padding, header, converted, tmp_path):
    kspace = source["kspace"][:1].copy()
    kspace[:, :, :10] = 0
    lines = list(lines_of(kspace[:, :, 10:], padding))
    for line in lines:
        line.center_sample = kspace.shape[2] // 2 - 10
    write_mrd(tmp_path / "scan.mrd", header, lines)
    assert (converted(tmp_path / "scan.mrd")["kspace"] == kspace).all()


def test_mrd_noise_scan_whitens_as_sigpy_does(source, padding, header, converted, tmp_path):
    from sigpy.mri.util import whiten

    rng, coils = np.random.default_rng(0), source["kspace"].shape[1]
    mix = rng.normal(size=(coils, coils)) + 2 * np.eye(coils)
    noise = mix @ (rng.normal(size=(coils, 4000)) + 1j * rng.normal(size=(coils, 4000)))
    noise = noise.astype(np.complex64)
    parts = [readout(part, 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
             for part in np.split(noise, 4, axis=1)]  # fmt: skip
    path = tmp_path / "scan.mrd"
    write_mrd(path, header, [*parts, *lines_of(source["kspace"], padding)])
    read = converted(path)["kspace"]
    covariance = noise @ noise.conj().T / noise.shape[1]
    expected = whiten(source["kspace"].swapaxes(0, 1), covariance).swapaxes(0, 1)
    assert np.abs(read - expected).max() < 1e-5 * np.abs(expected).max()
    assert (converted(path, prewhiten=False)["kspace"] == source["kspace"]).all()


def test_mrd_three_dimensions_become_slices(source, padding, header, converted, tmp_path):
    kspace = source["kspace"][:2]
    n = len(kspace)
    partitions = np.fft.fft(np.fft.ifftshift(kspace, axes=0), axis=0, norm="ortho")
    partitions = np.fft.fftshift(partitions, axes=0)
    text = bytes(header).decode().replace("<z>1</z>", f"<z>{n}</z>", 1)
    lines = [readout(part[:, :, x], step, partition=z)
             for z, part in enumerate(partitions)
             for step, x in enumerate(range(*padding))]  # fmt: skip
    write_mrd(tmp_path / "scan.mrd", text.encode(), lines)
    read = converted(tmp_path / "scan.mrd")["kspace"]
    assert np.abs(read - kspace).max() < 1e-6 * np.abs(kspace).max()


def test_mrd_affine_places_the_middle_pixel(source, padding, header, converted, tmp_path):
    write_mrd(tmp_path / "scan.mrd", header, lines_of(source["kspace"], padding))
    read = converted(tmp_path / "scan.mrd")
    y, x = read["reconstruction_rss"].shape[1:]
    mm = 236 / 96  # of simulated brains: field of view over matrix of scale=smoke
    # position (0, 0, 5 n) in LPS is pixel n // 2 of slice n; columns run along LPS x, rows along y
    assert np.allclose(read["affine"] @ [x // 2, y // 2, 2, 1], [0, 0, 10, 1])
    assert np.allclose(read["affine"] @ [x // 2 + 1, y // 2, 0, 1], [-mm, 0, 0, 1], atol=1e-3)
    assert np.allclose(read["affine"] @ [x // 2, y // 2 + 1, 0, 1], [0, -mm, 0, 1], atol=1e-3)


def test_mrd_crop_keeps_the_middle_pixel():
    moved = moved_to_crop(np.diag([2.0, 3, 5, 1]), (640, 368), (320, 320))
    assert (moved @ [160, 160, 0, 1] == np.diag([2.0, 3, 5, 1]) @ [184, 320, 0, 1]).all()


def test_mrd_navigators_are_left_out_with_a_warning(source, padding, header, converted, tmp_path):
    extra = readout(source["kspace"][0, :, :, 0] + 9, 0, flags=[ismrmrd.ACQ_IS_NAVIGATION_DATA])
    write_mrd(tmp_path / "scan.mrd", header, [extra, *lines_of(source["kspace"], padding)])
    with pytest.warns(UserWarning, match="1 readouts of navigators"):
        read = converted(tmp_path / "scan.mrd")
    assert (read["kspace"] == source["kspace"]).all()


@pytest.mark.parametrize("counter", ["contrast", "phase", "repetition", "set"])
def test_mrd_several_images_are_refused(source, padding, header, converted, tmp_path, counter):
    lines = list(lines_of(source["kspace"][:1], padding))
    setattr(lines[0].idx, counter, 1)
    write_mrd(tmp_path / "scan.mrd", header, lines)
    with pytest.raises(InputError, match=f"must hold one {counter}, got 2"):
        converted(tmp_path / "scan.mrd")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cartesian", "radial", "trajectory must be Cartesian, got radial"),
        ("cartesian", "epi", "trajectory must be Cartesian, got epi"),
        ("<maximum>", "<maximum", "complete XML header"),
        ("<encoding>", "<other>", "complete XML header"),
    ],
)
def test_mrd_bad_headers_are_one_line(source, padding, header, converted, tmp_path, old, new, said):
    text = bytes(header).decode().replace(old, new)
    write_mrd(tmp_path / "scan.mrd", text.encode(), lines_of(source["kspace"][:1], padding))
    with pytest.raises(InputError, match=said) as raised:
        converted(tmp_path / "scan.mrd")
    assert "\n" not in str(raised.value)


def test_mrd_steps_outside_the_matrix_are_refused(source, header, converted, tmp_path):
    line = source["kspace"][0, :, :, 0]
    write_mrd(tmp_path / "scan.mrd", header, [readout(line, 0), readout(line, 999)])
    with pytest.raises(InputError, match="kspace_encode_step_1 must lie within"):
        converted(tmp_path / "scan.mrd")
