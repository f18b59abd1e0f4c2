import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mrisem.data.auxiliary import AuxiliarySettings, AuxiliarySlices
from mrisem.data.volumes import inspect_volume
from mrisem.errors import InputError
from mrisem.physics.sense import Measurement
from mrisem.types import Reconstruction

SETTINGS = AuxiliarySettings(calibration_lines=8)


@pytest.fixture
def volumes(tmp_path, make_file):
    return [
        inspect_volume(make_file(tmp_path / f"{name}.h5", subject=name, seed=i))
        for i, name in enumerate("abc")
    ]


def test_pairs_are_the_target_and_an_aliased_image_of_it(volumes):
    pairs = AuxiliarySlices(volumes, SETTINGS)
    items = list(pairs)
    assert len(items) == len(pairs) == 6
    with h5py.File(volumes[0].path) as file:
        target = file["reconstruction_rss"][1]
    positive, negative, info = items[1]
    torch.testing.assert_close(positive, torch.from_numpy(target))
    assert positive.shape == negative.shape == (32, 32)
    assert positive.dtype == negative.dtype == torch.float32
    assert (info.file, info.slice, info.subject) == ("a.h5", 1, "a")
    error = (positive - negative).norm() / positive.norm()
    assert 0.02 < error < 1


def test_positives_without_a_stored_target_are_computed(volumes, tmp_path, make_file):
    path = make_file(tmp_path / "plain.h5", target=False, seed=0)
    expected = next(iter(AuxiliarySlices(volumes, SETTINGS)))[0]
    computed = next(iter(AuxiliarySlices([inspect_volume(path)], SETTINGS)))[0]
    torch.testing.assert_close(computed, expected)


def test_accelerations_are_drawn_from_the_stated_ones(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5", shape=(40, 1, 8, 240), padding=(0, 240), crop=(8, 8))
    settings = AuxiliarySettings(calibration_lines=24)
    drawn = [info.acceleration for *_, info in AuxiliarySlices([inspect_volume(path)], settings)]
    assert {round(r) for r in drawn} == {3, 4, 5, 6, 7, 8}
    assert max(abs(r - round(r)) for r in drawn) < 0.1


def test_narrow_matrices_give_calibration_at_most_half_of_the_lines(volumes):
    settings = AuxiliarySettings(accelerations=[8])
    *_, info = next(iter(AuxiliarySlices(volumes, settings)))
    assert info.acceleration == pytest.approx(44 / round(44 / 8))


def test_negatives_do_not_depend_on_order_but_on_the_seed(volumes):
    first = [negative for _, negative, _ in AuxiliarySlices(volumes, SETTINGS)]
    reverse = [negative for _, negative, _ in AuxiliarySlices(volumes[::-1], SETTINGS)]
    assert all(map(torch.equal, first[:2], reverse[4:]))
    other = [n for _, n, _ in AuxiliarySlices(volumes, replace(SETTINGS, seed=1))]
    assert not all(map(torch.equal, first, other))


def test_fingerprint_follows_content_and_recipe_not_place(volumes, tmp_path):
    fingerprint = AuxiliarySlices(volumes, SETTINGS).fingerprint
    assert AuxiliarySlices(volumes, SETTINGS).fingerprint == fingerprint
    copy = tmp_path / "copy"
    copy.mkdir()
    copies = [inspect_volume(Path(shutil.copy(volume.path, copy))) for volume in volumes]
    assert AuxiliarySlices(copies, SETTINGS).fingerprint == fingerprint
    others = [
        AuxiliarySlices(volumes[:2], SETTINGS),
        AuxiliarySlices(volumes, replace(SETTINGS, seed=1)),
        AuxiliarySlices(volumes, replace(SETTINGS, max_slices=1)),
        AuxiliarySlices(volumes, replace(SETTINGS, accelerations=(4,))),
    ]
    assert len({fingerprint, *(slices.fingerprint for slices in others)}) == 5
    with h5py.File(copies[0].path, "a") as file:
        file["kspace"][1, 0, 5, 5] += 1
    assert AuxiliarySlices(copies, SETTINGS).fingerprint != fingerprint


def test_describe_is_plain_data_without_names_of_patients_files_or_folders(volumes, tmp_path):
    import hashlib
    import json

    text = json.dumps(AuxiliarySlices(volumes, SETTINGS).describe())
    description = json.loads(text)
    hashes = sorted(hashlib.sha256(name).hexdigest()[:12] for name in (b"a", b"b", b"c"))
    assert description["subjects"] == hashes
    assert len(description["files"]) == 3
    assert description["n_slices"] == 6
    assert not [v for v in volumes if v.file in text or str(tmp_path) in text]


def test_undersampled_scans_are_no_positives(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5", mask=np.arange(48) % 2)
    with pytest.raises(InputError, match="fully sampled"):
        list(AuxiliarySlices([inspect_volume(path)], SETTINGS))


def test_auxiliary_slices_need_a_file():
    with pytest.raises(InputError, match="at least one file"):
        AuxiliarySlices([], SETTINGS)


class Doubling:
    """A reconstructor whose images are known: twice the zero-filled ones."""

    fingerprint = "doubling"

    def __call__(self, batch):
        assert batch.mask.shape == (1, 64, 48)
        return Reconstruction(2 * Measurement.of(batch).adjoint(batch.masked_kspace))


def test_negatives_may_be_reconstructions_or_both(volumes):
    mild = replace(SETTINGS, accelerations=[3])  # leaves lines enough for sensitivity maps
    zero_filled = [negative for _, negative, _ in AuxiliarySlices(volumes, mild)]
    hard = replace(mild, negatives="reconstruction")
    made = AuxiliarySlices(volumes, hard, Doubling())
    assert len(made) == len(zero_filled)
    for (_, negative, _), other in zip(made, zero_filled, strict=True):
        seen = negative > 0.2 * negative.max()  # inside the support, maps have unit norm
        factor = negative[seen] / other[seen]  # estimated maps: right but for some pixels
        assert abs(factor.median() - 2) < 0.05
        assert ((factor - 2).abs() < 0.2).float().mean() > 0.9
    both = AuxiliarySlices(volumes, replace(mild, negatives="both"), Doubling())
    alternating = [negative for _, negative, _ in both]
    assert len(alternating) == len(both) == 2 * len(zero_filled)
    assert all(torch.equal(a, b) for a, b in zip(alternating[::2], zero_filled, strict=True))
    others = [negative for _, negative, _ in made]
    assert all(torch.equal(a, b) for a, b in zip(alternating[1::2], others, strict=True))
    assert both.describe()["negatives"] == "both"
    assert (
        len({made.fingerprint, both.fingerprint, AuxiliarySlices(volumes, mild).fingerprint}) == 3
    )


def test_negatives_that_are_reconstructions_need_a_network(volumes):
    with pytest.raises(InputError, match=r"auxiliary.negatives other than zero_filled need"):
        AuxiliarySlices(volumes, replace(SETTINGS, negatives="both"))


def spoil(volume, name, value):
    with h5py.File(volume.path, "a") as file:
        file[name][1] = value


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["kspace", "reconstruction_rss"])
def test_bad_auxiliary_slice_is_named_or_left_out_with_one_warning(volumes, name, value):
    spoil(volumes[1], name, value)
    with pytest.raises(InputError, match=rf"^{name} must be finite.*b\.h5, slice 1"):
        list(AuxiliarySlices(volumes, SETTINGS))
    images = AuxiliarySlices(volumes, SETTINGS, on_error="skip")
    with pytest.warns(UserWarning, match=r"left out of .*b\.h5, slice 1") as seen:
        first = list(images)
    assert len(seen) == 1
    assert [(info.file, info.slice) for *_, info in first] == [
        ("a.h5", 0),
        ("a.h5", 1),
        ("b.h5", 0),
        ("c.h5", 0),
        ("c.h5", 1),
    ]
    assert len(images) == images.describe()["n_slices"] == 5
    again = list(images)  # no second warning: warnings are errors here
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_empty_auxiliary_slice_is_left_out_whatever_on_error_says(volumes, on_error):
    spoil(volumes[0], "kspace", 0)
    images = AuxiliarySlices(volumes, SETTINGS, on_error=on_error)
    with pytest.warns(UserWarning, match=r"only zeros in .*a\.h5, slice 1"):
        assert len(list(images)) == 5


def test_auxiliary_set_without_a_good_slice_is_refused(volumes):
    for index in (0, 1):
        with h5py.File(volumes[0].path, "a") as file:
            file["kspace"][index] = 0
    images = AuxiliarySlices(volumes[:1], SETTINGS, on_error="skip")
    with (
        pytest.warns(UserWarning, match="only zeros"),
        pytest.raises(InputError, match="must hold a good slice, got 2 bad ones"),
    ):
        list(images)


def test_auxiliary_file_that_was_cut_short_is_left_out_with_on_error_skip(volumes):
    size = volumes[1].path.stat().st_size
    with volumes[1].path.open("rb+") as file:
        file.truncate(size // 2)
    with pytest.raises(InputError, match=r"b\.h5 must be a complete HDF5 file"):
        _ = AuxiliarySlices(volumes, SETTINGS).fingerprint
    images = AuxiliarySlices(volumes, SETTINGS, on_error="skip")
    assert len(images.fingerprint) == 64
    with pytest.warns(UserWarning, match=r"left out .*b\.h5"):
        assert len(list(images)) == 4


def test_bank_is_built_of_the_good_slices(volumes, tmp_path):
    from mrisem.prior.image.building import build_bank

    class Means:
        levels, widths = (1,), (3,)

        def __call__(self, magnitude):
            return (magnitude[:, :12, :3],)  # tokens are rows

    spoil(volumes[1], "reconstruction_rss", np.nan)
    images = AuxiliarySlices(volumes, SETTINGS, on_error="skip")
    with pytest.warns(UserWarning, match="left out"):
        bank = build_bank(Means(), images, [2], {})
    assert (bank.levels[1].n_positives, len(bank.levels[1].entries)) == (5, 10)
    with pytest.raises(InputError, match=r"b\.h5, slice 1"):
        build_bank(Means(), AuxiliarySlices(volumes, SETTINGS), [2], {})


@pytest.mark.parametrize("factor", [2.0**-66, 2.0**66])
def test_unit_of_auxiliary_files_changes_no_negative(volumes, factor):
    expected = list(AuxiliarySlices(volumes[:1], SETTINGS))
    with h5py.File(volumes[0].path, "a") as file:
        del file["reconstruction_rss"]
        file["kspace"][...] = file["kspace"][()] * np.complex64(factor)
    scaled = list(AuxiliarySlices(volumes[:1], SETTINGS))
    for (positive, negative, _), (target, image, _) in zip(expected, scaled, strict=True):
        assert torch.equal(image / factor, negative)
        torch.testing.assert_close(target / factor, positive)
