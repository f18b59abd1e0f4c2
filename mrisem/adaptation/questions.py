"""Questions as token sequences, and which of them an image can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import JanusProcessor

from mrisem.adaptation.pairs import HIGH, Pairs
from mrisem.adaptation.pool import N_BRAIN

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
        answers: ``[question][answer]`` -> token ids, in the order of ``prompts.yaml``.
        end: token id that ends an answer.
        image: token id that stands for an image token.
    """

    prompts: list[list[list[int]]]
    answers: list[list[list[int]]]
    end: int
    image: int


def tokenise(processor: JanusProcessor) -> Questions:
    """Tokenise the questions of ``prompts.yaml`` and their answers."""
    prompts = [[ask(processor, w) for w in PROMPTS[name]["wordings"]] for name in QUESTIONS]
    answers = [[say(processor, a) for a in PROMPTS[name]["answers"]] for name in QUESTIONS]
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    return Questions(prompts, answers, processor.tokenizer.eos_token_id, image)


def ask(processor: JanusProcessor, question: str) -> list[int]:
    """Let the checkpoint's processor itself build a conversation; return its token ids."""
    side = processor.image_processor.size["height"]
    blank = torch.zeros(3, side, side, dtype=torch.uint8)
    content: list[Any] = [{"type": "image"}, {"type": "text", "text": question}]
    turn: list[Any] = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    ids: list[int] = processor(text=text, images=[blank])["input_ids"][0].tolist()
    return ids


def say(processor: JanusProcessor, answer: str) -> list[int]:
    """Return the token ids of an answer, which follows the colon of the assistant's turn."""
    ids: list[int] = processor.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    return ids


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
class Asked:
    """A question with its answer.

    Args:
        name: kind of the question, by which answers are counted.
        prompt: token ids up to the open assistant turn, with the image's placeholders.
        answer: token ids.
    """

    name: str
    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Sequences:
    """Images' questions with their answers, one after the other, padded on the right.

    Args:
        ids: ``(n, length)`` token ids.
        turns: ``(n, length)``: 0 for the image and what stands before it, k for the k-th question.
        positions: ``(n, k)`` where answers and their ends are predicted.
        labels: ``(n, k)`` what they should be; `IGNORE` where an image has fewer.
        names: kinds of each image's questions, in their order.
    """

    ids: Tensor
    turns: Tensor
    positions: Tensor
    labels: Tensor
    names: list[list[str]]


def draw_sequences(questions: Questions, pairs: Pairs, generator: torch.Generator) -> Sequences:
    """Ask every image all questions that it can answer, each in a random wording.

    Quality and artefact, by which users steer, are asked in `MORE_WORDINGS` more.
    """
    rows = [_choose(questions, right, generator) for right in answers_of(pairs).tolist()]
    return lay_out(rows, questions.image, questions.end)


def _choose(questions: Questions, right: list[int], generator: torch.Generator) -> list[Asked]:
    """Choose wordings for one image, whose answers are ``right``."""
    asked = [which for which, answer in enumerate(right) if answer != IGNORE]
    asked += MORE_WORDINGS * [which for which in asked if QUESTIONS[which] in STEERING]
    chosen = []
    for which in asked:
        wordings = questions.prompts[which]
        prompt = wordings[int(torch.randint(len(wordings), (), generator=generator))]
        chosen.append(Asked(QUESTIONS[which], prompt, questions.answers[which][right[which]]))
    return chosen


def lay_out(rows: Sequence[Sequence[Asked]], image: int, end: int) -> Sequences:
    """Put the questions and answers of each image into one sequence.

    Args:
        rows: questions of each image, at least one.
        image: token id that stands for an image token.
        end: token id that ends an answer.
    """
    ids, turns, positions, labels = zip(*(_join(row, image, end) for row in rows), strict=True)
    names = [[asked.name for asked in row] for row in rows]
    tensors = _stack(ids, end), _stack(turns, -1), _stack(positions, 0), _stack(labels, IGNORE)
    return Sequences(*tensors, names)


def _join(row: Sequence[Asked], image: int, end: int) -> list[list[int]]:
    """Ids, turns, positions and labels of one image; what stands up to the image is shared."""
    ids, turns = list[int](), list[int]()
    positions, labels = list[int](), list[int]()
    for turn, asked in enumerate(row, start=1):
        shared = len(asked.prompt) - asked.prompt[::-1].index(image)
        if not ids:
            ids, turns = asked.prompt[:shared], shared * [0]
        said = [*asked.answer, end]
        tokens = [*asked.prompt[shared:], *said]
        last = len(ids) + len(tokens) - 1  # the token before each said one predicts it
        positions += range(last - len(said), last)
        labels += said
        ids, turns = ids + tokens, turns + len(tokens) * [turn]
    return [ids, turns, positions, labels]


def _stack(rows: Sequence[list[int]], filler: int) -> Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([row + [filler] * (length - len(row)) for row in rows])
