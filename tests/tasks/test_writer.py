import h5py
import numpy as np
import pytest
import torch

from mrisem.results.files import Planned, RunFolder
from mrisem.results.record import Record, Scan
from mrisem.tasks.base import Prediction, ReconstructionTask
from mrisem.tasks.callbacks.writer import ReconstructionWriter
from mrisem.tasks.curves import FitCurves
from mrisem.types import Batch, FailedScan, Reconstruction, SliceInfo

SCAN = Scan(file="a.hdf5", subject="s", shape=(3, 2, 8, 6), header="", kspace="k")


@pytest.fixture
def run(tmp_path):
    run = RunFolder(
        tmp_path,
        Record(model="unrolled", mask="gaussian"),
        {"a.hdf5": Planned(SCAN, "AXT2", frozenset(range(3)))},
    )
    run.open()
    return run


def prediction(indices, value=2.0):
    n = len(indices)
    ones = torch.ones(n, 2, 8, 6, dtype=torch.complex64) / 2**0.5
    mask = torch.ones(n, 8, 6, dtype=torch.bool)
    info = tuple(SliceInfo("a.hdf5", i, 3, "AXT2", "s", 4.0) for i in indices)
    scale = torch.tensor([10.0 * (i + 1) for i in indices])
    batch = Batch(ones, mask, ones, scale, (4, 6), info, coarse_maps=ones[..., :2, :2])
    image = torch.full((n, 8, 6), value, dtype=torch.complex64)
    curves = FitCurves([("a.hdf5", i, 0, "data_consistency", 0.5) for i in indices])
    return Prediction(batch, Reconstruction(image), 1.5, curves)


def write(run, *outputs):
    ReconstructionWriter(run).on_predict_batch_end(None, None, [*outputs], None, 0)


def test_writer_finishes_a_volume_once_all_slices_are_there(run, tmp_path):
    write(run, prediction([2]))
    assert not (tmp_path / "reconstructions" / "a.h5").exists()
    write(run, prediction([0, 1]))
    with h5py.File(tmp_path / "reconstructions" / "a.h5") as file:
        assert file["reconstruction"].shape == (3, 4, 6)
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_allclose(file["reconstruction"][:, 0, 0], [20, 40, 60])  # times scale
        assert file["slices"][:].tolist() == [0, 1, 2]
        assert file["image"].dtype == file["coarse_maps"].dtype == np.complex64
        np.testing.assert_allclose(file["image"][:, 2:6], file["reconstruction"], rtol=1e-6)
        assert file["coarse_maps"].shape == (3, 2, 2, 2)
        assert file["mask"].shape == file["image"].shape == (3, 8, 6)
        assert file["mask"].dtype == bool
        assert [name for name in file if file[name].compression] == ["mask"]  # the rest is noise
        assert file["seconds"][:].tolist() == [1.5] * 3
        assert file.attrs["method"] == "unrolled"
        assert Scan.model_validate_json(file.attrs["scan"]) == SCAN
        assert Record.parse(file.attrs["record"]) == run.record
    run.close()
    assert sorted(p.name for p in (tmp_path / "reconstructions").iterdir()) == ["a.h5"]
    assert len((tmp_path / "fit.csv").read_text().splitlines()) == 4


def test_writer_keeps_the_path_of_each_slice(run, tmp_path):
    output = prediction([0, 1])
    output.curves.bank = {"8": (torch.ones(4, 3), torch.zeros(5, 3))}
    output.curves.zero_filled = {"8": torch.full((2, 3), 0.5)}
    output.curves.paths = [(i, {"8": torch.arange(6.0).reshape(2, 3) + i}) for i in (0, 5)]
    write(run, output)
    with np.load(tmp_path / "embeddings" / "a.hdf5" / "1.npz") as kept:
        assert kept["iterations"].tolist() == [0, 5]
        np.testing.assert_array_equal(kept["path_8"], [[3, 4, 5], [8, 9, 10]])
        assert kept["positives_8"].shape == (4, 3)
        assert kept["negatives_8"].shape == (5, 3)
        assert kept["zero_filled_8"].tolist() == [0.5] * 3


def test_writer_writes_a_volume_without_its_failed_slices(run, tmp_path):
    write(run, FailedScan("a.hdf5", "empty", (1,)), prediction([0]))
    write(run, FailedScan("b.h5", "damaged"))
    write(run, prediction([2]))
    run.close()
    with h5py.File(tmp_path / "reconstructions" / "a.h5") as file:
        assert file["slices"][:].tolist() == [0, 2]
        assert "empty" in file.attrs["failed"]
    assert "damaged" in (tmp_path / "failed.json").read_text()


def test_writer_does_not_write_an_image_that_is_not_finite(run, tmp_path):
    write(run, prediction([0, 1, 2], value=float("nan")))
    assert [scan.slices for scan in run.failed] == [(0, 1, 2)]
    run.close()
    assert not (tmp_path / "reconstructions" / "a.h5").exists()


def test_task_out_of_memory_goes_on_with_half_a_batch(monkeypatch):
    class Needs(ReconstructionTask):
        seen: tuple[int, ...] = ()

        def solve(self, batch):
            self.seen += (len(batch),)
            if len(batch) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return Reconstruction(batch.masked_kspace[:, 0]), FitCurves()

    task, batch = Needs(), prediction([0, 1, 2]).batch
    with pytest.warns(UserWarning, match=r"out of memory with \d slices at once, continues with 1"):
        outputs = task.predict_step(batch)
    assert task.seen == (3, 1, 2, 1, 1)
    assert [output.batch.info[0].slice for output in outputs] == [0, 1, 2]
