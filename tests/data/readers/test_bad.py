"""Bad files of every format are one line that names the file; noise whitens arrays, too."""

import zipfile

import numpy as np
import pytest
import scipy.io

from mrisem.errors import InputError


def cut(write, folder, kind, share=0.6):
    """Write a scan and cut its file short."""
    path = write(kind, folder)
    with path.open("r+b") as stream:
        stream.truncate(int(path.stat().st_size * share))
    return path


def bomb(path):
    """An archive of a few bytes whose array declares 2**45."""
    header = b"{'descr': '<c8', 'fortran_order': False, 'shape': (35184372088832,), }"
    header = header.ljust(117) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("kspace.npy", body)
    return path


@pytest.mark.parametrize("kind", ["mrd", "cfl", "npy", "npz", "mat", "mat 7.3"])
def test_bad_file_that_was_cut_short_is_one_line(write, converted, tmp_path, kind):
    path = cut(write, tmp_path, kind)
    with pytest.raises(InputError) as raised:
        converted(path)
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "make", "rule"),
    [
        ("a.npy", lambda p: np.save(p, np.array([{}], dtype=object)), "without Python objects"),
        ("a.npy", lambda p: np.save(p, np.ones((2, 3, 8, 8))), "kspace must be complex"),
        ("a.npy", lambda p: np.save(p, np.ones((2, 2, 2, 8, 8), np.complex64)), "axes"),
        ("a.npy", lambda p: np.save(p, np.zeros((0, 8), np.complex64)), "must be|may have"),
        ("a.npy", lambda p: p.write_bytes(b"no array"), "must have that format"),
        ("a.npz", lambda p: np.savez(p, a=np.ones(3), b=np.ones(3)), "must hold an array 'kspace'"),
        ("a.npz", lambda p: np.savez(p, kspace=np.array([{}], dtype=object)), "Python objects"),
        ("a.npz", bomb, r"complete \.npz file|entries|memory"),
        ("a.mat", lambda p: scipy.io.savemat(p, {"kspace": "text"}), "kspace must be complex"),
        ("a.mat", lambda p: p.write_bytes(b"no variables"), "must have that format"),
        ("a.cfl", lambda p: p.write_bytes(bytes(64)), r"\.hdr file beside it"),
    ],
)
def test_bad_content_is_one_line(converted, tmp_path, name, make, rule):
    path = tmp_path / name
    make(path)
    with pytest.raises(InputError, match=rule) as raised:
        converted(path)
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("lengths", [None, "", "8 -1", "x"])
def test_bad_header_of_bart_is_one_line(converted, tmp_path, lengths):
    (tmp_path / "a.cfl").write_bytes(bytes(64))
    text = "" if lengths is None else f"# Dimensions\n{lengths}\n"
    (tmp_path / "a.hdr").write_text(text)
    with pytest.raises(InputError, match=r"a\.hdr"):
        converted(tmp_path / "a.cfl")


@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_noise_of_arrays_whitens_the_coils(converted, source, tmp_path, kind):
    kspace = source["kspace"]
    n_coils = kspace.shape[1]
    rng = np.random.default_rng(0)
    white = rng.normal(size=(n_coils, 4000)) + 1j * rng.normal(size=(n_coils, 4000))
    mixing = np.eye(n_coils) + 0.3 * rng.normal(size=(n_coils, n_coils))
    noise = (mixing @ white).astype(np.complex64)
    arrays, path = {"kspace": kspace, "noise": noise}, tmp_path / f"a.{kind}"
    np.savez(path, **arrays) if kind == "npz" else scipy.io.savemat(path, arrays)
    read = converted(path)["kspace"]
    # the same matrix, found from the k-space alone, makes the noise white
    before, after = (k.transpose(1, 0, 2, 3).reshape(n_coils, -1) for k in (kspace, read))
    matrix = after @ np.linalg.pinv(before)
    covariance = np.cov(matrix @ noise, bias=True)
    assert np.abs(covariance - np.eye(n_coils)).max() < 0.01
    kept = converted(path, prewhiten=False)["kspace"]
    assert (kept == kspace).all()
