"""Folders and hub names that hold a checkpoint, or not: what is loaded, what is refused and how."""

import json
import os
import subprocess
import sys

import pytest

from mrisem.errors import InputError
from mrisem.prior.image.encoder import load_encoder

WIDTH = 16  # of the tower of conftest's Janus


def copy_json(folder, target):
    for file in folder.glob("*.json"):
        (target / file.name).write_text(file.read_text())
    return target


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_encoder(str(path), [1])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_folder_is_refused(tmp_path):
    assert "existing folder" in refusal(tmp_path / "absent")


def test_folder_without_config_is_refused(tmp_path):
    assert "config.json" in refusal(tmp_path)


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
    assert "every shard" in refusal(tmp_path)


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


def test_original_deepseek_format_names_the_converted_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "multi_modality"}))
    assert "deepseek-community/Janus-Pro-1B" in refusal(tmp_path)


def test_unknown_model_type_lists_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin"}))
    message = refusal(tmp_path)
    assert all(name in message for name in ("'swin'", "janus", "siglip", "clip", "dinov2"))


def test_hub_name_without_cache_and_network_names_the_command(monkeypatch, tmp_path):
    import huggingface_hub

    def offline(*_, local_files_only=False, **__):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = refusal("deepseek-community/Janus-Pro-1B")
    assert "hf download deepseek-community/Janus-Pro-1B" in message


@pytest.mark.parametrize("offline", ["1", "0"])
def test_hub_name_without_cache_names_the_command_and_does_not_hang(offline, tmp_path):
    # A process of its own: huggingface_hub reads its environment once. Port 9 answers nobody.
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": offline,
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    code = (
        "from mrisem.prior.image.encoder import load_encoder\n"
        "load_encoder('facebook/dinov2-base', [1], revision='abc')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "InputError" in ended.stderr
    assert "`hf download facebook/dinov2-base --revision abc --local-dir DIR`" in ended.stderr


def test_hub_name_resolves_from_the_cache_first(monkeypatch, folder):
    import huggingface_hub

    asked = []

    def cached(name, *, revision, allow_patterns, local_files_only=False):
        asked.append((name, revision, local_files_only))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert load_encoder("owner/name", [1], revision="v2").widths == (WIDTH,)
    assert asked == [("owner/name", "v2", True)]


def test_hub_cache_without_weights_is_completed_from_the_hub(monkeypatch, folder, tmp_path):
    import huggingface_hub

    copy_json(folder, tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: None)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, *, local_files_only=False, **_: str(tmp_path if local_files_only else folder),
    )
    assert load_encoder("owner/name", [1]).widths == (WIDTH,)


def test_revision_of_a_folder_is_not_looked_at(folder):
    assert load_encoder(str(folder), [1], revision="main").widths == (WIDTH,)
