import json

import pytest
import torch

from mrisem.adaptation.pairs import KINDS
from mrisem.adaptation.pool import CONTRASTS


def test_train_repeats_bit_for_bit_when_stopped_and_resumed(train, trained, tmp_path):
    assert "stopped after step 3" in train(tmp_path, "--stop-after", "3")
    train(tmp_path)
    files = sorted(file.name for file in (tmp_path / "janus_mini").iterdir())
    assert "model.safetensors" in files
    for name in files:
        whole, resumed = trained / "janus_mini" / name, tmp_path / "janus_mini" / name
        assert whole.read_bytes() == resumed.read_bytes(), name
    assert (trained / "results.json").read_bytes() == (tmp_path / "results.json").read_bytes()


def test_train_changes_every_part_but_the_first_layer_and_the_image_generator(
    recipe, trained, tmp_path, train
):
    train(tmp_path, "--stop-after", "1")
    first, last = (
        torch.load(folder / "training.pt", weights_only=True)["model"]
        for folder in (tmp_path, trained)
    )
    changed = {name for name in first if not first[name].equal(last[name])}
    fixed = (".embeddings.", "encoder.layers.0.", "vqmodel", "generation_")
    assert not [name for name in changed if any(part in name for part in fixed)]
    for part in ("vision_model.encoder.layers.1.", "model.aligner.", "language_model.layers.0."):
        assert any(part in name for name in changed), part


def test_train_writes_the_answers_to_every_question(recipe, trained):
    results = json.loads((trained / "results.json").read_text())
    assert {"quality", "contrast", "anatomy"} <= results.keys()
    assert all(score["n"] > 0 and 0 <= score["accuracy"] <= 1 for score in results.values())
    quality = [score["n"] for name, score in results.items() if name.startswith("quality, right")]
    assert sum(quality) == results["quality"]["n"]


def test_train_exports_a_checkpoint_that_the_encoder_loads(trained, generator):
    from mrisem.prior.image.encoder import load_encoder

    encoder = load_encoder(str(trained / "janus_mini"), [1, 2])
    assert encoder(torch.rand(1, 40, 40, generator=generator()))[1].shape == (1, 36, 96)


def test_train_does_not_go_on_from_another_configuration(recipe, trained):
    module = recipe("train")
    config = torch.load(trained / "training.pt", weights_only=True)["config"]
    with pytest.raises(SystemExit, match="another configuration"):
        module.Trainer(config | {"batch": 5}, trained)


def test_material_is_read_with_its_targets_and_split_by_subject(recipe, trained):
    material = recipe("material").load_material(trained)
    assert {side: len(pairs) for side, pairs in material.items()} == {"train": 2, "held_out": 2}
    assert {KINDS[code] for code in material["train"].kind} == {"aliasing", "reconstruction"}
    assert {CONTRASTS[code] for code in material["train"].contrast} == {"AXT2"}
    assert 0.02 < material["train"].error.mean() < 0.2
    with pytest.raises(SystemExit, match=r"see run\.sh"):
        recipe("material").load_material(trained / "nowhere")
