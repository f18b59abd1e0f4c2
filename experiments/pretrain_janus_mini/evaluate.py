"""Answers on held-out subjects, over all wordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from degrade import draw_material, draw_pairs
from gradient import alignment, batch_prior, principal
from janus import answer, encode
from losses import N_ANSWERS
from pairs import KINDS, LOW, Pairs
from questions import IGNORE, QUESTIONS, Questions, answers_of
from tqdm import tqdm
from transformers import JanusForConditionalGeneration

if TYPE_CHECKING:
    from train import Trainer

FIRST_SEED = 9_000_000  # of the held-out degradations
BATCH = 16


def evaluate(trainer: Trainer, output: Path) -> None:
    """Ask held-out images every wording, measure the prior's gradient; write ``results.json``.

    Args:
        trainer: after its last step.
        output: folder of ``results.json``, whose table is printed.
    """
    config, rows = trainer.config, []
    cosines: dict[str, list[float]] = {}
    for start in tqdm(range(0, config["n_evaluate"], BATCH), desc="held-out subjects"):
        generator = torch.Generator().manual_seed(FIRST_SEED + start)
        pairs = draw_pairs(trainer.pool["held_out"], config["sizes"], BATCH, generator)
        batches = [pairs]
        if "held_out" in trainer.material:
            batches.append(draw_material(trainer.material["held_out"], BATCH, generator))
        for batch in batches:
            rows += ask(trainer.model, trainer.questions, batch) + read(trainer, batch)
            found = measure_alignment(trainer.model, config["levels"], config["components"], batch)
            for kind, cosine in found:
                cosines.setdefault(KINDS[kind], []).append(cosine)
    results = summarise(rows)
    for kind, values in sorted(cosines.items()):
        results[f"cosine of gradient and error, {kind}"] = {
            "mean": sum(values) / len(values),
            "n": len(values),
        }
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for group, score in results.items():
        value = 100 * score["accuracy"] if "accuracy" in score else score["mean"]
        print(f"{group:45s} {value:7.2f}  n = {score['n']}")


def measure_alignment(
    model: JanusForConditionalGeneration,
    weights: dict[int, float],
    components: dict[int, int],
    pairs: Pairs,
) -> list[tuple[int, float]]:
    """Kind of artefact, and cosine between the prior's gradient and the error, of each image."""
    if not (pairs.error > LOW).any():
        return []
    image = pairs.image.clone().requires_grad_()
    _, hidden = encode(model, torch.cat([image, pairs.truth]))
    levels = {level: principal(hidden[level], components[level]) for level in weights}
    _, prior = batch_prior(levels, weights, pairs.error)
    cosine, moved = alignment(prior[: len(pairs)], image, pairs.truth, pairs.error)
    return list(zip(pairs.kind[moved].tolist(), cosine.tolist(), strict=True))


@torch.no_grad()
def ask(
    model: JanusForConditionalGeneration, questions: Questions, pairs: Pairs
) -> list[dict[str, Any]]:
    """Ask all images all wordings of the questions that they can answer.

    The answer is the most likely token of the whole vocabulary: what greedy generation gives first.

    Returns:
        one row an image, question and wording.
    """
    truth = answers_of(pairs)
    tokens, _ = encode(model, pairs.image)
    rows = []
    for which, name in enumerate(QUESTIONS):
        words = torch.tensor(questions.answers[which])
        for wording, prompt in enumerate(questions.prompts[which]):
            ids = torch.tensor(prompt).expand(len(tokens), -1)
            last = torch.full((len(tokens), 1), len(prompt) - 1)
            said = answer(model, tokens, ids, last)[:, 0].argmax(-1)
            rows += [
                {
                    "question": name,
                    "wording": wording,
                    "kind": KINDS[pairs.kind[i]],
                    "truth": int(truth[i, which]),
                    "right": bool(said[i] == words[truth[i, which]]),
                }
                for i in (truth[:, which] != IGNORE).nonzero().flatten().tolist()
            ]
    return rows


@torch.no_grad()
def read(trainer: Trainer, pairs: Pairs) -> list[dict[str, Any]]:
    """Read the answers off the tower by its linear heads: what the language model could say.

    Returns:
        one row an image and question, the question named as the head's.
    """
    truth = answers_of(pairs)
    tokens, _ = encode(trainer.model, pairs.image)
    found = trainer.head["read"](tokens.mean(1)).split(N_ANSWERS, 1)
    return [
        {"question": f"{name} (linear head)", "right": bool(found[which][i].argmax() == answer)}
        for which, name in enumerate(QUESTIONS)
        for i, answer in enumerate(truth[:, which].tolist())
        if answer != IGNORE
    ]


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy and count by question, and within it by wording, kind and true answer."""
    results: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row["question"] for row in rows):
        mine = [row for row in rows if row["question"] == name]
        groups = {name: mine}
        for key in [k for k in ("wording", "kind", "truth") if k in mine[0]]:
            for value in sorted({row[key] for row in mine}):
                groups[f"{name}, {key} {value}"] = [row for row in mine if row[key] == value]
        for group, members in groups.items():
            if members:
                share = sum(row["right"] for row in members) / len(members)
                results[group] = {"accuracy": share, "n": len(members)}
    return results
