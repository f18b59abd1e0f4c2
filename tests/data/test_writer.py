import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset

from mrisem.data.writer import write_volume
from mrisem.errors import InputError

FACTS = {
    "acquisition": "AXT2",
    "patient_id": "someone",
    "padding": (1, 11),
}


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    kspace = rng.standard_normal((2, 3, 16, 12, 2), dtype=np.float32)
    kspace = kspace.view(np.complex64)[..., 0]
    return kspace, rng.random((2, 8, 8), dtype=np.float32)


def test_write_volume_is_read_back_by_fastmri(tmp_path, volume):
    kspace, target = volume
    write_volume(tmp_path / "a.h5", kspace, target, **FACTS)
    dataset = SliceDataset(tmp_path, "multicoil")
    assert len(dataset) == 2
    found, mask, image, attributes, name, index = dataset[1]
    np.testing.assert_array_equal(found, kspace[1])
    np.testing.assert_array_equal(image, target[1])
    assert mask is None
    assert (name, index) == ("a.h5", 1)
    assert (attributes["padding_left"], attributes["padding_right"]) == (1, 11)
    assert attributes["encoding_size"] == (16, 12, 1)
    assert attributes["recon_size"] == (8, 8, 1)
    assert attributes["acquisition"] == "AXT2"
    assert attributes["patient_id"] == "someone"
    assert attributes["max"] == pytest.approx(target.max())
    assert attributes["norm"] == pytest.approx(np.linalg.norm(target))


@pytest.mark.parametrize(("width", "padding"), [(12, (0, 12)), (12, (2, 11)), (13, (1, 12))])
def test_write_volume_header_keeps_any_padding(tmp_path, padding, width):
    kspace = np.ones((1, 1, 16, width), np.complex64)
    facts = FACTS | {"padding": padding}
    write_volume(tmp_path / "a.h5", kspace, np.ones((1, 8, 8), np.float32), **facts)
    attributes = SliceDataset(tmp_path, "multicoil")[0][3]
    assert (attributes["padding_left"], attributes["padding_right"]) == padding


def test_write_volume_equal_data_give_equal_files(tmp_path, volume):
    for name in ("a.h5", "b.h5"):
        write_volume(tmp_path / name, *volume, **FACTS)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_write_volume_leaves_nothing_half_written(tmp_path, volume, monkeypatch):
    monkeypatch.setattr(h5py.File, "create_dataset", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_volume(tmp_path / "a.h5", *volume, **FACTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"padding": (0, 99)}, "padding"),
        ({"lesions": np.zeros((2, 8, 8))}, r"lesions must be uint8 \(2, 8, 8\), got float64"),
    ],
)
def test_write_volume_rejects_what_does_not_fit(tmp_path, volume, change, word):
    with pytest.raises(InputError, match=word):
        write_volume(tmp_path / "a.h5", *volume, **(FACTS | change))
    with pytest.raises(InputError, match=r"kspace must be complex64 \(slice, coil, y, x\)"):
        write_volume(tmp_path / "a.h5", volume[0][0], volume[1], **FACTS)
    with pytest.raises(InputError, match=r"target must be float32 \(2, Y, X\), got float32 \(1"):
        write_volume(tmp_path / "a.h5", volume[0], volume[1][:1], **FACTS)
    assert list(tmp_path.iterdir()) == []
