"""Each format gives the scan that was written, and the command line the same scores."""

import csv
import shutil

import numpy as np
import pytest

from mrisem.errors import InputError

KINDS = ("h5", "mrd", "cfl", "npy", "npz", "mat", "mat 7.3")


@pytest.mark.parametrize("kind", KINDS)
def test_formats_give_what_was_written(write, converted, source, tmp_path, kind):
    read = converted(write(kind, tmp_path / "multicoil_val"))
    assert (read["kspace"] == source["kspace"]).all()
    assert "mask" not in read
    error = np.abs(read["reconstruction_rss"] - source["reconstruction_rss"]).max()
    assert error <= 1e-6 * source["reconstruction_rss"].max()
    if kind in ("h5", "mrd"):
        assert bytes(read["ismrmrd_header"]) == bytes(source["ismrmrd_header"])


@pytest.mark.parametrize(
    ("axes", "move", "index"),
    [
        ("x,y,coil,slice", (3, 2, 1, 0), np.s_[:]),
        ("coil,y,x", (0, 1, 2), np.s_[0]),
        ("x,y", (1, 0), np.s_[0, 0]),
        ("y,slice,x", (1, 0, 2), np.s_[:, 0]),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "mat"])
def test_formats_named_axes_are_moved(converted, source, tmp_path, axes, move, index, kind):
    import scipy.io

    part = source["kspace"][index]
    path = tmp_path / f"scan.{kind}"
    moved = part.transpose(move)
    np.save(path, moved) if kind == "npy" else scipy.io.savemat(path, {"k": moved})
    read = converted(path, axes)["kspace"]
    expected = part if "coil" in axes else np.expand_dims(part, -3)
    assert (read == (expected if "slice" in axes else expected[None])).all()


def test_formats_partitions_become_slices(converted, source, tmp_path):
    kspace = source["kspace"]
    shifted = np.fft.ifftshift(kspace, axes=0)
    partitions = np.fft.fftshift(np.fft.fft(shifted, axis=0, norm="ortho"), axes=0)
    np.save(tmp_path / "scan.npy", partitions.astype(np.complex64))
    read = converted(tmp_path / "scan.npy", "partition,coil,y,x")["kspace"]
    assert np.abs(read - kspace).max() < 1e-6 * np.abs(kspace).max()


def test_formats_left_out_columns_become_the_mask(converted, source, tmp_path):
    kspace = source["kspace"].copy()
    columns = (kspace != 0).any((0, 1, 2))
    columns[::3] = False
    np.save(tmp_path / "scan.npy", kspace * columns)
    read = converted(tmp_path / "scan.npy")
    assert (read["mask"] == columns).all()
    assert "reconstruction_rss" not in read


def test_formats_corner_centre_gives_the_same_target(converted, source, tmp_path):
    np.save(tmp_path / "scan.npy", np.fft.ifftshift(source["kspace"], axes=(-2, -1)))
    read = converted(tmp_path / "scan.npy", kspace_center="corner")["reconstruction_rss"]
    assert np.allclose(read, source["reconstruction_rss"], atol=1e-6 * read.max())


def test_formats_a_changed_file_is_converted_again(converted, source, tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, source["kspace"])
    assert (converted(path)["kspace"] == source["kspace"]).all()
    np.save(path, 2 * source["kspace"])
    assert (converted(path)["kspace"] == 2 * source["kspace"]).all()


@pytest.fixture(scope="module")
def scores(write, simulated, tmp_path_factory):
    """Scores of CG-SENSE by format, through reconstruct and evaluate."""
    done = {}

    def score(mrisem, kind):
        if kind not in done:
            root = tmp_path_factory.mktemp("root")
            folder, name = root / "multicoil_val", "file_brain_AXT2_5000"
            if kind == "native":
                folder.mkdir()
                shutil.copy(simulated / "brain" / "multicoil_val" / f"{name}.h5", folder)
            else:
                write(kind, folder, name)
            run = ["data=brain", f"data.root={root}", "data.acquisition=AXT2", "model=cg_sense"]
            run += ["scale=smoke", f"output_dir={root / 'run'}"]
            code, _, err = mrisem("reconstruct", *run)
            assert code == 0, err
            code, _, err = mrisem("evaluate", f"output_dir={root / 'run'}")
            assert code == 0, err
            done[kind] = list(
                csv.DictReader((root / "run" / "metrics.csv").read_text().splitlines())
            )
        return done[kind]

    return score


@pytest.mark.filterwarnings("ignore:.*(patient_id|ismrmrd_header|no acquisition):UserWarning")
@pytest.mark.parametrize("kind", ["mrd", "npy", "cfl", "mat"])
def test_formats_reconstruct_and_evaluate_as_the_native_file(mrisem, scores, kind):
    native, read = scores(mrisem, "native"), scores(mrisem, kind)
    assert len(native) == len(read) > 0
    for ours, theirs in zip(native, read, strict=True):
        for name in ("acceleration", "psnr", "ssim", "nmse"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)


def test_formats_files_of_a_package_outside_are_read(monkeypatch, converted, source, tmp_path):
    from importlib.metadata import EntryPoint

    from mrisem.data.readers import registry
    from mrisem.data.readers.scan import Scan

    class Reader:
        suffixes = (".raw",)

        def accepts(self, path):
            return path.read_bytes()[:4] == b"MINE"

        def files(self, path):
            return [path]

        def read(self, path, options):
            return Scan(source["kspace"])

    class Point(EntryPoint):
        def load(self):
            return Reader

    points = [Point("mine", "mine:Reader", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    registry.readers.cache_clear()
    try:
        (tmp_path / "scan.raw").write_bytes(b"MINE")
        assert ".raw" in registry.suffixes()
        assert (converted(tmp_path / "scan.raw")["kspace"] == source["kspace"]).all()
        (tmp_path / "scan.raw").write_bytes(b"NOT ")
        with pytest.raises(InputError, match="must have that format"):
            converted(tmp_path / "scan.raw")
    finally:
        registry.readers.cache_clear()
