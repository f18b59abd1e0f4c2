import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from mrisem.config.compose import compose
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
def test_train_checkpoint_is_whole_and_warm_starts(mrisem, data, tmp_path, model):
    train = ["train", *data, f"model={model}", "data.train_subjects=auxiliary"]
    code, out, err = mrisem(*train, f"output_dir={tmp_path}/t")
    assert code == 0, err
    (checkpoint,) = (tmp_path / "t" / "checkpoints").glob("*.ckpt")
    assert checkpoint.name == "last.ckpt"
    assert str(checkpoint) in out
    module, name, sizes = NETWORKS[model]
    script = ROUND_TRIP.format(module=module, name=name, sizes=sizes)
    again = tmp_path / "again.pt"
    subprocess.run([sys.executable, "-c", script, str(checkpoint), str(again)], check=True)
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


def test_train_goes_on_from_its_last_checkpoint(mrisem, data, tmp_path):
    train = ["train", *data, "model=unet", "data.train_subjects=auxiliary"]
    assert mrisem(*train, f"output_dir={tmp_path}/t")[0] == 0
    code, _, err = mrisem(*train, "scale.train.epochs=2", f"output_dir={tmp_path}/t")
    assert code == 0, err
    last = torch.load(tmp_path / "t" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    # the rate falls to zero over the new length: over the old one it would have risen again
    (schedule,), optimizer = last["lr_schedulers"], last["optimizer_states"][0]
    assert schedule["last_epoch"] == last["global_step"]
    assert optimizer["param_groups"][0]["lr"] < 1e-3 * schedule["base_lrs"][0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["model=inr"], "model=inr is not trained over a dataset"),
        (["model=zero_filled"], "model=zero_filled is not trained over a dataset"),
        (
            ["prior=image_same", "data.train_subjects=auxiliary"],
            "may not train on the bank's own subjects",
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
