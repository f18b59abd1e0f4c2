"""`mrisem export`: from a folder of images to a reconstruction that lies on them."""

import os
import time
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from mrisem.data.images import find_images
from mrisem.data.volumes import inspect_volume

DATA = Path(
    os.environ.get("MRISEM_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
HEADS, KNEE = DATA / "images" / "head_nifti", DATA / "images" / "knee_dicom" / "echo1"
needs_images = pytest.mark.skipif(not HEADS.is_dir(), reason="images: MRISEM_TEST_DATA")


def likeness(values, affine, image):
    """Correlation of a volume with another that is sampled at its voxels, by the affines alone."""
    voxels, place = image.read(image.paths)
    grid = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), axis=-1)
    there = grid @ affine[:3, :3].T + affine[:3, 3]
    indices = (there - place[:3, 3]) @ np.linalg.inv(place[:3, :3]).T
    expected = map_coordinates(voxels, np.moveaxis(indices, -1, 0), order=1)
    return np.corrcoef(values.ravel(), expected.ravel())[0, 1]


def exported(mrisem, source, folder, *words):
    """Simulate scans of images, reconstruct and export them; return volumes by input image."""
    sizes = ["scale=smoke", "size=96", "n_slices=4"]
    assert mrisem("simulate", f"source={source}", *sizes, *words, f"output_dir={folder}")[0] == 0
    (root,) = [path for path in folder.iterdir() if path.name in ("brain", "knee")]
    run = folder / "run"
    made = [f"data={root.name}", f"data.root={root}", "mask.acceleration=2", "scale=smoke"]
    code, _, err = mrisem("reconstruct", *made, "model=zero_filled", f"output_dir={run}")
    assert code == 0, err
    code, out, err = mrisem("export", f"output_dir={run}")
    assert code == 0, err
    assert "warning" not in err
    paths = sorted((run / "export").glob("*.nii.gz"))
    assert f"{len(paths)} scans written as nifti" in out
    return [
        (next(i for i in find_images(source) if i.label in path.name), nibabel.load(path))
        for path in paths
    ]


def lies_on(image, volume):
    """Whether a volume lies on an image, and not where it would with any axis flipped."""
    values = np.asarray(volume.dataobj, np.float64)
    like = likeness(values, volume.affine, image)
    flipped = [likeness(np.flip(values, axis), volume.affine, image) for axis in range(3)]
    assert like > 0.95
    assert 1 - like < (1 - max(flipped)) / 2


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_scan_of_an_oblique_image_is_exported_onto_it(mrisem, tmp_path, write_nifti, plane):
    turned = [(0.4, -2.4, 0.3), (2.4, 0.4, -0.2), (0.2, 0.3, 3.1)]
    write_nifti(tmp_path / "images" / "head.nii.gz", columns=turned)
    words = f"source_plane={plane}", "source_slice_step=12"
    ((image, volume),) = exported(mrisem, tmp_path / "images", tmp_path / "out", *words)
    lies_on(image, volume)


@needs_images
def test_scans_of_real_heads_are_exported_onto_them(mrisem, tmp_path):
    found = exported(mrisem, HEADS, tmp_path)
    assert len(found) == 4
    for image, volume in found:
        lies_on(image, volume)


@needs_images
def test_scans_of_a_real_dicom_series_are_exported_onto_it(mrisem, tmp_path):
    ((image, volume),) = exported(mrisem, KNEE, tmp_path, "source_anatomy=knee")
    lies_on(image, volume)


def test_simulated_subjects_state_their_place(simulated):
    (path,) = sorted((simulated / "brain" / "multicoil_val").glob("*AXT2*.h5"))
    volume = inspect_volume(path)
    assert volume.placed
    edges = np.linalg.norm(np.array(volume.affine)[:3, :3], axis=0)
    np.testing.assert_allclose(edges[:2], 236 / 96)
    assert np.linalg.det(np.array(volume.affine)[:3, :3]) < 0  # rows run to the back


def test_the_header_gives_sizes_where_the_file_states_no_place(simulated, tmp_path):
    (path,) = sorted((simulated / "knee" / "multicoil_val").glob("*CORPD_FBK*.h5"))
    copy = tmp_path / "multicoil_val" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        del file.attrs["affine"]
    volume = inspect_volume(copy)
    assert not volume.placed
    expected = np.diag([-150 / 96, -150 / 96, 5, 1])  # to the left, back and head
    np.testing.assert_allclose(volume.affine, expected, atol=1e-3)


@pytest.mark.filterwarnings("default:position and orientation")
def test_an_export_needs_the_size_of_voxels(mrisem, run_folders):
    run_folders.targets()
    run = run_folders.add("a")
    code, _, err = mrisem("export", f"output_dir={run}")
    assert code == 1
    assert "voxel_mm=" in err
    assert err.count("\n") == 1
    code, _, err = mrisem("export", f"output_dir={run}", "voxel_mm=[0.7,0.8,5]")
    assert code == 0
    assert "warning: position and orientation of 2 scans are not known" in err
    assert err.count("\n") == 1
    image = nibabel.load(run / "export" / "a.nii.gz")
    np.testing.assert_allclose(image.header.get_zooms(), (0.7, 0.8, 5), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:position and orientation")
@pytest.mark.parametrize(
    ("format_", "name"),
    [("nifti", "a.nii.gz"), ("dicom", "a/0004.dcm"), ("ismrmrd", "a.mrd")],
)
def test_what_is_newer_than_its_reconstruction_may_be_kept(mrisem, run_folders, format_, name):
    run_folders.targets()
    run = run_folders.add("a")
    words = [f"output_dir={run}", f"format={format_}", "voxel_mm=[1,1,5]", "skip_existing=true"]
    assert "2 scans written" in mrisem("export", *words)[1]
    assert (run / "export" / name).is_file()
    assert "0 scans written" in mrisem("export", *words)[1]
    later = time.time() + 60
    os.utime(run / "reconstructions" / "a.h5", (later, later))
    assert f"1 scans written as {format_}, 1 were there" in mrisem("export", *words)[1]
    assert "2 scans written" in mrisem("export", *words[:-1])[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["format=png"], "format must be"),
        (["voxel_mm=[1,1]"], "voxel_mm must"),
        (["voxel_mm=[1,1,0]"], "voxel_mm must"),
        (["output_dir=/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_export_is_one_line(mrisem, run_folders, words, said):
    run_folders.targets()
    run = run_folders.add("a")
    code, _, err = mrisem("export", f"output_dir={run}", *words)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1


def test_a_wrong_affine_is_one_line(simulated, tmp_path):
    from mrisem.errors import InputError

    source = next((simulated / "brain" / "multicoil_val").glob("*.h5"))
    copy = tmp_path / "bad.h5"
    for value in (np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan), "identity"):
        copy.write_bytes(source.read_bytes())
        with h5py.File(copy, "r+") as file:
            file.attrs["affine"] = value
        with pytest.raises(InputError, match="affine"):
            inspect_volume(copy)
