"""Questions as token sequences, and which of them an image can answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from degrade import HIGH, LOW, Pairs
from janus import conversation
from torch import Tensor
from transformers import JanusProcessor, PreTrainedTokenizerFast

PROMPTS = yaml.safe_load((Path(__file__).parent / "prompts.yaml").read_text(encoding="utf-8"))
QUESTIONS = tuple(PROMPTS)
IGNORE = -100


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
        answers: ``(question, 2)`` token ids: wanted word, unwanted word.
        end: token id that ends an answer.
        image: token id that stands for an image token.
    """

    prompts: list[list[list[int]]]
    answers: Tensor
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
    return Questions(prompts, torch.tensor(answers), tokenizer.eos_token_id, image)


def _one_token(tokenizer: PreTrainedTokenizerFast, answer: str) -> int:
    ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"an answer must be one token, got {ids} for {answer!r}; raise vocab_size")
    return ids[0]


def answerable(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Say which question has which answer; images between `HIGH` and `LOW` have none.

    Args:
        pairs: the images.

    Returns:
        ``known`` ``(n, question)`` bool, and ``answer`` ``(n, question)``: 0 wanted, 1 unwanted.
    """
    low = pairs.error > LOW
    quality_known = (pairs.error < HIGH) | low
    artefact_known = low & ((pairs.kind == 1) | (pairs.kind == 2) | (pairs.kind == 3))
    return (
        torch.stack([quality_known, artefact_known], 1),
        torch.stack([low, pairs.kind == 1], 1).long(),
    )


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
    questions: Questions, pairs: Pairs, n_tokens: int, generator: torch.Generator
) -> Sequences:
    """Ask every image one question that it can answer, in a random wording.

    Args:
        questions: to choose from.
        pairs: the images.
        n_tokens: image tokens to leave room for.
        generator: source of randomness.

    Returns:
        what the language model is trained on.
    """
    known, answers = answerable(pairs)
    n = len(known)
    question = known[:, 1].long() * torch.randint(2, (n,), generator=generator)
    rows, labels = [], []
    for index, which in enumerate(question.tolist()):
        wordings = questions.prompts[which]
        wording = wordings[int(torch.randint(len(wordings), (), generator=generator))]
        word = int(questions.answers[which, answers[index, which]])
        rows.append([*_shorten(wording, questions.image, n_tokens), word, questions.end])
        labels.append([word, questions.end] if known[index, which] else [IGNORE, IGNORE])
    length = max(len(row) for row in rows)
    ids = torch.tensor([row + [questions.end] * (length - len(row)) for row in rows])
    first = torch.tensor([[len(row) - 3] for row in rows])
    return Sequences(ids, torch.cat([first, first + 1], 1), torch.tensor(labels))


def _shorten(prompt: list[int], image: int, n_tokens: int) -> list[int]:
    first = prompt.index(image)
    return prompt[:first] + [image] * n_tokens + prompt[first + prompt.count(image) :]
