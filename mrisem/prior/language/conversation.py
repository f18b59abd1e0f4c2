"""Conversations about an image, built by the checkpoint's own processor and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mrisem.errors import InputError


class Conversations:
    """Conversion of questions to token ids.

    A conversation consists of system prompt, image placeholders, question and the open turn of the
    assistant.

    Args:
        folder: Janus checkpoint with tokenizer, processor and chat template.
        image_token_id: id of the placeholder of an image token.
        n_image_tokens: number of tokens of one image.
        image_size: side of the model's input image, pixels.

    Raises:
        InputError: when the folder holds no tokenizer with image tokens.
    """

    def __init__(
        self, folder: Path, image_token_id: int, n_image_tokens: int, image_size: int
    ) -> None:
        self.folder, self.image_token_id = folder, image_token_id
        self.n_image_tokens, self.image_size = n_image_tokens, image_size
        self.processor = load_processor(folder)
        self.end_id = int(self.processor.tokenizer.eos_token_id)
        self._cache: dict[str, tuple[Tensor, Tensor]] = {}  # a fit asks one question many times

    def __call__(self, question: str) -> tuple[Tensor, Tensor]:
        """Tokenise the conversation that asks one question about one image.

        Returns:
            ids ``(length,)``, and a mask ``(length,)`` bool of those that are the image's.

        Raises:
            InputError: when the number of image placeholders is not that of image tokens.
        """
        if question not in self._cache:
            self._cache[question] = self._tokenise(question)
        return self._cache[question]

    def decode(self, ids: list[int]) -> str:
        """Decode generated ids, up to the end token, to text without surrounding white space."""
        answer_ids = ids[: ids.index(self.end_id)] if self.end_id in ids else ids
        text: str = self.processor.tokenizer.decode(answer_ids, skip_special_tokens=True)
        return text.strip()

    def _tokenise(self, question: str) -> tuple[Tensor, Tensor]:
        """Run chat template and processor; a blank image makes them insert its placeholders."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turns = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True)
        blank = torch.zeros(3, self.image_size, self.image_size, dtype=torch.uint8)
        ids = self.processor(text=[text], images=[blank], return_tensors="pt")["input_ids"][0]
        is_image = ids == self.image_token_id
        # a tokenizer of another model would put image tokens at wrong positions without an error
        if int(is_image.sum()) != self.n_image_tokens:
            raise InputError(
                f"the conversation must hold {self.n_image_tokens} image tokens (id "
                f"{self.image_token_id}), got {int(is_image.sum())} from the processor in "
                f"{self.folder}; fetch the tokenizer that belongs to the model"
            )
        return ids, is_image


def load_processor(folder: Path) -> Any:
    """Load the processor (tokenizer, image processor, chat template) of a checkpoint."""
    from transformers import JanusProcessor

    try:
        processor = JanusProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except AttributeError as error:  # the processor reads these tokens from its tokenizer
        raise InputError(
            f"the tokenizer must have image tokens (image_token, boi_token, eoi_token), got one "
            f"without in {folder}; use the processor of a Janus checkpoint"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"the language route needs tokenizer, processor and chat template, those in {folder} "
            f"cannot be loaded ({str(error).splitlines()[0]}); fetch the checkpoint again"
        ) from error
    if not processor.chat_template:
        raise InputError(
            f"the language route needs a chat template, got none in {folder}; fetch "
            "chat_template.jinja of the checkpoint"
        )
    return processor
