"""Answers on held-out subjects, over all wordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from degrade import KINDS, Pairs, draw_pairs
from janus import answer, encode
from questions import QUESTIONS, Questions, answerable
from torch import Tensor
from tqdm import tqdm
from transformers import JanusForConditionalGeneration

FIRST_SEED = 9_000_000  # of the held-out degradations
BATCH = 16
CLEAR = 0.12  # relative error above which the damage is plain to see


@torch.no_grad()
def evaluate(
    model: JanusForConditionalGeneration,
    questions: Questions,
    pool: dict[str, Tensor],
    config: dict[str, Any],
    output: Path,
) -> None:
    """Ask held-out images every wording; write ``results.json`` and print its table.

    Args:
        model: trained.
        questions: tokenised.
        pool: its ``held_out`` slices are used.
        config: the run's.
        output: folder of ``results.json``.
    """
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, config["n_evaluate"], BATCH), desc="held-out subjects"):
        generator = torch.Generator().manual_seed(FIRST_SEED + start)
        pairs = draw_pairs(pool["held_out"], config["sizes"], BATCH, generator)
        rows += ask(model, questions, pairs)
    results = summarise(rows)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for group, score in results.items():
        print(f"{group:45s} {100 * score['accuracy']:6.2f} %  n = {score['n']}")


def ask(
    model: JanusForConditionalGeneration, questions: Questions, pairs: Pairs
) -> list[dict[str, Any]]:
    """Ask all images all wordings of the questions that they can answer.

    The answer is the most likely token of the whole vocabulary: what greedy generation gives first.

    Returns:
        one row an image, question and wording.
    """
    known, truth = answerable(pairs)
    tokens = encode(model, pairs.image)
    rows = []
    for which, name in enumerate(QUESTIONS):
        for wording, prompt in enumerate(questions.prompts[which]):
            ids = torch.tensor(prompt).expand(len(tokens), -1)
            last = torch.full((len(tokens), 1), len(prompt) - 1)
            said = answer(model, tokens, ids, last)[:, 0].argmax(-1)
            right = said == questions.answers[which, truth[:, which]]
            rows += [
                {
                    "question": name,
                    "wording": wording,
                    "kind": KINDS[pairs.kind[i]],
                    "truth": int(truth[i, which]),
                    "clear": bool(pairs.kind[i] == 0 or pairs.error[i] > CLEAR),
                    "right": bool(right[i]),
                }
                for i in known[:, which].nonzero().flatten().tolist()
            ]
    return rows


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy and count by question, and within it by clearness, wording, kind and true answer."""
    results: dict[str, dict[str, float]] = {}
    for name in QUESTIONS:
        mine = [row for row in rows if row["question"] == name]
        groups = {name: mine}
        for key in ("clear", "wording", "kind", "truth"):
            for value in sorted({row[key] for row in mine}):
                groups[f"{name}, {key} {value}"] = [row for row in mine if row[key] == value]
        for group, members in groups.items():
            if members:
                share = sum(row["right"] for row in members) / len(members)
                results[group] = {"accuracy": share, "n": len(members)}
    return results
