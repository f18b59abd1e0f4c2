"""Where questions and answers come from: made of clean slices, or written by the user."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mrisem.adaptation.degrade import draw_pairs, draw_severity
from mrisem.adaptation.model import AskedImages
from mrisem.adaptation.pool import Pool
from mrisem.adaptation.questions import Asked, Questions, ask, draw_sequences, lay_out, say
from mrisem.errors import InputError
from mrisem.files import reading
from mrisem.physics.masks import stable_seed

FULL, CLEAN = 0.5, 0.25  # shares of fully damaged and of clean images, as janus_mini learnt them
_COLUMNS = {"image", "question", "answer"}
_PICTURES = (".npy", ".png", ".jpg", ".jpeg", ".tif", ".tiff")


class Material(Protocol):
    """Images with questions and answers."""

    def draw(self, n: int, generator: torch.Generator) -> AskedImages:
        """Draw n images with their questions."""

    def fixed(self, n: int) -> Iterator[AskedImages]:
        """Yield n images, the same at each call, in batches."""


class MadePairs:
    """Clean slices, degraded at random, and what can be asked about them.

    Args:
        pool: clean slices.
        questions: tokenised.
    """

    def __init__(self, pool: Pool, questions: Questions) -> None:
        self.pool, self.questions = pool, questions

    def draw(self, n: int, generator: torch.Generator) -> AskedImages:
        """See `Material`."""
        severity = draw_severity(n, generator, FULL, CLEAN)
        pairs = draw_pairs(self.pool, sorted(self.pool), severity, generator)
        return AskedImages([*pairs.image], draw_sequences(self.questions, pairs, generator))

    def fixed(self, n: int) -> Iterator[AskedImages]:
        """See `Material`."""
        for first in range(0, n, 4):
            generator = torch.Generator().manual_seed(stable_seed("fixed", first))
            yield self.draw(min(4, n - first), generator)


class WrittenPairs:
    """Images with questions and answers of the user's own.

    Args:
        rows: see `read_rows`.
        processor: processor of the checkpoint, which has the tokeniser.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], processor: Any) -> None:
        self.processor = processor
        self.image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        self.by_image: dict[Path, list[dict[str, Any]]] = {}
        for row in rows:
            self.by_image.setdefault(row["image"], []).append(row)

    def draw(self, n: int, generator: torch.Generator) -> AskedImages:
        """See `Material`."""
        paths = [*self.by_image]
        return self._asked([paths[i] for i in torch.randperm(len(paths), generator=generator)[:n]])

    def fixed(self, n: int) -> Iterator[AskedImages]:
        """See `Material`."""
        for path in [*self.by_image][:n]:
            yield self._asked([path])

    def _asked(self, paths: Sequence[Path]) -> AskedImages:
        rows = [[self._tokens(row) for row in self.by_image[path]] for path in paths]
        sequences = lay_out(rows, self.image, self.processor.tokenizer.eos_token_id)
        return AskedImages([read_picture(path) for path in paths], sequences)

    def _tokens(self, row: dict[str, Any]) -> Asked:
        question, answer = ask(self.processor, row["question"]), say(self.processor, row["answer"])
        return Asked("written", question, answer)


def read_rows(place: Path) -> list[dict[str, Any]]:
    """Read a JSONL file of pairs: ``image`` beside it, ``question``, ``answer``, and ``subject``.

    Args:
        place: the file, or a folder with one such file.

    Returns:
        rows with ``image`` as a path; without ``subject`` each image is a subject of its own.

    Raises:
        InputError: when there are none, a row is wrong, or images are missing.
    """
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    if len(files) != 1 or not files[0].is_file():
        raise InputError(
            f"pairs must be one .jsonl file, or a folder with one, got {len(files)} in {place}; "
            "name the file"
        )
    lines = files[0].read_text(encoding="utf-8").splitlines()
    rows = [_row(line, f"{files[0]}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"pairs must hold a line for each question, got none in {files[0]}")
    for row in rows:
        row.setdefault("subject", row["image"])
        row["image"] = files[0].parent / row["image"]
    missing = sorted({str(r["image"]) for r in rows if not r["image"].is_file()})
    if missing:
        raise InputError(
            f"images must lie beside their pairs, {len(missing)} are missing, such as {missing[0]};"
            " correct the column image"
        )
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    with reading(Path(where), "one JSON object a line", "correct the line"):
        row = dict(json.loads(line))
    columns = {*_COLUMNS, "subject"}
    if unknown := sorted(row.keys() - columns):
        raise InputError(
            f"columns of pairs are {', '.join(sorted(columns))}, got {unknown[0]} in {where}"
        )
    if bad := sorted(c for c in _COLUMNS if not isinstance(row.get(c), str) or not row[c].strip()):
        raise InputError(f"each pair needs text in {bad[0]}, got {row.get(bad[0])!r} in {where}")
    return row


def read_picture(path: Path) -> Tensor:
    """Read a magnitude image, ``(y, x)`` float32; of colours the mean.

    Raises:
        InputError: when it cannot be read, or is no such image.
    """
    from PIL import Image

    if path.suffix.lower() not in _PICTURES:
        raise InputError(f"images of pairs end in {', '.join(_PICTURES)}, got {path}; convert it")
    with reading(path, "an image", "write it again"):
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                values = np.asarray(picture)
        values = values[..., :3].mean(-1) if values.ndim == 3 else values
        image = torch.from_numpy(np.asarray(values, dtype=np.float32))
    if image.ndim != 2 or not bool(torch.isfinite(image).all()) or float(image.min()) < 0:
        raise InputError(f"an image must be (y, x), finite and not negative, got {path}")
    return image
