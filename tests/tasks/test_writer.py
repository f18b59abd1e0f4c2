from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from mrisem.errors import InputError
from mrisem.tasks.base import Prediction
from mrisem.tasks.callbacks.writer import Provenance, ReconstructionWriter
from mrisem.tasks.curves import FitCurves
from mrisem.types import Batch, FailedScan, Reconstruction, SliceInfo

PROVENANCE = Provenance("unrolled", "gaussian", "key-1")


def prediction(indices, n_slices=3, value=2.0):
    n = len(indices)
    ones = torch.ones(n, 2, 8, 6, dtype=torch.complex64) / 2**0.5
    mask = torch.ones(n, 8, 6, dtype=torch.bool)
    info = tuple(SliceInfo("a.h5", i, n_slices, "AXT2", "s", 4.0) for i in indices)
    scale = torch.tensor([10.0 * (i + 1) for i in indices])
    batch = Batch(ones, mask, ones, scale, (4, 6), info)
    image = torch.full((n, 8, 6), value, dtype=torch.complex64)
    curves = FitCurves([("a.h5", i, 0, "data_consistency", 0.5) for i in indices])
    return Prediction(batch, Reconstruction(image), 1.5, curves)


def write(writer, output):
    writer.on_predict_batch_end(None, None, output, None, 0)


def test_writer_finishes_a_volume_once_all_slices_are_there(tmp_path):
    writer = ReconstructionWriter(tmp_path, PROVENANCE)
    write(writer, prediction([2]))
    assert not (tmp_path / "reconstructions" / "a.h5").exists()
    assert writer.done() == {("a.h5", 2)}
    write(writer, prediction([0, 1]))
    with h5py.File(tmp_path / "reconstructions" / "a.h5") as file:
        assert file["reconstruction"].shape == (3, 4, 6)
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_allclose(file["reconstruction"][:, 0, 0], [20, 40, 60])  # times scale
        assert file["slices"][:].tolist() == [0, 1, 2]
        assert file["image"].dtype == np.complex64
        np.testing.assert_allclose(file["image"][:, 2:6], file["reconstruction"], rtol=1e-6)
        assert file["mask"].shape == file["image"].shape == (3, 8, 6)
        assert file["mask"].dtype == bool
        assert file["seconds"][:].tolist() == [1.5] * 3
        assert file.attrs["method"] == "unrolled"
    assert sorted(p.name for p in (tmp_path / "reconstructions").iterdir()) == ["a.h5"]
    assert len((tmp_path / "fit.csv").read_text().splitlines()) == 4


def test_writer_adds_slices_to_a_finished_volume(tmp_path):
    writer = ReconstructionWriter(tmp_path, PROVENANCE)
    write(writer, prediction([1], n_slices=1))
    assert writer.done() == {("a.h5", 1)}
    write(writer, prediction([0, 2], n_slices=3))
    assert writer.done() == {("a.h5", i) for i in range(3)}


def test_writer_does_not_complete_what_an_earlier_version_began(tmp_path):
    writer = ReconstructionWriter(tmp_path, PROVENANCE)
    write(writer, prediction([1], n_slices=1))
    with h5py.File(tmp_path / "reconstructions" / "a.h5", "a") as file:
        del file["image"]
    assert writer.done() == {("a.h5", 1)}
    with pytest.raises(InputError, match=r"\['image'\].*skip_existing=false"):
        write(writer, prediction([0, 2], n_slices=3))


def test_writer_refuses_to_mix_configurations(tmp_path):
    write(ReconstructionWriter(tmp_path, PROVENANCE), prediction([0]))
    other = ReconstructionWriter(tmp_path, replace(PROVENANCE, key="key-2"))
    with pytest.raises(InputError, match="another configuration"):
        other.done()
    other.clear()
    assert other.done() == set()


def test_writer_keeps_the_path_of_each_slice(tmp_path):
    output = prediction([0, 1])
    output.curves.bank = {"8": (torch.ones(4, 3), torch.zeros(5, 3))}
    output.curves.zero_filled = {"8": torch.full((2, 3), 0.5)}
    output.curves.paths = [(i, {"8": torch.arange(6.0).reshape(2, 3) + i}) for i in (0, 5)]
    write(ReconstructionWriter(tmp_path, PROVENANCE), output)
    with np.load(tmp_path / "embeddings" / "a.h5" / "1.npz") as kept:
        assert kept["iterations"].tolist() == [0, 5]
        np.testing.assert_array_equal(kept["path_8"], [[3, 4, 5], [8, 9, 10]])
        assert kept["positives_8"].shape == (4, 3)
        assert kept["negatives_8"].shape == (5, 3)
        assert kept["zero_filled_8"].tolist() == [0.5] * 3


def test_writer_counts_failed_scans_once(tmp_path):
    writer = ReconstructionWriter(tmp_path, PROVENANCE)
    write(writer, FailedScan("b.h5", "NaN"))
    write(writer, FailedScan("b.h5", "NaN"))
    assert [scan.file for scan in writer.failed] == ["b.h5"]
    assert not (tmp_path / "reconstructions").exists()
