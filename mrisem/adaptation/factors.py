"""Low-rank factors of a Janus model: attached to chosen parts, saved in peft's format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from mrisem.files import whole, write_text
from mrisem.networks.adapters import LoRA, attach
from mrisem.prior.adapters import BASE, PARTS, WEIGHTS

Part = Literal["vision", "aligner", "language"]


@dataclass(frozen=True)
class Factors:
    """Settings of ``W = W_0 + alpha / rank B A``.

    Args:
        parts: parts of the model whose linear layers get factors.
        rank: inner width of the factors.
        alpha: scale of their product, in units of ``rank``.
        dropout: share of their inputs that training sets to zero.
    """

    parts: Sequence[Part]
    rank: int
    alpha: float
    dropout: float

    def attach(self, model: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Attach factors, which change no output yet; return them, float32, by their names."""
        names = "|".join(PARTS[part] for part in self.parts)
        # not the tower's embeddings: the patches' is a convolution
        targets = rf"model\.({names})\.(?!embeddings).*"
        settings = LoRA(self.rank, self.alpha, targets=targets, train_also=())
        attach(model, settings, generator, self.dropout)
        factors = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for factor in factors.values():  # peft gives them the dtype of the frozen weights
            factor.data = factor.data.float()
        return factors

    def save(self, folder: Path, factors: Mapping[str, Tensor], base: Mapping[str, Any]) -> None:
        """Write factors as peft reads them, and ``base.json``, by which ours are checked.

        Args:
            folder: where to.
            factors: see `attach`.
            base: ``base``, the model as the user named it, and ``fingerprints`` of its parts.
        """
        layers = sorted({name.partition(".lora_")[0] for name in factors})
        LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft only divides it
            lora_dropout=self.dropout,
            target_modules=layers,
            base_model_name_or_path=base["base"],
            inference_mode=True,
        ).save_pretrained(str(folder))
        write_text(folder / BASE, json.dumps({**base, "parts": [*self.parts]}, indent=1) + "\n")
        tensors = {
            f"base_model.model.{name.replace('.default.', '.')}": factor.detach().cpu().contiguous()
            for name, factor in factors.items()
        }
        with whole(folder / WEIGHTS) as partial:
            save_file(tensors, partial, {"format": "pt"})
