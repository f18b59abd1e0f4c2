"""Banks of images: what their slices are, and that no scan's own image is in its bank."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mrisem.config.compose import compose
from mrisem.data.anatomies import FastMRIBrain
from mrisem.data.cuts import cut_slice
from mrisem.data.images import find_images, load
from mrisem.data.volumes import inspect_volume
from mrisem.errors import InputError
from mrisem.physics.draws import draw_columns
from mrisem.physics.masks import GaussianMask, stable_seed
from mrisem.physics.sense import Measurement
from mrisem.types import Reconstruction

MASK = GaussianMask(4, calibration_lines=8)
CUT = {"slice_step": 10.0, "calibration_lines": 8, "accelerations": (4,)}


@pytest.fixture
def images(tmp_path, write_nifti):
    """Four heads of different sizes."""
    for name, n in {"a": 48, "b": 50, "c": 52, "d": 54}.items():
        write_nifti(tmp_path / "images" / f"{name}.nii.gz", shape=(n, 56, 52))
    return tmp_path / "images"


@pytest.fixture
def scans(tmp_path, images):
    """Scans of the heads c and d; a and b are in no data set."""
    from mrisem.verbs.simulate import run

    chosen = tmp_path / "chosen"
    chosen.mkdir()
    for name in "cd":  # of another place and name: only the content tells
        shutil.copy(images / f"{name}.nii.gz", chosen / f"copy of {name}.nii.gz")
    words = ["scale=smoke", f"source={chosen}", "n_slices=1", f"output_dir={tmp_path / 'out'}"]
    assert run(compose("simulate", words)) == 0
    return tmp_path / "out" / "brain"


def bank(root, images, **settings):
    options = {key: settings.pop(key) for key in ("on_error", "split") if key in settings}
    auxiliary = {"root": str(images), "n_subjects": 9} | CUT | settings
    return FastMRIBrain(root, MASK, auxiliary=auxiliary, **options)


def test_no_image_of_a_reconstructed_scan_is_in_the_bank(images, scans):
    by_name = {i.paths[0].name[0]: i.subject for i in find_images(images)}
    data = bank(scans, images)
    assert {p.volume.subject for p in data.slices} == {by_name["c"], by_name["d"]}
    assert {v.subject for v in data.auxiliary_slices().volumes} == {by_name["a"], by_name["b"]}
    for name in "ab":
        (images / f"{name}.nii.gz").unlink()
    with pytest.raises(InputError, match="neither reconstructed nor in another split, got none"):
        bank(scans, images).auxiliary_slices()


def test_leave_one_out_takes_all_other_images(images, scans, tmp_path):
    path = next(p for p in (scans / "multicoil_val").iterdir() if "copy_of_d" in p.name)
    path.unlink()
    chosen = {v.path.name for v in bank(scans, images).auxiliary_slices().volumes}
    assert chosen == {"a.nii.gz", "b.nii.gz", "d.nii.gz"}


def test_pairs_are_an_image_and_the_same_undersampled_with_one_coil(images, scans):
    data = bank(scans, images, n_subjects=1)
    slices = data.auxiliary_slices()
    items = list(slices)
    (volume,) = slices.volumes
    assert len(items) == len(slices) == len(volume.indices) > 5
    image = load(volume.image)
    for number, (positive, negative, info) in enumerate(items):
        expected, _ = cut_slice(image, "axial", volume.indices[number], 96)  # as the scans have
        np.testing.assert_array_equal(positive, expected)
        assert (info.slice, info.acquisition, info.subject) == (number, "AXT1", volume.subject)
        assert info.acceleration == pytest.approx(4)
        seed = stable_seed("negative", volume.file, number, 0)
        columns = draw_columns(MASK, 96, (0, 96), seed).numpy()  # CUT's acceleration and lines
        kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(expected)))
        aliased = np.abs(np.fft.ifft2(np.fft.ifftshift(kspace * columns)))
        np.testing.assert_allclose(negative, np.fft.fftshift(aliased), atol=1e-3 * expected.max())
    assert slices.describe()["acquisitions"] == ["images, taken as AXT1"]
    other = bank(scans, images, acquisition="AXT2").auxiliary_slices()
    assert other.describe()["acquisitions"] == ["images, taken as AXT2"]


def test_key_of_a_bank_follows_the_content_of_images_not_their_place(
    images, scans, tmp_path, write_nifti
):
    first = bank(scans, images).auxiliary_slices().fingerprint
    assert bank(scans, images).auxiliary_slices().fingerprint == first
    moved = Path(shutil.copytree(images, tmp_path / "moved"))
    assert bank(scans, moved).auxiliary_slices().fingerprint == first
    others = [{"plane": "coronal"}, {"slice_step": 20.0}, {"size": 64}, {"n_subjects": 1}]
    keys = {bank(scans, images, **one).auxiliary_slices().fingerprint for one in others}
    assert len(keys | {first}) == 5
    values = np.full((50, 56, 52), 7, dtype=np.int16)
    values[3, 3, 3] = 8
    write_nifti(moved / "b.nii.gz", values)
    assert bank(scans, moved).auxiliary_slices().fingerprint != first


def test_bad_image_is_an_error_or_left_out_of_the_bank(images, scans, write_nifti):
    write_nifti(images / "a.nii.gz", np.full((8, 8, 8), np.nan, dtype=np.float32))
    with pytest.raises(InputError, match=r"got NaN or infinity in .*a\.nii\.gz"):
        bank(scans, images).auxiliary_slices()
    with pytest.warns(UserWarning, match=r"left out of the auxiliary set: .*a\.nii\.gz"):
        volumes = bank(scans, images, on_error="skip").auxiliary_slices().volumes
    assert [volume.path.name for volume in volumes] == ["b.nii.gz"]


class ZeroFilling:
    """A reconstructor whose images are known: the zero-filled ones."""

    fingerprint = "zero-filling"

    def __call__(self, batch):
        assert batch.masked_kspace.shape == (1, 1, 96, 96)
        return Reconstruction(Measurement.of(batch).adjoint(batch.masked_kspace))


def test_negatives_of_images_may_be_reconstructions(images, scans):
    data = bank(scans, images, n_subjects=1, negatives="both")
    data.reconstructor = ZeroFilling()
    slices = list(data.auxiliary_slices())
    for (_, zero_filled, _), (_, made, _) in zip(slices[::2], slices[1::2], strict=True):
        inside = zero_filled > 0.2 * zero_filled.max()
        assert float((made - zero_filled)[inside].abs().max() / zero_filled.max()) < 0.05


def test_images_count_as_the_contrast_that_is_wanted(images, scans):
    taken = bank(scans, images).auxiliary_slices("AXT1", "cross").describe()["acquisitions"]
    assert taken == ["images, taken as AXT2"]


def test_options_of_images_are_refused_for_scans(tmp_path, make_file):
    for split in ("train", "val"):
        make_file(tmp_path / f"multicoil_{split}" / "a.h5", subject=split)
    data = FastMRIBrain(tmp_path, MASK, auxiliary={"plane": "axial"})
    with pytest.raises(InputError, match=r"auxiliary\.plane cuts slices of images"):
        data.auxiliary_slices()


def test_a_bank_of_images_is_not_trained_on(images, scans):
    (scans / "multicoil_val").rename(scans / "multicoil_train")
    settings = {"root": str(images), "n_subjects": 2} | CUT
    data = FastMRIBrain(scans, MASK, auxiliary=settings, train_subjects="auxiliary")
    with pytest.raises(InputError, match="got a bank of images"):
        data.setup("fit")
    data = FastMRIBrain(scans, MASK, auxiliary={**settings, "n_subjects": 1})
    data.setup("fit")
    trained = {part.volume.subject for part in data.training_slices}
    assert trained
    assert not trained & {v.subject for v in data.auxiliary_slices().volumes}


def test_scans_of_images_say_so(scans, tmp_path, make_file):
    for path in (scans / "multicoil_val").iterdir():
        assert inspect_volume(path).simulation.startswith("simulated from images")
    assert inspect_volume(make_file(tmp_path / "other.h5")).simulation == ""
