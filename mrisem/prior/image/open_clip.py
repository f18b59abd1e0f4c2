"""Vision towers of open_clip checkpoints that contain a ViT of timm, such as BiomedCLIP's.

timm reads the ViT alone. open_clip would also build the text tower and fetch the configuration of
its language model. timm is an optional extra: ``pip install 'mrisem[encoders]'``.
"""

from __future__ import annotations

from collections.abc import Sequence

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_json, resolve_checkpoint
from mrisem.prior.image.encoder import FrozenEncoder
from mrisem.prior.image.levels import Dtype
from mrisem.prior.image.preparation import Preparation
from mrisem.prior.image.timm_encoder import create_network, freeze_network
from mrisem.prior.weights import read_tensors

_TRUNK = "visual.trunk."  # prefix of the ViT's weights
_WEIGHTS = ("open_clip_model.safetensors", "model.safetensors")


def load_open_clip_encoder(
    path: str,
    levels: Sequence[int],
    dtype: Dtype = "auto",
    pad_value: float | None = None,
    revision: str | None = None,
) -> FrozenEncoder:
    """Load the ViT of a checkpoint of open_clip, up to the deepest level.

    Args:
        path: folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``, or a hub
            name such as ``microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224``.
        levels: transformer blocks whose outputs before the final norm are returned, counted from 1.
        dtype: dtype of weights and embeddings; ``auto``: bfloat16 if torch finds a CUDA device,
            else float32.
        pad_value: value around small images, in normalised units; None: black.
        revision: commit, tag or branch of a hub name; None: its main branch.

    Returns:
        encoder on the CPU; its tokens are the patches, row by row.

    Raises:
        InputError: when the path, the checkpoint or the levels cannot be used.
    """
    folder = resolve_checkpoint(path.removeprefix("hf-hub:"), revision)
    config = read_json(folder / "open_clip_config.json")
    name = config["model_cfg"]["vision_cfg"].get("timm_model_name")
    if name is None:
        raise InputError(
            "an open_clip checkpoint must have a vision tower of timm (timm_model_name), got none "
            f"in {folder}; set encoder=clip for OpenAI's CLIP"
        )
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise InputError(
            f"encoder folder must hold {_WEIGHTS[0]}, got none in {folder}; save the state_dict "
            "of open_clip_pytorch_model.bin with safetensors.torch.save_file"
        )
    weights = {
        key.removeprefix(_TRUNK): weight
        for key, weight in read_tensors(file, rf"^{_TRUNK}").items()
    }
    network = create_network(name, weights, file)
    channels, side, _ = network.pretrained_cfg["input_size"]
    statistics = config["preprocess_cfg"]
    prepare = Preparation(side, channels, (statistics["mean"], statistics["std"]), pad_value)
    return freeze_network(network, name, prepare, tuple(levels), None, dtype)
