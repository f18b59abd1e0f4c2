"""What a vision-language model answers about an image, as an embedding that has a gradient."""

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
    """Vision tower -> final norm and aligner -> language model, frozen, without the output head.

    The response embedding is the language model's last hidden state at the last position of the
    conversation (Feng et al., arXiv:2511.19641): *after* the final RMS norm, which is what
    transformers calls ``hidden_states[-1]`` and what the output head reads. All of it computes in
    float32, under autocast too; `dtype` of the language model's weights is a matter of storage
    only. `load_language_model` makes it from a checkpoint.

    Args:
        tower: with the last layer as its one level; it also says how images are prepared.
        norm: the tower's final norm.
        aligner: tokens of the tower -> width of the language model.
        language: the decoder of transformers, with the embedding of tokens, without head.
        conversations: how questions become tokens.
        read_head: reads the output head ``(vocabulary, width)``, which is not kept: only `answer`
            needs it.
        gradient_checkpointing: keep one tensor a layer and compute the rest again in backward.
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
        weights = {n: w for n, w in self.state_dict().items() if not n.startswith("tower.")}
        self.fingerprint = fingerprint(tower.fingerprint, weights)
        for layer in language.layers:
            layer.forward = partial(self._maybe_checkpoint, layer.forward)

    def train(self, mode: bool = True) -> ResponseEncoder:
        """Stay in evaluation mode, whatever the surrounding task is in."""
        return super().train(False)

    def forward(self, magnitude: Tensor, prompt: Prompt) -> Tensor:
        """``(n, y, x)`` magnitudes -> ``(n, width)`` float32 responses; see `respond`."""
        return self.respond(self.image_tokens(magnitude), prompt)

    def image_tokens(self, magnitude: Tensor) -> Tensor:
        """Run vision tower, final norm and aligner: what stands for an image.

        Args:
            magnitude: ``(n, y, x)`` real, any unit, not negative.

        Returns:
            ``(n, token, width)`` float32.
        """
        with full_float32(magnitude.device.type):
            tokens: Tensor = self._maybe_checkpoint(self._see, magnitude.float())
        return tokens

    def respond(self, tokens: Tensor, prompt: Prompt, noise: Tensor | None = None) -> Tensor:
        """Run the language model on image tokens and question.

        Args:
            tokens: ``(n, token, width)``, of `image_tokens`.
            prompt: its question is asked.
            noise: ``(n, text, width)`` float32, added to the embeddings of all tokens but the
                image's (Eq. 10-11), `n_text` of them; None: none.

        Returns:
            ``(n, width)`` float32 response embeddings.
        """
        with full_float32(tokens.device.type):
            mixed = self._mix(tokens.float(), prompt, noise)
            hidden: Tensor = self.language(inputs_embeds=mixed, use_cache=False).last_hidden_state
            return hidden[:, -1].float()

    def n_text(self, prompt: Prompt) -> int:
        """Count the tokens of the conversation that are not the image's."""
        return int((~self.conversations(prompt.question)[1]).sum())

    @torch.no_grad()
    def answer(self, magnitude: Tensor, prompt: Prompt, max_tokens: int = 8) -> list[str]:
        """Decode the answers greedily; the output head is read for this and let go again.

        Args:
            magnitude: ``(n, y, x)`` real, any unit, not negative.
            prompt: its question is asked.
            max_tokens: length at which an answer is cut.

        Returns:
            n answers, stripped of white space.
        """
        device = magnitude.device
        head = self.read_head().to(device, torch.float32)
        state = self._mix(self.image_tokens(magnitude), prompt, None)
        said, cache = torch.empty(len(magnitude), 0, dtype=torch.long, device=device), None
        with full_float32(device.type):
            for _ in range(max_tokens):
                result = self.language(inputs_embeds=state, past_key_values=cache, use_cache=True)
                cache = result.past_key_values
                said = torch.cat([said, (result.last_hidden_state[:, -1:] @ head.T).argmax(-1)], 1)
                if (said == self.conversations.end_id).any(1).all():
                    break
                state = embedding(said[:, -1:], self._token_embeddings).float()
        return [self.conversations.decode(row) for row in said.tolist()]

    @property
    def _token_embeddings(self) -> Tensor:
        return self.language.get_input_embeddings().weight

    def _see(self, magnitude: Tensor) -> Tensor:
        (features,) = self.tower(magnitude)
        tokens: Tensor = self.aligner(self.norm(features))
        return tokens

    def _mix(self, tokens: Tensor, prompt: Prompt, noise: Tensor | None) -> Tensor:
        """Put image tokens at their places among the embedded text, ``(n, length, width)``."""
        ids, is_image = (t.to(tokens.device) for t in self.conversations(prompt.question))
        text = embedding(ids, self._token_embeddings).float().expand(len(tokens), -1, -1)
        if noise is not None:
            text = text.index_add(1, (~is_image).nonzero()[:, 0], noise.to(text))
        return text.index_copy(1, is_image.nonzero()[:, 0], tokens)

    def _maybe_checkpoint(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return function(*args, **kwargs)
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False, **kwargs}
        return checkpoint(function, *args, **options)
