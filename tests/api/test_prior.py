"""Banks of the Python interface never hold a subject of the scan."""

import pytest

import mrisem as api
from mrisem import InputError


def test_bank_is_described(scan, prior):
    text = prior.describe(scan)
    assert "bank for AXT2" in text
    assert "4 slices of 2 subjects" in text


def test_bank_leaves_out_the_subject_of_a_scan_in_its_own_data_set(simulated):
    """A file of multicoil_train is reconstructed: the bank has the other subject alone."""
    (path, *_) = sorted((simulated / "brain" / "multicoil_train").glob("*AXT2*.h5"))
    scan = api.load(path).undersample(api.masks.gaussian(4))
    prior = api.semantic_prior("janus_mini", images=simulated / "brain")
    assert "2 slices of 1 subjects" in prior.describe(scan)


def test_bank_of_the_scan_alone_is_refused(file, tmp_path):
    """The same subject's file, elsewhere and under another name, is still the same subject."""
    folder = tmp_path / "multicoil_train"
    folder.mkdir()
    (folder / "another_name.h5").write_bytes(file.read_bytes())
    scan = api.load(file).undersample(api.masks.gaussian(4))
    prior = api.semantic_prior("janus_mini", images=tmp_path)
    with pytest.raises(InputError, match="neither reconstructed nor in another split"):
        api.fit(scan, prior=prior, scale="smoke", iterations=1)


def test_bank_of_images_leaves_out_the_scans_own(tmp_path, write_nifti):
    images = tmp_path / "images"
    write_nifti(images / "a.nii.gz")
    write_nifti(images / "b.nii.gz", shape=(50, 56, 52))
    options = {"n_slices": 1, "size": 64, "n_coils": 2}
    scans = api.simulate(tmp_path / "scans", source=images / "a.nii.gz", overrides=options)
    (path,) = (scans / "brain" / "multicoil_val").glob("*.h5")
    scan = api.load(path).undersample(api.masks.gaussian(2))
    described = api.semantic_prior("janus_mini", images=images).describe(scan)
    assert "of 1 subjects" in described
    write_nifti(tmp_path / "alone" / "renamed.nii.gz")
    alone = api.semantic_prior("janus_mini", images=tmp_path / "alone")
    with pytest.raises(InputError, match="neither reconstructed nor in another split"):
        alone.describe(scan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "vgg17"}, "vgg17"),
        ({"images": "/no/such/folder"}, "/no/such/folder is none"),
        ({"acquisition": "T2"}, "one of AXT1"),
        ({"overrides": {"prior.wieght": 1}}, "prior.wieght"),
        ({"overrides": ["prior.temperature=-1"]}, "prior.temperature"),
        ({"overrides": "prior.weight=1"}, "mapping or a list"),
        ({"n_subjects": 0}, "auxiliary.n_subjects"),
    ],
)
def test_semantic_prior_refuses_at_once(options, message):
    with pytest.raises(Exception, match=message):
        api.semantic_prior(**options)


def test_a_method_that_takes_no_prior_refuses_one(scan, prior):
    with pytest.raises(InputError, match="guides only networks that are fitted"):
        api.fit(scan, "zero_filled", prior=prior)
