"""What a checkpoint folder may hold in the place of whole safetensors, and what is said of it."""

import json

import pytest

from mrisem.errors import InputError
from mrisem.prior.image.encoder import load_encoder


def copy_json(folder, target):
    for file in folder.glob("*.json"):
        (target / file.name).write_text(file.read_text())
    return target


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_encoder(str(path), [1])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_without_weights_is_refused(folder, tmp_path):
    assert "no weights" in refusal(copy_json(folder, tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_refused(folder, tmp_path, name):
    (copy_json(folder, tmp_path) / name).write_bytes(b"")
    assert "pickled" in refusal(tmp_path)


@pytest.mark.parametrize("n_bytes", [0, 5, 5000, -1])
def test_truncated_weights_are_refused(folder, tmp_path, n_bytes):
    copy_json(folder, tmp_path)
    content = (folder / "model.safetensors").read_bytes()[:n_bytes]
    (tmp_path / "model.safetensors").write_bytes(content)
    assert "whole safetensors" in refusal(tmp_path)


def test_text_in_the_place_of_weights_is_refused(folder, tmp_path):
    (copy_json(folder, tmp_path) / "model.safetensors").write_text("version https://git-lfs" * 9)
    assert "whole safetensors" in refusal(tmp_path)


def test_loading_prints_nothing_and_leaves_transformers_settings(folder, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_encoder(str(folder), [1])  # of two layers: weights are left over
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_missing_shard_is_refused(model, processor, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    processor.save_pretrained(tmp_path)
    min(tmp_path.glob("model-*.safetensors")).unlink()
    assert "got no weights model-00001" in refusal(tmp_path)


def test_checkpoint_without_a_tower_is_refused(model, folder, tmp_path):
    path = copy_json(folder, tmp_path)
    rest = {name: value for name, value in model.state_dict().items() if "vision_model" not in name}
    model.save_pretrained(path, state_dict=rest)
    message = refusal(path)
    assert "got none for embeddings.patch_embedding.bias and 18 others" in message
    assert str(path) in message


def test_configuration_with_a_value_of_another_type_is_refused(folder, tmp_path):
    config = json.loads((copy_json(folder, tmp_path) / "config.json").read_text())
    config["vision_config"]["hidden_size"] = "wide"
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = refusal(tmp_path)
    assert "config.json must describe a model" in message
    assert "hidden_size" in message
