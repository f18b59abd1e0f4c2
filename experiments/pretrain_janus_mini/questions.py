"""Questions as token sequences, and which of them an image can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from pairs import HIGH, Pairs
from pool import N_BRAIN
from torch import Tensor
from transformers import JanusProcessor, PreTrainedTokenizerFast

PROMPTS = yaml.safe_load((Path(__file__).parent / "prompts.yaml").read_text(encoding="utf-8"))
QUESTIONS = tuple(PROMPTS)
IGNORE = -100
# `KINDS` -> answer to "kind"; reconstructions err in a way of their own: not asked
_KIND_ANSWERS = torch.tensor([0, 1, 2, 2, 3, 4, IGNORE])
STEERING, MORE_WORDINGS = ("quality", "artefact"), 2


def sentences() -> list[str]:
    """All wordings, and all answers with the space before them: the tokenizer's corpus."""
    return [s for p in PROMPTS.values() for s in p["wordings"]] + [
        f" {answer}" for p in PROMPTS.values() for answer in p["answers"]
    ]


@dataclass(frozen=True)
class Questions:
    """Tokenised questions, ``[question][wording]`` -> ids up to the open assistant turn.

    Args:
        prompts: token ids, with the image's placeholders in place.
        answers: token ids of each question's words, in the order of ``prompts.yaml``.
        end: token id that ends an answer.
        image: token id that stands for an image token.
    """

    prompts: list[list[list[int]]]
    answers: list[list[int]]
    end: int
    image: int


def tokenise(processor: JanusProcessor) -> Questions:
    """Let the checkpoint's processor itself build every conversation."""
    tokenizer, side = processor.tokenizer, processor.image_processor.size["height"]
    blank = torch.zeros(3, side, side, dtype=torch.uint8)

    def ask(wording: str) -> list[int]:
        content = [{"type": "image"}, {"type": "text", "text": wording}]
        turn = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(turn, add_generation_prompt=True)
        return processor(text=text, images=[blank])["input_ids"][0].tolist()

    prompts = [[ask(wording) for wording in PROMPTS[name]["wordings"]] for name in QUESTIONS]
    answers = [[_one_token(tokenizer, a) for a in PROMPTS[name]["answers"]] for name in QUESTIONS]
    image = tokenizer.convert_tokens_to_ids(processor.image_token)
    return Questions(prompts, answers, tokenizer.eos_token_id, image)


def _one_token(tokenizer: PreTrainedTokenizerFast, answer: str) -> int:
    ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"an answer must be one token, got {ids} for {answer!r}; raise vocab_size")
    return ids[0]


def answers_of(pairs: Pairs) -> Tensor:
    """Say what the answers are; images between high and low quality are not asked for either.

    Returns:
        ``(n, question)``: index of the right word, `IGNORE` where there is none.
    """
    high = pairs.error < HIGH
    low = pairs.low & ~high
    kind = _KIND_ANSWERS[pairs.kind]
    unknown = torch.full_like(pairs.kind, IGNORE)
    right = {
        "quality": low.long().where(high | low, unknown),
        "artefact": (kind == 1).long().where(low & ((kind == 1) | (kind == 2)), unknown),
        "kind": torch.where(high, 0, kind.where(low, unknown)),
        "contrast": pairs.contrast,
        "anatomy": (pairs.contrast >= N_BRAIN).long(),
    }
    return torch.stack([right[name] for name in QUESTIONS], 1)


@dataclass(frozen=True)
class Sequences:
    """Images' questions with their answers, one after the other, padded on the right.

    Args:
        ids: ``(n, length)`` token ids.
        turns: ``(n, length)``: 0 for the image and what stands before it, k for the k-th question.
        positions: ``(n, k)`` where answers and their ends are predicted.
        labels: ``(n, k)`` what they should be; `IGNORE` where an image has fewer.
    """

    ids: Tensor
    turns: Tensor
    positions: Tensor
    labels: Tensor


def draw_sequences(questions: Questions, pairs: Pairs, generator: torch.Generator) -> Sequences:
    """Ask every image all questions that it can answer, each in a random wording.

    Quality and artefact, by which users steer, are asked in `MORE_WORDINGS` more.
    """
    rows = [_ask_all(questions, right, generator) for right in answers_of(pairs).tolist()]
    ids, turns, positions, labels = zip(*rows, strict=True)
    return Sequences(
        _stack(ids, questions.end), _stack(turns, -1), _stack(positions, 0), _stack(labels, IGNORE)
    )


def _ask_all(questions: Questions, right: list[int], generator: torch.Generator) -> list[list[int]]:
    """Ids, turns, positions and labels of one image, whose answers are ``right``."""
    ids, turns, positions, labels = [], [], [], []
    asked = [which for which, answer in enumerate(right) if answer != IGNORE]
    asked += MORE_WORDINGS * [which for which in asked if QUESTIONS[which] in STEERING]
    for turn, which in enumerate(asked, start=1):
        wordings = questions.prompts[which]
        prompt = wordings[int(torch.randint(len(wordings), (), generator=generator))]
        shared = len(prompt) - prompt[::-1].index(questions.image)
        if not ids:
            ids, turns = prompt[:shared], shared * [0]
        word = questions.answers[which][right[which]]
        own = [*prompt[shared:], word, questions.end]
        positions += [len(ids) + len(own) - 3, len(ids) + len(own) - 2]
        labels += [word, questions.end]
        ids, turns = ids + own, turns + len(own) * [turn]
    return [ids, turns, positions, labels]


def _stack(rows: Sequence[list[int]], filler: int) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([row + [filler] * (length - len(row)) for row in rows])
