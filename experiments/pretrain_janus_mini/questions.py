"""Questions as token sequences, and which of them an image can answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from janus import conversation
from pairs import HIGH, LOW, Pairs
from pool import N_BRAIN
from torch import Tensor
from transformers import JanusProcessor, PreTrainedTokenizerFast

PROMPTS = yaml.safe_load((Path(__file__).parent / "prompts.yaml").read_text(encoding="utf-8"))
QUESTIONS = tuple(PROMPTS)
IGNORE = -100
# `KINDS` -> answer to "kind"; reconstructions err in a way of their own: not asked
_KIND_ANSWERS = torch.tensor([0, 1, 2, 2, 3, 4, IGNORE])
_WHOLE = ("lesion",)  # questions that a small part of the image cannot answer


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
    """Let the processor itself build every conversation.

    Args:
        processor: of the checkpoint.

    Returns:
        the questions.
    """
    tokenizer = processor.tokenizer
    side = processor.image_processor.size["height"]
    blank = torch.zeros(3, side, side, dtype=torch.uint8)
    prompts = []
    for name in QUESTIONS:
        texts = [
            processor.apply_chat_template(conversation(wording), add_generation_prompt=True)
            for wording in PROMPTS[name]["wordings"]
        ]
        prompts.append([processor(text=t, images=[blank])["input_ids"][0].tolist() for t in texts])
    answers = [[_one_token(tokenizer, a) for a in PROMPTS[name]["answers"]] for name in QUESTIONS]
    image = tokenizer.convert_tokens_to_ids(processor.image_token)
    return Questions(prompts, answers, tokenizer.eos_token_id, image)


def _one_token(tokenizer: PreTrainedTokenizerFast, answer: str) -> int:
    ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"an answer must be one token, got {ids} for {answer!r}; raise vocab_size")
    return ids[0]


def answers_of(pairs: Pairs) -> Tensor:
    """Say what the answers are; images between `HIGH` and `LOW` are not asked for artefacts.

    Args:
        pairs: the images.

    Returns:
        ``(n, question)``: index of the right word, `IGNORE` where there is none.
    """
    high, low = pairs.error < HIGH, pairs.error > LOW
    kind = _KIND_ANSWERS[pairs.kind]
    unknown = torch.full_like(pairs.kind, IGNORE)
    right = {
        "quality": low.long().where(high | low, unknown),
        "artefact": (kind == 1).long().where(low & ((kind == 1) | (kind == 2)), unknown),
        "kind": torch.where(high, 0, kind.where(low, unknown)),
        "contrast": pairs.contrast,
        "anatomy": (pairs.contrast >= N_BRAIN).long(),
        "lesion": (1 - pairs.lesion).where(pairs.lesion >= 0, unknown),
    }
    return torch.stack([right[name] for name in QUESTIONS], 1)


@dataclass(frozen=True)
class Sequences:
    """Questions with their answers, one an image, padded on the right.

    Args:
        ids: ``(n, length)`` token ids.
        positions: ``(n, 2)`` where the answer and its end are predicted.
        labels: ``(n, 2)`` what they should be; `IGNORE` where the image has no clear answer.
    """

    ids: Tensor
    positions: Tensor
    labels: Tensor


def draw_sequences(
    questions: Questions, pairs: Pairs, n_tokens: int, whole: bool, generator: torch.Generator
) -> Sequences:
    """Ask every image one question that it can answer, in a random wording.

    The first two, quality and artefact, are asked as often as all the others together, each.

    Args:
        questions: to choose from.
        pairs: the images.
        n_tokens: image tokens to leave room for.
        whole: the images are seen whole: ask what needs that, too.
        generator: source of randomness.

    Returns:
        what the language model is trained on.
    """
    right = answers_of(pairs)
    asked = torch.tensor([whole or name not in _WHOLE for name in QUESTIONS])
    weights = (right != IGNORE) * asked + 1e-9
    weights[:, :2] *= asked.sum() - 2
    chosen = torch.multinomial(weights.float(), 1, generator=generator)[:, 0].tolist()
    rows, labels = [], []
    for index, which in enumerate(chosen):
        wordings = questions.prompts[which]
        wording = wordings[int(torch.randint(len(wordings), (), generator=generator))]
        answer = int(right[index, which])
        word = questions.answers[which][max(answer, 0)]
        rows.append([*_shorten(wording, questions.image, n_tokens), word, questions.end])
        labels.append([word, questions.end] if answer != IGNORE else [IGNORE, IGNORE])
    length = max(len(row) for row in rows)
    ids = torch.tensor([row + [questions.end] * (length - len(row)) for row in rows])
    first = torch.tensor([[len(row) - 3] for row in rows])
    return Sequences(ids, torch.cat([first, first + 1], 1), torch.tensor(labels))


def _shorten(prompt: list[int], image: int, n_tokens: int) -> list[int]:
    first = prompt.index(image)
    return prompt[:first] + [image] * n_tokens + prompt[first + prompt.count(image) :]
