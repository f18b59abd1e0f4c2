"""Text encoders of diffusion models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_json
from mrisem.prior.weights import load_config, load_model

_TEXT_ENCODERS = ("CLIPTextModel", "T5EncoderModel", "BertModel")


class TextEmbedding(nn.Module):
    """Text to the states of a text encoder's last layer.

    Args:
        tokenizer: tokenizer of transformers.
        encoder: text encoder of transformers.
        n_tokens: number of tokens to which texts are padded.
    """

    def __init__(self, tokenizer: Any, encoder: nn.Module, n_tokens: int) -> None:
        super().__init__()
        self.tokenizer, self.encoder, self.n_tokens = tokenizer, encoder, n_tokens

    def forward(self, text: str) -> Tensor:
        """Embed a text: ``(1, token, feature)``.

        Raises:
            InputError: when the text has unknown words or too many.
        """
        ids = self.tokenizer(text, padding="max_length", max_length=self.n_tokens)["input_ids"]
        if len(ids) > self.n_tokens:
            raise InputError(
                f"generator.text may have {self.n_tokens} tokens, got {len(ids)} for {text!r}; "
                "shorten it"
            )
        # of tokenizers that know every text, such as CLIP's, the token has another use
        unknown, used = self.tokenizer.unk_token_id, ("pad_token_id", "eos_token_id")
        if unknown in ids and unknown not in [getattr(self.tokenizer, name) for name in used]:
            known = set(self.tokenizer.get_vocab())
            words = [word for word in text.split() if word.lower() not in known]
            listed = f"; it knows {', '.join(sorted(known))}" if len(known) < 100 else ""
            raise InputError(
                f"generator.text must be of words that the model knows, got {' '.join(words)!r} in "
                f"{text!r}{listed}; use others"
            )
        device = next(self.encoder.parameters()).device
        states: Tensor = self.encoder(torch.tensor([ids], device=device)).last_hidden_state
        return states


def load_text(unet: Any, folder: Path) -> TextEmbedding | None:
    """Load tokenizer and text encoder; None for a network that takes no text.

    Args:
        unet: network of diffusers.
        folder: folder with ``text_encoder`` and ``tokenizer``.

    Raises:
        InputError: when they are missing or do not fit the network.
    """
    import transformers

    if not hasattr(unet.config, "cross_attention_dim"):
        return None
    place = folder / "text_encoder"
    named = (read_json(place / "config.json").get("architectures") or [None])[0]
    if named not in _TEXT_ENCODERS:
        raise InputError(
            f"text_encoder must be one of {', '.join(_TEXT_ENCODERS)}, got {named} in {place}; "
            "name another model"
        )
    model_class = getattr(transformers, named)
    config = load_config(model_class.config_class, place)
    width = unet.config.get("encoder_hid_dim") or unet.config.cross_attention_dim
    if config.hidden_size != width:
        raise InputError(
            f"the network takes text embeddings of width {width}, got {config.hidden_size} of "
            f"{place}; save the text encoder that it was trained with"
        )
    encoder = load_model(model_class, place, config, torch.float32, {})
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder / "tokenizer", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"a generator with text needs its tokenizer, got {folder / 'tokenizer'} ({reason}); "
            "save it there"
        ) from error
    longest = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", 512))
    return TextEmbedding(tokenizer, encoder, longest)
