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
