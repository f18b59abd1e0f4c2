"""Answers of a vision-language model about an image, as differentiable embeddings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.utils.checkpoint import checkpoint

from mrisem.prior.image.encoder import FrozenEncoder, fingerprint
from mrisem.prior.language.conversation import Conversations
from mrisem.prior.language.precision import full_float32
from mrisem.prior.language.prompts import Prompt


class ResponseEncoder(nn.Module):
    """Frozen model: vision tower, its final norm, aligner, and language model without output head.

    The response embedding is the last hidden state of the language model at the last position of
    the conversation (Feng et al., arXiv:2511.19641). It is taken *after* the final RMS norm:
    transformers calls it ``hidden_states[-1]``, and the output head reads it. All computation is in
    float32, also under autocast; the language model's weights may be stored in another dtype.
    `load_language_model` makes the model from a checkpoint.

    Args:
        tower: vision tower with its last layer as the only level; it also prepares images.
        norm: final norm of the tower.
        aligner: map of tower tokens to the width of the language model.
        language: decoder of transformers with token embeddings, without output head.
        conversations: conversion of questions to tokens.
        read_head: function that reads the output head ``(vocabulary, width)``. Only `answer` needs
            the head, so it is not kept in memory.
        gradient_checkpointing: keep one tensor for each layer and recompute the others in the
            backward pass.
    """

    def __init__(
        self,
        tower: FrozenEncoder,
        norm: nn.Module,
        aligner: nn.Module,
        language: Any,
        conversations: Conversations,
        read_head: Callable[[], Tensor],
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.tower, self.norm, self.aligner, self.language = tower, norm, aligner, language
        self.conversations, self.read_head = conversations, read_head
        self.gradient_checkpointing = gradient_checkpointing
        self.requires_grad_(False).eval()
        self.width = int(self._token_embeddings.shape[1])
        weights = {
            name: weight
            for name, weight in self.state_dict().items()
            if not name.startswith("tower.")
        }
        self.fingerprint = fingerprint(tower.fingerprint, weights)
        # each decoder layer is checkpointed by itself: one layer is recomputed at a time
        for layer in language.layers:
            layer.forward = partial(self._run, layer.forward)

    def train(self, mode: bool = True) -> ResponseEncoder:
        """Stay in evaluation mode, also within a task that is trained."""
        return super().train(False)

    def forward(self, magnitude: Tensor, prompt: Prompt) -> Tensor:
        """Map magnitudes ``(n, y, x)`` to responses ``(n, width)`` float32 (see `respond`)."""
        return self.respond(self.image_tokens(magnitude), prompt)

    def image_tokens(self, magnitude: Tensor) -> Tensor:
        """Compute the image tokens: vision tower, final norm and aligner.

        Args:
            magnitude: ``(n, y, x)`` real in any unit, not negative.

        Returns:
            ``(n, token, width)`` float32.
        """
        with full_float32(magnitude.device.type):
            tokens: Tensor = self._run(self._encode, magnitude.float())
        return tokens

    def respond(self, tokens: Tensor, prompt: Prompt, noise: Tensor | None = None) -> Tensor:
        """Run the language model on image tokens and a question.

        Args:
            tokens: ``(n, token, width)``, from `image_tokens`.
            prompt: prompt whose question is asked.
            noise: ``(n, n_text, width)`` float32, added to the embeddings of all tokens but the
                image's (Eq. 10-11); None: no noise.

        Returns:
            ``(n, width)`` float32 response embeddings.
        """
        with full_float32(tokens.device.type):
            embeddings = self._insert_image(tokens.float(), prompt, noise)
            hidden: Tensor = self.language(
                inputs_embeds=embeddings, use_cache=False
            ).last_hidden_state
            # at the last position, the open turn of the assistant, the model forms its answer
            return hidden[:, -1].float()

    def n_text(self, prompt: Prompt) -> int:
        """Count the tokens of the conversation that are not the image's."""
        return int((~self.conversations(prompt.question)[1]).sum())

    @torch.no_grad()
    def answer(self, magnitude: Tensor, prompt: Prompt, max_tokens: int = 8) -> list[str]:
        """Decode the answers in words, greedily; the output head is read for each call.

        Args:
            magnitude: ``(n, y, x)`` real in any unit, not negative.
            prompt: prompt whose question is asked.
            max_tokens: largest number of tokens of an answer.

        Returns:
            n answers without surrounding white space.
        """
        device = magnitude.device
        head = self.read_head().to(device, torch.float32)
        inputs = self._insert_image(self.image_tokens(magnitude), prompt, None)
        answer_ids, cache = torch.empty(len(magnitude), 0, dtype=torch.long, device=device), None
        with full_float32(device.type):
            for _ in range(max_tokens):
                # the cache holds keys and values of earlier positions: later passes take one token
                output = self.language(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                answer_ids = torch.cat(
                    [answer_ids, (output.last_hidden_state[:, -1:] @ head.T).argmax(-1)], 1
                )
                if (answer_ids == self.conversations.end_id).any(1).all():
                    break
                inputs = embedding(answer_ids[:, -1:], self._token_embeddings).float()
        return [self.conversations.decode(row) for row in answer_ids.tolist()]

    @property
    def _token_embeddings(self) -> Tensor:
        return self.language.get_input_embeddings().weight

    def _encode(self, magnitude: Tensor) -> Tensor:
        """Run tower, norm and aligner."""
        (features,) = self.tower(magnitude)
        tokens: Tensor = self.aligner(self.norm(features))
        return tokens

    def _insert_image(self, tokens: Tensor, prompt: Prompt, noise: Tensor | None) -> Tensor:
        """Insert image tokens at their positions in the embedded text: ``(n, length, width)``."""
        ids, is_image = (t.to(tokens.device) for t in self.conversations(prompt.question))
        text = embedding(ids, self._token_embeddings).float().expand(len(tokens), -1, -1)
        if noise is not None:
            text = text.index_add(1, (~is_image).nonzero()[:, 0], noise.to(text))
        return text.index_copy(1, is_image.nonzero()[:, 0], tokens)

    def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, with gradient checkpointing if it is asked for."""
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return function(*args, **kwargs)
        # evaluation mode draws no random numbers, so that no generator state need be restored
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False, **kwargs}
        return checkpoint(function, *args, **options)
