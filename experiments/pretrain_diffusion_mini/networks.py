"""The untrained networks: the diffusion model in the parts of its folder, and the plain one."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

PAD, UNKNOWN = "<pad>", "<unknown>"


def make_scheduler() -> DDPMScheduler:
    """Make the schedule of Ho et al., arXiv:2006.11239: 1000 times, beta from 1e-4 to .02."""
    return DDPMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)


def make_tokenizer(vocabulary: list[str], length: int) -> PreTrainedTokenizerFast:
    """Make a tokenizer in which every word is one token, in any case."""
    ids = {word: number for number, word in enumerate([PAD, UNKNOWN, *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, model_max_length=length
    )


def make_parts(config: dict[str, Any], vocabulary: list[str]) -> dict[str, Any]:
    """Make the parts of the model's folder, by name.

    The text enters every block beside the time (``addition_embed_type``) and by cross-attention at
    the coarsest resolution, so that an image of any size takes little time.
    """
    unet, text = config["unet"], config["text"]
    tokenizer = make_tokenizer(vocabulary, text["length"])
    levels = len(unet["channels"])
    torch.manual_seed(config["seed"])  # neither library takes a generator
    network = UNet2DConditionModel(
        in_channels=1,
        out_channels=1,
        block_out_channels=tuple(unet["channels"]),
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=unet["groups"],
        attention_head_dim=unet["head"],
        cross_attention_dim=text["width"],
        addition_embed_type="text",
        addition_embed_type_num_heads=text["heads"],
    )
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=text["width"],
            intermediate_size=2 * text["width"],
            num_hidden_layers=1,
            num_attention_heads=text["heads"],
            max_position_embeddings=text["length"],
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.pad_token_id,  # of the pooled output, which is not used
        )
    )
    return {
        "unet": network,
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "scheduler": make_scheduler(),
    }


def save(parts: dict[str, Any], folder: Path) -> None:
    """Save the parts in half precision, as a folder that `mrisem` and diffusers read."""
    index: dict[str, Any] = {"_class_name": "DiffusionPipeline"}
    for name, part in parts.items():
        stored = deepcopy(part).half() if isinstance(part, nn.Module) else part
        stored.save_pretrained(folder / name)
        index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(f"{json.dumps(index, indent=2)}\n", encoding="utf-8")


class Plain(nn.Module):
    """Convolutions at full resolution (as DnCNN, arXiv:1608.03981) that are told the noise.

    Args:
        channels: number of channels between the convolutions.
        layers: number of convolutions.
        seed: seed of the weights.
    """

    def __init__(self, channels: int, layers: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        widths = [2, *[channels] * (layers - 1), 1]
        convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList(convolutions)

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Predict the noise ``(n, 1, y, x)``; sigma ``(n,)`` is its standard deviation."""
        x = torch.cat([noisy, sigma[:, None, None, None].expand_as(noisy)], 1)
        for number, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if number else x)
        return x
