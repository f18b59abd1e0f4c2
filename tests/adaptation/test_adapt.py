"""`mrisem adapt` from the command line, and its adapter in a bank."""

import json

import numpy as np
import pytest


@pytest.fixture
def words(janus, pairs, tmp_path):
    """A run of seconds, of a tiny model."""
    small = ["steps=4", "save_every=2", "n_images=4", "rank=2", "batch_size=2"]
    encoder = [f"encoder.path={janus}", "encoder.prior_defaults.components=[4]"]
    return [*small, *encoder, f"earlier={pairs}", f"output_dir={tmp_path / 'run'}"]


def test_adapt_makes_an_adapter_that_names_another_bank(
    mrisem, simulated, words, janus, make_janus, tmp_path
):
    data, other = simulated / "brain", make_janus(1)
    code, out, err = mrisem("adapt", f"root={data}", *words)
    assert code == 0, err
    for said in ("4 steps", "held out", "earlier", "level 1:", "responses:", "encoder.adapter="):
        assert said in out
    log = json.loads((tmp_path / "run" / "adapt.json").read_text())
    assert len(log["losses"]) == 4
    before, after = (log["answers"][when]["held_out"]["all"] for when in ("before", "after"))
    assert after["log_likelihood"] > before["log_likelihood"]

    again = mrisem("adapt", f"root={data}", *words)  # nothing is left to do
    assert again[0] == 0, again[2]
    assert again[1] == out
    code, _, err = mrisem("adapt", f"root={data}", *words, "alpha=5")
    assert code == 1
    assert "holds another adaptation, its alpha is 16.0, got 5" in err

    adapter = f"encoder.adapter={tmp_path / 'run' / 'adapter'}"
    bank = ["bank", "data=brain", f"data.root={data}", "data.acquisition=AXT2", "scale=smoke"]
    bank += ["encoder=janus_mini", f"encoder.path={janus}", "prior.components=[4]"]
    plain, adapted = mrisem(*bank)[1], mrisem(*bank, adapter)[1]
    files = [text.split("file ")[1].split(".safetensors")[0].strip() for text in (plain, adapted)]
    assert files[0] != files[1]
    code, _, err = mrisem(*bank, adapter, f"encoder.path={other}")
    assert code == 1
    assert err.count("\n") == 1
    assert "encoder.adapter must belong to the model" in err


def test_adapt_takes_written_pairs(mrisem, words, pairs):
    code, out, err = mrisem(
        "adapt", f"pairs={pairs}", "parts=[language]", *words, "gradient_checkpointing=true"
    )
    assert code == 0, err
    assert "warning" not in err
    assert "written:" in out
    assert "separation  not measured" in out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "set root=DIR or pairs=FILE"),
        (["pairs=PAIRS", "root=/data"], "root says how scans or images are used, got pairs="),
        (["pairs=PAIRS", "size=64"], "size says how scans or images are used"),
        (["pairs=EMPTY"], "pairs must be one .jsonl file, or a folder with one, got 0"),
        (["root=EMPTY"], "must hold a folder multicoil_train"),
        (["pairs=MISSING"], "1 are missing, such as"),
        (["pairs=UNKNOWN"], "got caption in"),
        (["pairs=PAIRS", "rank=0"], "rank must be greater than or equal to 1, got 0"),
        (["pairs=PAIRS", "dropout=1.0"], "dropout must be less than 1"),
        (["pairs=PAIRS", "parts=[]"], "parts must be"),
        (["pairs=PAIRS", "parts=[tower]"], "parts must be"),
        (["pairs=PAIRS", "encoder=vgg16"], "starts from a vision-language model"),
        (["pairs=PAIRS", "encoder=clip", "encoder.path=EMPTY"], "must hold config.json"),
        (["pairs=PAIRS", "encoder.adapter=EMPTY"], "without an adapter"),
    ],
)
def test_adapt_refuses_wrong_input_in_one_line(mrisem, pairs, tmp_path, wrong, said):
    places = {"PAIRS": pairs, "EMPTY": tmp_path / "empty"}
    places["EMPTY"].mkdir()
    row = {"image": "a.npy", "question": "q", "answer": "a"}
    np.save(tmp_path / "a.npy", np.ones((4, 4)))
    for name, content in (("MISSING", {"image": "gone.npy"}), ("UNKNOWN", {"caption": "c"})):
        places[name] = tmp_path / f"{name}.jsonl"
        places[name].write_text(json.dumps(row | content))
    for name, place in places.items():
        wrong = [word.replace(name, str(place)) for word in wrong]
    code, out, err = mrisem("adapt", *wrong, f"output_dir={tmp_path / 'run'}")
    assert code == 1, out
    assert err.count("\n") == 1, err
    assert said in err
    assert not (tmp_path / "run").exists()


def test_an_encoder_that_takes_no_adapter_is_refused(mrisem, tmp_path):
    words = ["prior=image_same", "encoder=vgg16", f"encoder.adapter={tmp_path}"]
    code, _, err = mrisem("reconstruct", *words, f"output_dir={tmp_path / 'run'}")
    assert code == 1
    assert err.count("\n") == 1
    assert "the chosen encoder has no option adapter" in err
