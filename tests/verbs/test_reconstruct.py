import csv

import h5py
import numpy as np
import pytest
import torch

from mrisem.config.compose import compose
from mrisem.verbs.pieces import new_task

START = "start"  # stands for the checkpoint of an unrolled network
METHODS = {
    "zero_filled": ["model=zero_filled"],
    "l1_wavelet": ["model=l1_wavelet"],
    "unrolled": ["model=unrolled"],
    "unrolled + image_same": ["model=unrolled", "prior=image_same"],
    "unrolled + image_cross": ["model=unrolled", "prior=image_cross"],
    "unrolled + image_language": ["prior=image_language", "prior.n_perturbations=2"],
    "unrolled as trained": ["fit=none"],
    "unrolled lora + image_same": ["fit=lora", "prior=image_same"],
    "unrolled + tv": ["regulariser=tv"],
    "unet + image_same": ["model=unet", "prior=image_same"],
    "unet lora + l1_wavelet": ["model=unet", "fit=lora", "regulariser=l1_wavelet"],
    "unrolled_vit as trained": ["model=unrolled_vit", "fit=none"],
    "unrolled_vit + image_same": ["model=unrolled_vit", "encoder=janus_mini", "prior=image_same"],
    "unrolled_vit lora + tv": ["model=unrolled_vit", "fit=lora", "regulariser=tv"],
    "varnet + image_same": ["model=varnet", "prior=image_same"],
    "varnet lora": ["model=varnet", "fit=lora"],
    "inr + image_same": ["model=inr", "prior=image_same"],
}


@pytest.fixture
def arguments(simulated):
    root = simulated / "knee"
    select = ["data.acquisition=CORPD_FBK", "data.max_slices=1"]
    return ["data=knee", f"data.root={root}", "scale=smoke", *select]


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """model -> checkpoint of its smoke size with random weights, as `mrisem train` writes it."""
    folder = tmp_path_factory.mktemp("starts")
    for model in ("unet", "unrolled", "unrolled_vit", "varnet"):
        task = new_task(compose("reconstruct", [f"model={model}", "scale=smoke", "output_dir=x"]))
        torch.save({"state_dict": task.state_dict()}, folder / f"{model}.ckpt")
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_reconstruct_every_method_runs(mrisem, arguments, starts, tmp_path, method):
    trained = any(word in ("fit=none", "fit=lora") for word in METHODS[method])
    start = [f"model.checkpoint={starts}/{method.split()[0]}.ckpt"] if trained else []
    overrides = [*METHODS[method], *start, f"output_dir={tmp_path}/r"]
    code, out, err = mrisem("reconstruct", *arguments, *overrides)
    assert code == 0, err
    assert out.splitlines()[-1].startswith(f"{method}: 1 slices reconstructed")
    (path,) = (tmp_path / "r" / "reconstructions").glob("*.h5")
    with h5py.File(path) as file:
        assert file.attrs["method"] == method
        assert file["reconstruction"].shape == (1, 96, 96)
        assert np.isfinite(file["reconstruction"][()]).all()
        assert 0 < file["data_consistency"][0] < 1
        assert file["acceleration"][0] == pytest.approx(4, abs=0.1)


def read_curves(folder):
    with (folder / "fit.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_reconstruct_prior_reaches_the_image(mrisem, arguments, tmp_path):
    images = {}
    for weight in (0, 1):
        folder = tmp_path / str(weight)
        code, _, err = mrisem(
            "reconstruct", *arguments, "prior=image_same", f"prior.weight={weight}",
            f"output_dir={folder}",
        )  # fmt: skip
        assert code == 0, err
        (path,) = (folder / "reconstructions").glob("*.h5")
        with h5py.File(path) as file:
            images[weight] = file["reconstruction"][()]
    assert np.abs(images[0] - images[1]).max() > 1e-4 * images[0].max()
    names = {row["name"] for row in read_curves(tmp_path / "1")}
    assert {"data_consistency", "semantic", "gradient_balance"} <= names
    balance = [float(r["value"]) for r in read_curves(tmp_path / "1") if "balance" in r["name"]]
    assert min(balance) > 0
    assert max(balance) <= 1 + 1e-5  # vgg16's limit


def test_reconstruct_goes_on_where_it_stopped(mrisem, arguments, tmp_path):
    run = ["reconstruct", *arguments, "model=zero_filled", f"output_dir={tmp_path}/r"]
    assert mrisem(*run)[0] == 0
    (path,) = (tmp_path / "r" / "reconstructions").glob("*.h5")
    before = path.stat().st_mtime_ns
    code, out, _ = mrisem(*run)
    assert code == 0
    assert "0 slices reconstructed, 1 were there" in out
    code, out, _ = mrisem(*run, "data.max_slices=2")
    assert "1 slices reconstructed, 1 were there" in out
    with h5py.File(path) as file:
        assert len(file["slices"]) == 2
    code, _, err = mrisem(*run, "mask.acceleration=3.5")
    assert code == 1
    assert "another configuration" in err
    assert path.exists()
    code, out, _ = mrisem(*run, "mask.acceleration=3.5", "skip_existing=false")
    assert code == 0
    assert path.stat().st_mtime_ns > before


def test_reconstruct_is_the_same_for_the_same_seed(mrisem, arguments, tmp_path):
    images = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = tmp_path / name
        assert mrisem("reconstruct", *arguments, f"seed={seed}", f"output_dir={folder}")[0] == 0
        (path,) = (folder / "reconstructions").glob("*.h5")
        with h5py.File(path) as file:
            images.append(file["reconstruction"][()])
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_bank_is_built_once_and_described(mrisem, simulated):
    bank = ["bank", "data=brain", f"data.root={simulated / 'brain'}", "scale=smoke"]
    bank += ["data.acquisition=AXT2"]
    code, first, err = mrisem(*bank)
    assert code == 0, err
    assert "4 + 4 entries" in first
    _, second, err = mrisem(*bank)
    assert second == first
    assert "PCA" not in err  # no second build
    _, other, _ = mrisem(*bank, "auxiliary.n_subjects=1")
    assert "2 + 2 entries" in other


def test_doctor_says_what_is_missing_and_writes_nothing(mrisem, simulated, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, out, _ = mrisem("doctor", f"data.root={simulated / 'brain'}")
    assert code == 0
    assert "slices in multicoil_val" in out
    code, out, err = mrisem("doctor", f"data.root={tmp_path / 'nowhere'}")
    assert code == 1
    assert "MISSING" in out
    assert "data" in err
    assert not any((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["prior=image_language", "auxiliary.negatives=both"],
            "takes its images from the prompt, got auxiliary.negatives=both",
        ),
        (["fit=none", "prior=image_same", START], "a prior guides only networks"),
        (["model=tv", "prior=image_same"], "a prior guides only networks"),
        (["model=tv", "regulariser=tv"], "model=tv takes no regulariser"),
        (["fit=lora", "fit.targets=nothing", START], "LoRA targets must name layers"),
    ],
)
def test_reconstruct_refuses_what_does_not_go_together(
    mrisem, arguments, starts, tmp_path, overrides, reason
):
    given = [word.replace(START, f"model.checkpoint={starts}/unrolled.ckpt") for word in overrides]
    code, _, err = mrisem("reconstruct", *arguments, *given, f"output_dir={tmp_path}/r")
    assert code == 1
    assert reason in err.splitlines()[-1]
