import json

import h5py
import numpy as np
import pytest
import torch

from mrisem.config.compose import compose
from mrisem.tasks.callbacks.training import find_saved
from mrisem.verbs.pieces import new_task

ROUND_TRIP = """
import sys, torch
from mrisem.networks import {module}
network = {module}.{name}({sizes})
weights = torch.load(sys.argv[1], weights_only=True)["state_dict"]
network.load_state_dict({{n.removeprefix("network."): v for n, v in weights.items()}})
torch.save(dict(network.state_dict()), sys.argv[2])
"""
NETWORKS = {
    "unrolled": ("unrolled", "Unrolled", "2, 4, 2"),
    "unet": ("unet", "Unet", "4, 2"),
    "varnet": ("varnet", "EndToEndVarNet", "2, 4, 2, 2, 2"),
}


@pytest.fixture
def data(simulated):
    select = ["data.max_slices=1", "data.acquisition=AXT2"]
    return ["data=brain", f"data.root={simulated / 'brain'}", "scale=smoke", *select]


def image_of(folder):
    (path,) = (folder / "reconstructions").glob("*.h5")
    with h5py.File(path) as file:
        return file["reconstruction"][()]


@pytest.mark.parametrize("model", NETWORKS)
def test_train_checkpoint_is_whole_and_warm_starts(fork, mrisem, data, tmp_path, model):
    train = ["train", *data, f"model={model}", "data.train_subjects=auxiliary"]
    code, out, err = mrisem(*train, f"output_dir={tmp_path}/t")
    assert code == 0, err
    (checkpoint,) = (tmp_path / "t" / "checkpoints").glob("*.ckpt")
    assert checkpoint.name == "last.ckpt"
    assert str(checkpoint) in out
    module, name, sizes = NETWORKS[model]
    script, again = tmp_path / "round_trip.py", tmp_path / "again.pt"
    script.write_text(ROUND_TRIP.format(module=module, name=name, sizes=sizes))
    process = fork(script, checkpoint, again)
    _, err = process.communicate()
    assert process.returncode == 0, err
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    for key, value in torch.load(again, weights_only=True).items():
        assert torch.equal(saved.pop(f"network.{key}"), value)
    assert saved == {}  # nothing of an encoder or a bank, nothing else

    run = ["reconstruct", *data, f"model={model}"]
    task = new_task(compose("reconstruct", [f"model={model}", "scale=smoke", "output_dir=x"]))
    torch.save({"state_dict": task.state_dict()}, tmp_path / "untrained.ckpt")
    trained = ["fit=none", f"model.checkpoint={checkpoint}"]
    untrained = ["fit=none", f"model.checkpoint={tmp_path}/untrained.ckpt"]
    for key, options in (("trained", trained), ("untrained", untrained)):
        code, _, err = mrisem(*run, *options, f"output_dir={tmp_path}/{key}")
        assert code == 0, err
    assert not np.allclose(image_of(tmp_path / "trained"), image_of(tmp_path / "untrained"))
    wider = f"scale.{model}.channels=8"
    code, _, err = mrisem(*run, *trained, wider, f"output_dir={tmp_path}/x")
    assert code == 1
    assert "does not fit" in err


@pytest.mark.parametrize(
    "options",
    [
        ["objective=self_supervised"],
        ["objective=self_supervised", "prior=image_same", "prior.balance=0.1"],
        ["prior=image_same", "regulariser=tv"],
    ],
)
def test_train_takes_objectives_regularisers_and_priors(mrisem, data, tmp_path, options):
    train = ["train", *data, "model=unet", "auxiliary.n_subjects=1", *options]
    code, _, err = mrisem(*train, f"output_dir={tmp_path}/t")
    assert code == 0, err
    header = (tmp_path / "t" / "metrics.csv").read_text().splitlines()[0].split(",")
    wanted = {"train/data_consistency_step"} if "self" in options[0] else {"train/l1_step"}
    wanted |= {"train/semantic_step"} if any("prior=" in o for o in options) else set()
    assert wanted <= set(header)
    saved = torch.load(tmp_path / "t" / "checkpoints" / "last.ckpt", weights_only=True)[
        "state_dict"
    ]
    assert all(name.startswith("network.") for name in saved)


def stop_after_an_epoch(monkeypatch):
    """Interrupt the training as soon as the next epoch begins."""
    from mrisem.signals import Interrupted
    from mrisem.tasks.callbacks.training import TrainingWriter

    write = TrainingWriter.on_train_epoch_end

    def then_stop(self, trainer, module):
        write(self, trainer, module)
        raise Interrupted(15)

    monkeypatch.setattr(TrainingWriter, "on_train_epoch_end", then_stop)


def weights(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


@pytest.mark.filterwarnings("ignore:.*last.ckpt must be a whole checkpoint")
def test_train_goes_on_from_its_last_checkpoint(mrisem, data, tmp_path, monkeypatch):
    train = ["train", *data, "model=unet", "data.train_subjects=auxiliary", "scale.train.epochs=3"]
    assert mrisem(*train, f"output_dir={tmp_path}/whole")[0] == 0
    with monkeypatch.context() as patch:
        stop_after_an_epoch(patch)
        for epochs in (1, 2):
            code, _, err = mrisem(*train, f"output_dir={tmp_path}/t")
            assert code == 143
            assert f"interrupted by SIGTERM: {epochs} epochs are kept" in err
            job = json.loads((tmp_path / "t" / ".hydra" / "train" / "job.json").read_text())
            assert job["state"] == "interrupted"
    # a damaged checkpoint falls back to the one before
    last = tmp_path / "t" / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    with pytest.warns(UserWarning, match=r"last.ckpt must be .* continues from before.ckpt"):
        assert find_saved(tmp_path / "t").epochs == 1
    code, out, err = mrisem(*train, f"output_dir={tmp_path}/t")
    assert code == 0, err
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "t")[name], value), name
    tables = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "t")]
    assert tables[0] == tables[1]
    before = last.stat().st_mtime_ns
    code, out, _ = mrisem(*train, f"output_dir={tmp_path}/t")
    assert code == 0
    assert "has all 3 epochs: the training is complete" in out
    assert last.stat().st_mtime_ns == before
    for word, said in (
        ("mask.acceleration=3", "mask.acceleration=4.0 there, 3.0 now"),
        ("scale.train.batch_size=3", "batch_size"),
        ("+trainer.limit_train_batches=1", "trainer.limit_train_batches"),
    ):
        code, _, err = mrisem(*train, word, f"output_dir={tmp_path}/t")
        assert code == 1
        assert said in err


def test_train_never_runs_what_a_checkpoint_pickles(mrisem, data, tmp_path):
    train = ["train", *data, "model=unet", "data.train_subjects=auxiliary"]
    assert mrisem(*train, f"output_dir={tmp_path}/t")[0] == 0
    canary = tmp_path / "canary"

    class Canary:
        def __reduce__(self):
            return open, (str(canary), "w")

    for name in ("last", "before"):
        torch.save({"state_dict": Canary()}, tmp_path / "t" / "checkpoints" / f"{name}.ckpt")
    code, _, err = mrisem(*train, f"output_dir={tmp_path}/t")
    assert code == 1
    assert "remove it to train from the start" in err
    assert not canary.exists()


def test_train_leaves_bad_files_out_when_told_to(mrisem, simulated, tmp_path):
    root = tmp_path / "brain"
    for split in ("train", "val"):
        (root / f"multicoil_{split}").mkdir(parents=True)
        for path in (simulated / "brain" / f"multicoil_{split}").glob("*AXT2*.h5"):
            (root / f"multicoil_{split}" / path.name).write_bytes(path.read_bytes())
    names = sorted((root / "multicoil_train").glob("*.h5"))
    with h5py.File(names[0], "r+") as file:
        file["kspace"][0, 0, 0, 0] = np.nan
    data = ["data=brain", f"data.root={root}", "scale=smoke", "auxiliary.n_subjects=2"]
    train = ["train", *data, "model=unet", "data.train_subjects=auxiliary"]
    code, _, err = mrisem(*train, f"output_dir={tmp_path}/raise")
    assert code == 1
    assert "kspace must be finite" in err
    code, out, _ = mrisem(*train, "on_error=skip", f"output_dir={tmp_path}/skip")
    assert code == 2
    assert f"left out {names[0].name} [0]: kspace must be finite" in out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["model=inr"], "trained over a data set, got inr"),
        (["model=zero_filled"], "trained over a data set, got zero_filled"),
        (
            ["prior=image_same", "data.train_subjects=auxiliary"],
            "must leave out the bank's subjects",
        ),
        (["objective=self_supervised", "objective.n_splits=0"], "n_splits must be at least 1"),
    ],
)
def test_train_refuses_what_does_not_go_together(mrisem, data, tmp_path, options, reason):
    code, _, err = mrisem("train", *data, *options, f"output_dir={tmp_path}/t")
    assert code == 1
    assert reason in err.splitlines()[-1]


def test_train_takes_different_sizes_and_coil_counts_in_one_dataset(mrisem, simulated, tmp_path):
    root = tmp_path / "brain"
    for split in ("train", "val"):
        (root / f"multicoil_{split}").mkdir(parents=True)
        for path in (simulated / "brain" / f"multicoil_{split}").glob("*AXT2*.h5"):
            copy = root / f"multicoil_{split}" / path.name
            copy.write_bytes(path.read_bytes())
    first = min((root / "multicoil_train").glob("*.h5"))
    with h5py.File(first, "r+") as file:  # fewer coils, an odd height
        kspace = file["kspace"][()][:, :3, 1:]
        del file["kspace"]
        file["kspace"] = kspace
    data = ["data=brain", f"data.root={root}", "scale=smoke"]
    options = ["data.train_subjects=auxiliary", "auxiliary.n_subjects=2"]
    code, _, err = mrisem("train", *data, *options, f"output_dir={tmp_path}/t")
    assert code == 0, err


def test_train_selects_on_held_out_training_subjects(mrisem, data, tmp_path):
    train = ["train", *data, "auxiliary.n_subjects=1", "data.train_subjects=auxiliary"]
    code, out, err = mrisem(*train, "data.validation_subjects=1", f"output_dir={tmp_path}/t")
    assert code == 0, err
    assert "best val/ssim_loss" in out
    names = {path.name for path in (tmp_path / "t" / "checkpoints").glob("*.ckpt")}
    assert names == {"best.ckpt", "last.ckpt"}
