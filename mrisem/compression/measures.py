"""What a compressed encoder keeps of its teacher, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mrisem.compression.compression import loss_gradient, project
from mrisem.prior.image.prior import SemanticPrior


def agreement(
    teacher: SemanticPrior,
    compressed: SemanticPrior,
    components: Sequence[int | None],
    images: Iterable[tuple[Tensor, Tensor, Any]],
) -> dict[str, float]:
    """Compare tokens, and gradients of the loss, at images that nothing was made of.

    Args:
        teacher: prior with the teacher and its bank.
        compressed: prior with the new encoder and the bank that it has built.
        components: number of PCA components of each level of that bank; None: none, where outputs
            are projected as the teacher's are.
        images: good and bad image ``(y, x)`` of each slice.

    Returns:
        mean cosines of ``tokens``; at images halfway between good and bad and at bad ones, of both
        ``gradients``, and of each gradient with the error, ``teacher`` and ``own``.
    """
    parts, own = ([*prior.bank.levels.values()] for prior in (teacher, compressed))
    # projections by which tokens of both compare: a PCA of its own would turn them
    alike = [o if n is None else p for p, o, n in zip(parts, own, components, strict=True)]
    rows = []
    for good, bad, _ in images:
        good, bad = good / good.max(), bad / bad.max()
        image = torch.stack([(good + bad) / 2, bad]).to(parts[0].entries.device)
        pairs = zip(
            project(teacher.encoder, parts, image),
            project(compressed.encoder, alike, image),
            strict=True,
        )
        near = torch.stack([(z * z_t).sum(-1).mean() for z, z_t in pairs])
        slope, other = (loss_gradient(p, image).flatten(1) for p in (teacher, compressed))
        error = (bad - good).flatten().to(image.device)
        of_both = cosine_similarity(slope, other)
        cosines = [of_both, *(cosine_similarity(g, error) for g in (slope, other))]
        rows.append(torch.stack([near.mean(), *(value.mean() for value in cosines)]))
    names = ("tokens", "gradients", "teacher", "own")
    return dict(zip(names, torch.stack(rows).mean(0).tolist(), strict=True))


def seconds(encoders: Sequence[Any], image: Tensor, repeats: int = 5) -> list[float]:
    """Time an image with its gradient on the processor, in turns: other work slows all alike.

    Args:
        encoders: modules, which are moved to the CPU.
        image: ``(n, y, x)``.
        repeats: number of turns, of which the median counts; one more before warms up.

    Returns:
        seconds of the processor of each encoder.
    """

    def turn(encoder: Any) -> float:
        start = time.process_time()
        levels = encoder.cpu()(image.cpu().detach().requires_grad_())
        torch.stack([level.float().sum() for level in levels]).sum().backward()
        return time.process_time() - start

    turns = [[turn(encoder) for encoder in encoders] for _ in range(repeats + 1)][1:]
    return [median(column) for column in zip(*turns, strict=True)]
