from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from pytorch_lightning import LightningModule, Trainer

from mrisem.data.anatomies import FastMRIBrain, FastMRIKnee
from mrisem.data.auxiliary import AuxiliarySettings
from mrisem.errors import InputError
from mrisem.physics.masks import GaussianMask
from mrisem.types import Batch, FailedScan

MASK = GaussianMask(4, calibration_lines=8)
SHAPE = {"shape": (2, 2, 32, 48), "crop": (16, 16)}
CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def root(tmp_path, make_file):
    """Six training subjects with two contrasts, one of whom is in the validation set as well."""
    for i in range(6):
        for name in ("AXT1", "AXT2"):
            path = tmp_path / "multicoil_train" / f"train_{i}_{name}.h5"
            make_file(path, acquisition=name, subject=f"s{i}", **SHAPE)
    for subject in ("s0", "v1", "v2"):
        path = tmp_path / "multicoil_val" / f"val_{subject}.h5"
        make_file(path, acquisition="AXT2", subject=subject, **SHAPE)
    return tmp_path


def subjects(slices):
    return {part.volume.subject for part in slices}


def test_no_subject_plays_two_parts(root):
    data = FastMRIBrain(root, MASK, auxiliary={"n_subjects": 2})
    data.setup("fit")
    reconstructed = subjects(data.slices)
    trained = subjects(data.train_dataloader().dataset.slices)
    auxiliary = {v.subject for a in ("AXT1", "AXT2") for v in data.auxiliary_slices(a).volumes}
    assert reconstructed == {"s0", "v1", "v2"}
    assert len(auxiliary) == 2
    assert len(trained) == 3
    assert not reconstructed & trained
    assert not reconstructed & auxiliary
    assert not trained & auxiliary


@pytest.mark.parametrize("train_subjects", ["remaining", "auxiliary"])
@pytest.mark.parametrize("seed", range(4))
def test_validation_subjects_play_no_other_part(root, train_subjects, seed):
    data = FastMRIBrain(
        root,
        MASK,
        auxiliary={"n_subjects": 2},
        train_subjects=train_subjects,
        validation_subjects=2,
        seed=seed,
    )
    data.setup("fit")
    validated = subjects(data.val_dataloader().dataset.slices)
    trained = subjects(data.train_dataloader().dataset.slices)
    auxiliary = {v.subject for a in ("AXT1", "AXT2") for v in data.auxiliary_slices(a).volumes}
    assert len(validated) == 2
    assert not validated & (trained | auxiliary | subjects(data.slices))
    expected = auxiliary if train_subjects == "auxiliary" else {f"s{i}" for i in range(1, 6)}
    assert trained == expected - validated - (auxiliary - trained)


def test_validation_subjects_do_not_change_with_other_files(root, make_file):
    def chosen(**options):
        data = FastMRIBrain(
            root, MASK, auxiliary={"n_subjects": 1}, validation_subjects=2, **options
        )
        return subjects(data.val_dataloader().dataset.slices)

    before = chosen()
    assert {frozenset(chosen(seed=seed)) for seed in range(8)} > {frozenset(before)}
    data = FastMRIBrain(root, MASK, auxiliary={"n_subjects": 1}, validation_subjects=2)
    dropped = sorted(subjects(data.train_dataloader().dataset.slices))[0]
    for path in (root / "multicoil_train").glob(f"train_{dropped[1]}_*"):
        path.unlink()
    assert chosen() == before


def test_training_never_looks_into_other_folders_than_multicoil_train(root):
    for path in (root / "multicoil_val").iterdir():
        path.unlink()
    (root / "multicoil_val").rmdir()
    data = FastMRIBrain(root, MASK, auxiliary={"n_subjects": 2}, validation_subjects=1)
    data.setup("fit")
    assert data.reconstructed_acquisitions == ["AXT1", "AXT2"]
    held_out = data.val_dataloader().dataset.slices
    assert {part.volume.path.parent.name for part in held_out} == {"multicoil_train"}


def test_training_keeps_what_reconstruct_takes_out_of_validation(root):
    data = FastMRIBrain(root, MASK, auxiliary={"n_subjects": 1}, validation_subjects=3)
    data.setup("fit")
    paths = {part.volume.path for part in data.slices}
    assert not paths & {part.volume.path for part in data.val_dataloader().dataset.slices}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_subjects": 3}, "hold 3 validation subjects and at least one to train on"),
        ({"validation_subjects": 4, "train_subjects": "auxiliary"}, "subjects beside .*, got 3"),
    ],
)
def test_validation_subjects_must_be_there(root, options, message):
    with pytest.raises(InputError, match=message):
        FastMRIBrain(root, MASK, auxiliary={"n_subjects": 2}, **options).setup("fit")


def test_sensitivity_maps_are_chosen_by_name(root):
    data = FastMRIBrain(root, MASK, sensitivity_maps="sigpy")
    assert data.predict_dataloader().dataset.sensitivity_maps == "sigpy"
    with pytest.raises(InputError, match="must lie in a file, got bart"):
        next(iter(FastMRIBrain(root, MASK, sensitivity_maps="bart").predict_dataloader()))


def test_training_on_the_auxiliary_subjects_is_named(root):
    data = FastMRIBrain(
        root, MASK, auxiliary={"n_subjects": 2}, train_subjects="auxiliary", acquisition="AXT2"
    )
    trained = subjects(data.train_dataloader().dataset.slices)
    assert trained == {v.subject for v in data.auxiliary_slices("AXT2").volumes}


def test_training_needs_subjects_beside_the_auxiliary_ones(root):
    data = FastMRIBrain(root, MASK, auxiliary={"n_subjects": 9})
    with pytest.raises(InputError, match=r"set data\.train_subjects=auxiliary"):
        data.setup("fit")


def test_auxiliary_subjects_do_not_change_with_other_files(root, make_file):
    settings = {"n_subjects": 3}
    chosen = FastMRIBrain(root, MASK, auxiliary=settings).auxiliary_slices("AXT2").volumes
    other = FastMRIBrain(root, MASK, auxiliary={**settings, "seed": 5})
    assert {v.subject for v in chosen} != {v.subject for v in other.auxiliary_slices().volumes}
    dropped = ({f"s{i}" for i in range(1, 6)} - {v.subject for v in chosen}).pop()
    (root / "multicoil_train" / f"train_{dropped[1]}_AXT2.h5").unlink()
    again = FastMRIBrain(root, MASK, auxiliary=settings).auxiliary_slices("AXT2").volumes
    assert [v.subject for v in again] == [v.subject for v in chosen]


@pytest.mark.parametrize(
    ("settings", "contrast", "expected"),
    [({}, "same", "AXT2"), ({}, "cross", "AXT1"), ({"acquisition": "AXT1"}, "same", "AXT1")],
)
def test_auxiliary_contrast_is_the_scans_own_or_another(root, settings, contrast, expected):
    data = FastMRIBrain(root, MASK, auxiliary=settings)
    assert data.reconstructed_acquisitions == ["AXT2"]
    chosen = data.auxiliary_slices(contrast=contrast)
    assert {v.acquisition for v in chosen.volumes} == {expected}


def test_auxiliary_errors_say_what_was_found(root):
    data = FastMRIBrain(root, MASK, auxiliary={"acquisition": "AXFLAIR"})
    with pytest.raises(InputError, match=r"AXFLAIR scans, got \['AXT1', 'AXT2'\]"):
        data.auxiliary_slices()
    data = FastMRIBrain(root, MASK, split="train", acquisition="AXT2")
    with pytest.raises(InputError, match="neither reconstructed nor in another split"):
        data.auxiliary_slices()
    with pytest.raises(InputError, match="serves scans of one acquisition"):
        FastMRIBrain(root, MASK, split="train").auxiliary_slices()
    with pytest.raises(InputError, match=r"one of \['same', 'cross', 'mixed'\], got 'other'"):
        FastMRIBrain(root, MASK).auxiliary_slices(contrast="other")


def test_subjects_of_other_folders_are_left_out_whatever_their_acquisition(root, make_file):
    make_file(root / "multicoil_test" / "a.h5", acquisition="OTHER", subject="s1", **SHAPE)
    (root / "multicoil_test" / "c.h5").write_bytes(b"")
    data = FastMRIBrain(root, MASK, auxiliary={"n_subjects": 9})
    chosen = {volume.subject for volume in data.auxiliary_slices("AXT2").volumes}
    assert chosen == {"s2", "s3", "s4", "s5"}


def test_auxiliary_root_may_be_another_data_set(root, tmp_path, make_file):
    other = tmp_path / "other"
    for subject in ("v1", "t1"):
        make_file(other / "multicoil_train" / f"{subject}.h5", subject=subject, **SHAPE)
    data = FastMRIBrain(root, MASK, auxiliary=AuxiliarySettings(root=str(other)))
    assert [v.subject for v in data.auxiliary_slices().volumes] == ["t1"]


def test_skip_leaves_finished_slices_out(root):
    data = FastMRIBrain(root, MASK, max_volumes=1)
    assert [(p.volume.file, p.slice) for p in data.slices] == [("val_s0.h5", 0), ("val_s0.h5", 1)]
    data.skip({("val_s0.h5", 0)})
    (batch,) = data.predict_dataloader()
    assert [(i.slice, i.n_slices) for i in batch.info] == [(1, 2)]


def test_bad_files_reach_the_predict_loop_as_failed_scans(root):
    (root / "multicoil_val" / "broken.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"broken\.h5"):
        FastMRIBrain(root, MASK).setup("predict")
    items = list(FastMRIBrain(root, MASK, on_error="skip").predict_dataloader())
    assert [type(item) for item in items] == [Batch, Batch, Batch, FailedScan]


class Recorder(LightningModule):
    def predict_step(self, batch):
        return batch


# Lightning's own, about the number of workers and about PyTorch's tree specifications.
@pytest.mark.filterwarnings("ignore:.*many workers", "ignore:.*LeafSpec.*:FutureWarning")
def test_lightning_predicts_over_the_data_module(root, tmp_path):
    data = FastMRIBrain(root, MASK, acquisition="AXT2", on_error="skip", slices_at_once=1)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    batches = trainer.predict(Recorder(), data)
    assert [b.info[0].slice for b in batches] == [0, 1] * 3
    assert all(torch.isfinite(b.masked_kspace.abs()).all() for b in batches)


class Trained(LightningModule):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.validated = []

    def training_step(self, batch):
        return self.gain * batch.masked_kspace.abs().mean()

    def validation_step(self, batch):
        self.validated.append(batch.info[0].subject)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings(
    "ignore:.*many workers",
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:Total length of `list` across ranks is zero",
)
@pytest.mark.parametrize("n_validated", [0, 1])
def test_lightning_fits_with_and_without_validation_subjects(root, tmp_path, n_validated):
    data = FastMRIBrain(
        root, MASK, auxiliary={"n_subjects": 2}, validation_subjects=n_validated, max_slices=1
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    module = Trained()
    trainer.fit(module, data)
    assert trainer.global_step == 2 * (3 - n_validated)  # two contrasts of each subject
    assert len(module.validated) == 2 * n_validated


def test_validation_has_a_limit_of_its_own(root):
    options = {"auxiliary": {"n_subjects": 2}, "validation_subjects": 1}

    def counts(**limits):
        data = FastMRIBrain(root, MASK, **options, **limits)
        return len(data.training_slices), len(data.validation_slices)

    assert counts() == (8, 4)  # two subjects and one, of two contrasts and slices each
    assert counts(max_validation_slices=1) == (8, 2)
    assert counts(max_slices=1) == (4, 2)
    assert counts(max_slices=1, max_validation_slices=2) == (4, 4)
    with pytest.raises(InputError, match=r"without such subjects; set data\.validation_subj"):
        FastMRIBrain(root, MASK, max_validation_slices=1)


def test_root_and_names_are_checked(tmp_path):
    with pytest.raises(InputError, match=r"got none; set data\.root"):
        FastMRIBrain(None, MASK)
    with pytest.raises(InputError, match="does not exist"):
        FastMRIBrain(tmp_path / "nowhere", MASK).setup("predict")


@pytest.mark.parametrize("path", sorted(CONF.glob("mask/*.yaml")), ids=lambda path: path.stem)
def test_mask_configs_make_masks(path):
    from hydra.utils import instantiate

    values = yaml.safe_load(path.read_text())
    assert values.pop("name") == path.stem
    mask = instantiate(values)
    if path.stem != "from_file":
        assert 60 <= int(mask(368, (0, 368), 0).sum()) <= 125


@pytest.mark.parametrize("path", sorted(CONF.glob("data/*.yaml")), ids=lambda path: path.stem)
def test_data_configs_make_data_modules(path, root):
    from hydra.utils import instantiate

    values = yaml.safe_load(path.read_text())
    assert values.pop("name") == path.stem
    assert values.pop("defaults") == ["/schema/data@_here_", "_self_"]
    values.pop("paper_subjects", None)
    data = instantiate({**values, "root": str(root)}, mask=MASK, auxiliary={"n_subjects": 2})
    assert data.anatomy == path.stem


@pytest.mark.parametrize(("cls", "shape"), [(FastMRIBrain, (256, 256)), (FastMRIKnee, (320, 332))])
def test_measured_files_become_batches(real_data, cls, shape):
    (batch,) = cls(real_data / cls.anatomy, GaussianMask()).predict_dataloader()
    assert batch.masked_kspace.shape[2:] == shape
    assert batch.info[0].acceleration == 4
    assert batch.target.shape[1:] == batch.crop


def test_datamodule_training_epochs_have_masks_and_orders_of_their_own(simulated):

    module = FastMRIBrain(
        simulated / "brain", GaussianMask(4), acquisition="AXT2", train_subjects="auxiliary"
    )
    module.setup("fit")

    def epoch(number):
        module.trainer = at_epoch(number)
        batches = list(module.train_dataloader())
        return {b.info[0].file: b.mask[0, 0] for b in batches}

    first, again, second = epoch(0), epoch(0), epoch(1)
    assert first.keys() == second.keys()
    assert list(first) == list(again)
    assert all(torch.equal(first[file], again[file]) for file in first)
    assert any(not torch.equal(first[file], second[file]) for file in first)


def epoch_batches(module, number):
    module.trainer = at_epoch(number)
    return list(module.train_dataloader())


def at_epoch(number, rank=0, n=1):
    """What a data module asks of its trainer, one of ``n``."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(current_epoch=number, strategy=strategy, global_rank=rank, world_size=n)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_processes_of_a_training_share_each_epoch_and_validate_on_all(root, n):
    def slices(loader):
        parts = loader.dataset.groups
        return [(s.volume.file, s.slice) for i in loader.sampler for s in parts[i]]

    options = {"auxiliary": {"n_subjects": 2}, "validation_subjects": 1, "slices_at_once": 1}
    data = FastMRIBrain(root, MASK, **options)
    data.setup("fit")
    data.trainer = at_epoch(3)
    alone = slices(data.train_dataloader())
    shares, validated = [], []
    for rank in range(n):
        data.trainer = at_epoch(3, rank, n)
        shares.append(slices(data.train_dataloader()))
        validated.append(slices(data.val_dataloader()))
    assert len({len(share) for share in shares}) == 1
    together = [part for step in zip(*shares, strict=True) for part in step]
    assert together[: len(alone)] == alone
    assert len(together) < len(alone) + n
    assert all(v == validated[0] for v in validated)
    assert len(validated[0]) == 4


def training(root, tmp_path, **options):
    module = FastMRIBrain(root, MASK, auxiliary={"n_subjects": 2}, **options)
    module.setup("fit")
    return module


# PyTorch's own, where a machine has fewer processors than readers.
@pytest.mark.filterwarnings("ignore:.*worker processes:UserWarning")
@pytest.mark.parametrize("n_workers", [0, 2])
def test_epoch_depends_on_its_number_and_the_seed_alone(root, tmp_path, n_workers):
    reference = epoch_batches(training(root, tmp_path), 3)
    module = training(root, tmp_path, n_workers=n_workers)
    for number in range(3):
        epoch_batches(module, number)
    later = epoch_batches(module, 3)
    assert [b.info for b in later] == [b.info for b in reference]
    for one, other in zip(later, reference, strict=True):
        for name in ("mask", "masked_kspace", "sensitivity_maps"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_sensitivity_maps_of_training_slices_are_estimated_once(root, tmp_path, monkeypatch):
    from mrisem.physics.coils import ESTIMATORS

    estimated, ours = [], ESTIMATORS["torch"]

    def counted(calibration):
        estimated.extend([calibration.shape[-1]] * len(calibration))
        return ours(calibration)

    monkeypatch.setitem(ESTIMATORS, "torch", counted)
    module = training(root, tmp_path, cache_folder=tmp_path / "cache")
    first = epoch_batches(module, 0)
    # of the mask's nominal lines, not those found beside them; all files hold the same two slices
    assert estimated == [8] * 2
    second = epoch_batches(module, 1)
    assert len(estimated) == 2
    maps = {
        (i.file, i.slice): m for b in first for i, m in zip(b.info, b.sensitivity_maps, strict=True)
    }
    masks = {b.info[0].file: b.mask for b in first}
    for batch in second:
        for info, sensitivity in zip(batch.info, batch.sensitivity_maps, strict=True):
            torch.testing.assert_close(sensitivity, maps[info.file, info.slice])
    assert any(not torch.equal(b.mask, masks[b.info[0].file]) for b in second)


def test_training_survives_bad_slices_and_files(root, tmp_path):
    import h5py

    module = training(root, tmp_path, on_error="skip")
    slices = module.train_dataloader().dataset.slices
    files = sorted({part.volume.path for part in slices})
    for number, path in enumerate(files):
        with h5py.File(path, "a") as file:
            file["kspace"][0 if number else slice(None)] = float("nan") if number else 0
    items = [module.transfer_batch_to_device(i, "cpu", 0) for i in epoch_batches(module, 0)]
    assert sum(isinstance(item, FailedScan) for item in items) == 1
    good = [item for item in items if isinstance(item, Batch)]
    assert {len(item) for item in good} == {1}
    assert all(item.failed[0].slices == (0,) for item in good)
    for path in files:
        path.write_bytes(b"")
    assert all(isinstance(item, FailedScan) for item in epoch_batches(module, 1))


def test_bad_auxiliary_files_are_left_out_with_a_warning(root):
    (root / "multicoil_train" / "broken.h5").write_bytes(b"")
    data = FastMRIBrain(root, MASK, on_error="skip", auxiliary={"n_subjects": 9})
    with pytest.warns(UserWarning, match=r"left out of the auxiliary set: .*broken\.h5"):
        images = data.auxiliary_slices("AXT2")
    assert images.on_error == "skip"
    with pytest.raises(InputError, match=r"broken\.h5"):
        FastMRIBrain(root, MASK).auxiliary_slices("AXT2")
