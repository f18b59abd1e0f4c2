import fastmri.data
import h5py
import numpy as np
import pytest
import torch

from mrisem.data.dataset import SliceGroups, central_slices
from mrisem.data.volumes import inspect_volume
from mrisem.errors import InputError
from mrisem.physics.coils import (
    ESTIMATORS,
    estimate_sensitivity_maps,
    interpolate_maps,
    root_sum_of_squares,
)
from mrisem.physics.fourier import center_crop, ifft2c
from mrisem.physics.masks import FileMask, GaussianMask, calibration_lines
from mrisem.physics.sense import Measurement
from mrisem.types import FailedScan

MASK = GaussianMask(4, calibration_lines=8)


def groups(*paths, mask=MASK, max_slices=None, **options):
    slices = central_slices([inspect_volume(path) for path in paths], max_slices)
    return SliceGroups(slices, mask, **options)


def edit(path, name, change):
    with h5py.File(path, "a") as file:
        values = file[name][()]
        change(values)
        file[name][...] = values


def test_item_is_a_batch_of_one_volume_scaled_to_unit_maximum(tmp_path, make_file):
    data = groups(make_file(tmp_path / "a.h5"), make_file(tmp_path / "b.h5", seed=1))
    assert len(data) == 2
    batch = data[0]
    assert batch.masked_kspace.shape == batch.sensitivity_maps.shape == (2, 4, 64, 48)
    assert batch.masked_kspace.dtype == batch.sensitivity_maps.dtype == torch.complex64
    assert (batch.mask.shape, batch.mask.dtype) == ((2, 64, 48), torch.bool)
    assert (batch.crop, batch.target.shape) == ((32, 32), (2, 32, 32))
    peaks = root_sum_of_squares(ifft2c(batch.masked_kspace)).amax((1, 2))
    torch.testing.assert_close(peaks, torch.ones(2))
    assert [(i.file, i.slice, i.n_slices) for i in batch.info] == [("a.h5", 0, 2), ("a.h5", 1, 2)]
    assert batch.info[0].acceleration == 44 / 11 == 44 / int(batch.mask[0, 0].sum())
    assert batch.info[0].subject == "subject-a"


def test_item_agrees_with_fastmri_slice_by_slice(tmp_path, make_file):
    path = make_file(tmp_path / "multicoil_val" / "a.h5")
    batch = groups(path)[0]
    theirs = fastmri.data.SliceDataset(path.parent, "multicoil")
    for i in range(2):
        kspace, _, target, attributes, name, index = theirs[i]
        assert (name, index) == (batch.info[i].file, batch.info[i].slice)
        assert attributes["recon_size"][:2] == batch.crop
        expected = torch.from_numpy(kspace) * batch.mask[i]
        torch.testing.assert_close(batch.masked_kspace[i] * batch.scale[i], expected)
        torch.testing.assert_close(batch.target[i], torch.from_numpy(target))


def test_scale_returns_to_the_units_of_the_target(tmp_path, make_file):
    batch = groups(make_file(tmp_path / "a.h5"), mask=GaussianMask(1, calibration_lines=8))[0]
    image = root_sum_of_squares(ifft2c(batch.masked_kspace)) * batch.scale[:, None, None]
    torch.testing.assert_close(center_crop(image, batch.crop), batch.target)


def test_sensitivity_maps_come_from_the_estimator_that_is_named(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    for name in ESTIMATORS:
        batch = groups(path, sensitivity_maps=name)[0]
        n = calibration_lines(batch.mask[0, 0])
        expected = estimate_sensitivity_maps(batch.masked_kspace, n, estimator=name)
        torch.testing.assert_close(batch.sensitivity_maps, expected)
    with pytest.raises(InputError, match=r"sensitivity_maps must lie in a file, got bart"):
        groups(path, sensitivity_maps="bart")[0]


def test_slices_calibrate_on_their_own_lines(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    edit(path, "kspace", lambda k: k[1, ..., :12].fill(0))
    with pytest.warns(UserWarning, match="only 12 to 46 hold data"):
        batch = groups(path, mask=GaussianMask(1, calibration_lines=8))[0]
    lines = [calibration_lines(mask[0]) for mask in batch.mask]
    assert lines[0] != lines[1]
    for i, n in enumerate(lines):
        expected = estimate_sensitivity_maps(batch.masked_kspace[i : i + 1], n)
        torch.testing.assert_close(batch.sensitivity_maps[i : i + 1], expected)


def test_mask_depends_on_file_name_and_seed_not_on_order(tmp_path, make_file):
    a, b = make_file(tmp_path / "a.h5"), make_file(tmp_path / "b.h5")
    first, swapped, other = groups(a, b), groups(b, a), groups(a, b, seed=1)
    assert torch.equal(first[0].mask, swapped[1].mask)
    assert not torch.equal(first[0].mask, first[1].mask)
    assert not torch.equal(first[0].mask, other[0].mask)


def test_groups_never_mix_volumes_and_take_central_slices(tmp_path, make_file):
    shape = (5, 2, 32, 48)
    paths = [make_file(tmp_path / f"{n}.h5", shape=shape, crop=(16, 16)) for n in "ab"]
    data = groups(*paths, max_slices=3, slices_at_once=2)
    sizes = [[(part.volume.file, part.slice) for part in group] for group in data.groups]
    assert sizes == [
        [("a.h5", 1), ("a.h5", 2)],
        [("a.h5", 3)],
        [("b.h5", 1), ("b.h5", 2)],
        [("b.h5", 3)],
    ]


def test_files_own_mask_is_used_within_the_padding(tmp_path, make_file):
    stored = np.zeros(48)
    stored[[0, 5, 9, *range(18, 30), 40]] = 1
    path = make_file(tmp_path / "a.h5", mask=stored, target=False)
    edit(path, "kspace", lambda k: k.__imul__(stored.astype(np.complex64)))
    batch = groups(path, mask=FileMask())[0]
    stored[0] = 0
    assert batch.mask[0, 0].tolist() == (stored > 0).tolist()
    assert batch.info[0].acceleration == pytest.approx(44 / 15)
    assert batch.target is None
    with pytest.raises(InputError, match="set mask=from_file"):
        groups(path)[0]


def test_file_mask_errors_name_the_file(tmp_path, make_file):
    with pytest.raises(InputError, match=r"got none in a\.h5"):
        groups(make_file(tmp_path / "a.h5"), mask=FileMask())[0]
    path = make_file(tmp_path / "b.h5", mask=np.ones(47))
    with pytest.raises(InputError, match=r"\(48,\) or \(y, x\), got \(47,\) in b\.h5"):
        groups(path, mask=FileMask())[0]


def test_columns_without_data_beside_the_headers_padding_are_not_sampled(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    edit(path, "kspace", lambda k: k[..., :6].fill(0))
    with pytest.warns(UserWarning, match="columns 2 to 46 were acquired, but only 6 to 46 hold"):
        batch = groups(path)[0]
    assert batch.info[0].acceleration == 40 / 10
    assert not batch.mask[..., :6].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_kspace_that_is_not_finite_is_refused_by_file_and_slice(tmp_path, make_file, value):
    path = make_file(tmp_path / "a.h5")
    edit(path, "kspace", lambda k: k[1, 0, 3].fill(value))
    with pytest.raises(InputError, match=r"a\.h5, slice 1"):
        groups(path)[0]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_empty_slice_costs_only_itself_whatever_on_error_says(tmp_path, make_file, on_error):
    path = make_file(tmp_path / "a.h5", shape=(4, 4, 64, 48))
    whole = groups(path)[0]
    edit(path, "kspace", lambda k: k[1].fill(0))
    batch = groups(path, on_error=on_error)[0]
    assert [info.slice for info in batch.info] == [0, 2, 3]
    assert [(scan.file, scan.slices) for scan in batch.failed] == [("a.h5", (1,))]
    assert "only zeros" in batch.failed[0].message
    torch.testing.assert_close(batch.masked_kspace, whole.masked_kspace[[0, 2, 3]])
    torch.testing.assert_close(batch.target, whole.target[[0, 2, 3]])
    assert len(batch.coarse_maps) == len(batch.sensitivity_maps) == 3


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_group_of_empty_slices_is_a_failed_scan(tmp_path, make_file, on_error):
    path = make_file(tmp_path / "a.h5", shape=(4, 4, 64, 48))
    edit(path, "kspace", lambda k: k[2:].fill(0))
    items = [groups(path, on_error=on_error, slices_at_once=2)[i] for i in range(2)]
    assert [info.slice for info in items[0].info] == [0, 1]
    assert isinstance(items[1], FailedScan)
    assert items[1].slices == (2, 3)
    assert items[1].message.endswith("(and 1 more slices)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("name", "fault"), [("kspace", "kspace"), ("reconstruction_rss", "recon")])
def test_bad_slice_costs_only_itself_with_on_error_skip(tmp_path, make_file, name, fault, value):
    path = make_file(tmp_path / "a.h5", shape=(3, 4, 64, 48))
    edit(path, name, lambda values: values[1].fill(value))
    batch = groups(path, on_error="skip")[0]
    assert [info.slice for info in batch.info] == [0, 2]
    assert batch.failed[0].slices == (1,)
    assert batch.failed[0].message.startswith(fault)
    with pytest.raises(InputError, match=rf"^{fault}.* must be finite.*a\.h5, slice 1"):
        groups(path)[0]


def test_slice_without_sensitivity_maps_costs_only_itself(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5", shape=(3, 4, 64, 48))
    edit(path, "kspace", lambda k: k[1, :, 20:44, 12:36].fill(0))
    with pytest.raises(InputError, match=r"^a\.h5: k-space must not be zero throughout its centre"):
        groups(path)[0]
    batch = groups(path, on_error="skip")[0]
    assert [info.slice for info in batch.info] == [0, 2]
    assert "zero throughout its centre" in batch.failed[0].message


def test_coarse_maps_give_the_sensitivity_maps(tmp_path, make_file):
    batch = groups(make_file(tmp_path / "a.h5"))[0]
    assert batch.coarse_maps.shape == (2, 4, 64, 64)
    assert torch.equal(interpolate_maps(batch.coarse_maps, (64, 48)), batch.sensitivity_maps)
    assert torch.equal(batch.select(1).coarse_maps, batch.coarse_maps[1:])
    assert batch.to("meta").coarse_maps.device.type == "meta"
    single = groups(make_file(tmp_path / "b.h5", shape=(2, 1, 64, 48)))[0]
    assert torch.equal(single.coarse_maps, torch.ones(2, 1, 1, 1, dtype=torch.complex64))
    assert torch.equal(interpolate_maps(single.coarse_maps, (64, 48)), single.sensitivity_maps)


def test_bad_scans_become_failed_scans_with_on_error_skip(tmp_path, make_file):
    bad, good = make_file(tmp_path / "bad.h5"), make_file(tmp_path / "good.h5")
    data = groups(bad, good, on_error="skip", failed=[FailedScan("worse.h5", "cut short")])
    edit(bad, "kspace", lambda k: k.fill(np.nan))
    items = [data[i] for i in range(len(data))]
    assert isinstance(items[0], FailedScan)
    assert items[0].file == "bad.h5"
    assert items[1].info[0].file == "good.h5"
    assert items[2] == FailedScan("worse.h5", "cut short")


def test_errors_of_the_physics_name_the_file(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"^a\.h5: sensitivity maps need more than 6"):
        groups(path, mask=GaussianMask(4, calibration_lines=0))[0]
    with pytest.raises(InputError, match=r"^a\.h5: calibration lines must fit"):
        groups(path, mask=GaussianMask(4))[0]


def test_counts_must_be_positive(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    with pytest.raises(InputError, match="max_slices must be at least 1, got 0"):
        groups(path, max_slices=0)
    with pytest.raises(InputError, match="slices_at_once must be at least 1, got 0"):
        groups(path, slices_at_once=0)


def test_mask_of_another_package_serves_and_its_faults_name_class_and_file(tmp_path, make_file):
    class Third:
        def __call__(self, n_columns, padding, seed):
            columns = torch.zeros(n_columns, dtype=torch.bool)
            columns[padding[0] : padding[1] : 3] = True
            columns[n_columns // 2 - 4 : n_columns // 2 + 4] = True
            return columns

    class Rows(Third):
        def __call__(self, n_columns, padding, seed):
            return super().__call__(n_columns, padding, seed)[None]

    path = make_file(tmp_path / "a.h5")
    batch = groups(path, mask=Third())[0]
    assert torch.equal(batch.mask[0, 0], Third()(48, (2, 46), 0))
    with pytest.raises(InputError, match=r"a\.h5: a mask must be .* got Tensor \(1, 48\)"):
        groups(path, mask=Rows())[0]


def test_target_readout_gives_the_rows_of_the_target_and_the_same_images(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    whole, part = (groups(path, readout=readout)[0] for readout in ("all", "target"))
    rows = slice(16, 48)  # 32 of 64
    assert part.masked_kspace.shape == part.sensitivity_maps.shape == (2, 4, 32, 48)
    assert torch.equal(part.mask, whole.mask[:, rows])
    assert bool((part.masked_kspace[~part.mask[:, None].expand(-1, 4, -1, -1)] == 0).all())
    torch.testing.assert_close(part.sensitivity_maps, whole.sensitivity_maps[:, :, rows])
    assert torch.equal(part.scale, whole.scale)
    operators = Measurement.of(part), Measurement.of(whole)
    zero_filled = [operator.zero_filled for operator in operators]
    torch.testing.assert_close(zero_filled[0], zero_filled[1][:, rows], atol=1e-6, rtol=1e-4)
    normal = [o.normal(image) for o, image in zip(operators, zero_filled, strict=True)]
    torch.testing.assert_close(normal[0], normal[1][:, rows], atol=1e-6, rtol=1e-4)
    maps = interpolate_maps(part.coarse_maps, (part.readout, 48), 32)
    torch.testing.assert_close(maps, part.sensitivity_maps)


@pytest.mark.parametrize("calibration", ["drawn", "nominal"])
def test_virtual_coils_give_nearly_the_same_image_with_fewer_coils(
    tmp_path, make_file, calibration
):
    path = make_file(tmp_path / "a.h5", shape=(1, 8, 64, 48))
    whole = groups(path, calibration=calibration)[0]
    few = groups(path, calibration=calibration, virtual_coils=5)[0]
    more = groups(path, calibration=calibration, virtual_coils=8)[0]
    assert few.masked_kspace.shape == few.sensitivity_maps.shape == (1, 5, 64, 48)
    assert torch.equal(more.masked_kspace, whole.masked_kspace)
    images = [Measurement.of(batch).zero_filled.abs() for batch in (few, whole)]
    assert (images[0] - images[1]).norm() / images[1].norm() < 0.1
    assert few.masked_kspace.norm() <= whole.masked_kspace.norm()
