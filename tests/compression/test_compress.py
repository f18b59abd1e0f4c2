"""`mrisem compress` from the command line, and its encoders in a prior."""

import json

import h5py
import pytest

SMALL = {
    "student": [
        "compression.channels=2",
        "compression.n_batches=2",
        "compression.steps=3",
        "compression.rounds=2",
    ],
    "pruned": ["compression=pruned", "compression.rounds=1"],
}


@pytest.fixture
def words(simulated):
    data = ["data=brain", f"data.root={simulated / 'brain'}", "data.acquisition=AXT2"]
    return [*data, "scale=smoke", "encoder=alexnet", "encoder.levels=[2]"]


@pytest.mark.parametrize("kind", SMALL)
def test_compress_makes_an_encoder_that_guides(mrisem, words, tmp_path, kind):
    folder = tmp_path / "made"
    compress = ["compress", *words, *SMALL[kind], f"output_dir={folder}"]
    code, out, err = mrisem(*compress)
    assert code == 0, err
    assert not err
    for said in ("made of images of 1 subjects; measured on 1 others", "cosine of tokens",
                 "separation  level 2: ", "GFLOP", f"encoder={kind} encoder.path="):  # fmt: skip
        assert said in out
    names = {path.name for path in folder.iterdir()} - {".hydra", ".lock"}
    assert names == {"encoder.json", "encoder.safetensors"}
    facts = json.loads((folder / "encoder.json").read_text())
    assert facts["measures"]["flops"][0] > 2.5 * facts["measures"]["flops"][1]
    assert mrisem(*compress)[:2] == (0, out)  # nothing is left to do
    code, _, err = mrisem(*compress, "prior.temperature=0.1")
    assert code == 1
    assert err.count("\n") == 1
    assert "holds another compression, its prior was" in err

    guided = [*words, f"encoder={kind}", f"encoder.path={folder}", "prior=image_same"]
    code, out, err = mrisem("reconstruct", *guided, f"output_dir={tmp_path / 'run'}")
    assert code == 0, err
    assert "0 scans failed" in out
    code, _, err = mrisem("bank", *guided, "encoder.levels=[3]")
    assert code == 1
    assert f"the {kind} network of {folder} was made for levels [2], got [3]" in err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["auxiliary.n_subjects=1"], "measures are taken on held-out subjects, got 1 subjects"),
        (["held_out=1.0"], "held_out must be less than 1"),
        (["held_out=0.0"], "held_out must be greater than 0"),
        (["compression=pruned", "compression.cost=1.5"], "compression.cost must be less than 1"),
        (["compression=pruned", "compression.cost=1e-6"], "compression.cost must be at least"),
        (["compression=pruned", "compression.steps=3"], "compression.steps"),
        (["compression=pruned", "encoder=janus_mini"], "channels are pruned of VGG16 or AlexNet"),
        (["data.acquisition=null"], "set data.acquisition"),
        (["prior=none"], "needs a prior of the image route, got prior=none"),
        (["prior=image_language"], "needs a prior of the image route, got prior=image_language"),
        (["encoder=student"], "must be a folder with encoder.json and encoder.safetensors"),
    ],
)
def test_compress_refuses_wrong_input_in_one_line(mrisem, words, tmp_path, wrong, said):
    if any(word.startswith(("encoder=", "prior=")) for word in wrong):
        words = [word for word in words if not word.startswith("encoder")]
    code, out, err = mrisem("compress", *words, *wrong, f"output_dir={tmp_path / 'run'}")
    assert code == 1, out
    assert err.count("\n") == 1, err
    assert said in err


def test_training_with_a_prior_reconstructs_in_one_pass(mrisem, words, tmp_path):
    """The prior is a loss of the training; later neither encoder nor bank is needed."""
    train = ["auxiliary.n_subjects=1", "objective=self_supervised", "data.max_slices=1"]
    for prior, used in (("none", words[:4]), ("image_same", words)):
        place = f"output_dir={tmp_path / prior}"
        code, _, err = mrisem("train", *used, *train, f"prior={prior}", place)
        assert code == 0, err
        start = f"model.checkpoint={tmp_path / prior / 'checkpoints' / 'last.ckpt'}"
        one_pass = [*words[:4], "data.max_slices=1", "fit=none", start]
        code, out, err = mrisem("reconstruct", *one_pass, f"output_dir={tmp_path / 'r' / prior}")
        assert code == 0, err
        assert "unrolled as trained: 1 slices reconstructed" in out
        assert not (tmp_path / "r" / prior / "fit.csv").exists()
    images = []
    for prior in ("none", "image_same"):
        (path,) = (tmp_path / "r" / prior / "reconstructions").glob("*.h5")
        with h5py.File(path) as file:
            images.append(file["reconstruction"][()])
    assert abs(images[0] - images[1]).max() > 0
