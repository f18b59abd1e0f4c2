"""What a gradient is worth before it is used: its cosine with the error that it should mend.

python experiments/pretrain_janus_mini/measure.py [--material DIR]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from degrade import draw_material, draw_pairs
from evaluate import measure_alignment
from gradient import MOVED
from material import load_material
from pairs import KINDS, Pairs, join
from pool import load_pool
from torch import Tensor
from torch.nn.functional import cosine_similarity, unfold
from tqdm import tqdm
from train import HERE
from transformers import JanusForConditionalGeneration

import mrisem

SIZE, BATCH = 192, 8  # of images; synthetic ones, and as many reconstructions, in a batch
N_FIT, N_MEASURE, FIRST_SEED = 60, 12, 9_500_000  # batches
RIDGE = 1e-3  # of the mean square of a pixel
SHIPPED_LEVELS, SHIPPED_COMPONENTS = {1: 1.0}, {1: 32}  # conf/encoder
Cosines = dict[str, list[float]]  # kind of artefact -> cosine of each image


def batches(folder: Path, side: str, n: int, seed: int) -> Iterator[Pairs]:
    """Yield ``n`` batches of degraded slices and reconstructions of one side of the split."""
    config = yaml.safe_load((HERE / "config.yaml").read_text(encoding="utf-8"))
    pool = load_pool(config["pool"], config["seed"], folder)[side]
    material = load_material(folder, config["rounds"], SIZE)[side]
    for index in tqdm(range(n), desc=side):
        generator = torch.Generator().manual_seed(seed + index)
        synthetic = draw_pairs(pool, [SIZE], BATCH, generator)
        yield join([synthetic, draw_material(material, BATCH, generator)])


def add(cosines: Cosines, pairs: Pairs, found: Tensor, error: Tensor) -> None:
    """Add the cosine of each image that has an error worth a direction."""
    values = cosine_similarity(found.flatten(1), error.flatten(1))
    for index in (pairs.error > MOVED).nonzero().flatten().tolist():
        cosines.setdefault(KINDS[pairs.kind[index]], []).append(float(values[index]))


def linear_filter(folder: Path, held_out: list[Pairs]) -> Cosines:
    """The best linear prediction of 8 x 8 errors from the 16 x 16 pixels around (ridge)."""

    def patches(pairs: Pairs) -> tuple[Tensor, Tensor]:
        peak = pairs.image.amax((-2, -1), keepdim=True)
        image, error = pairs.image / peak, (pairs.image - pairs.truth) / peak
        seen = unfold(image[:, None], 16, stride=8).movedim(1, 2)
        wanted = unfold(error[:, None, 4:-4, 4:-4], 8, stride=8).movedim(1, 2)
        return seen - seen.mean(-1, keepdim=True), wanted

    gram, cross = torch.zeros(256, 256).double(), torch.zeros(256, 64).double()
    for pairs in batches(folder, "train", N_FIT, 0):
        weight = 1 / (pairs.error[:, None, None] + MOVED)  # slight errors count, too
        seen, wanted = ((weight * p).flatten(0, 1).double() for p in patches(pairs))
        gram, cross = gram + seen.T @ seen, cross + seen.T @ wanted
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(256).double()
    kernel = torch.linalg.solve(gram + ridge, cross).float()
    cosines: Cosines = {}
    for pairs in held_out:
        seen, wanted = patches(pairs)
        add(cosines, pairs, seen @ kernel, wanted)
    return cosines


def shipped(held_out: list[Pairs]) -> Cosines:
    """The gradient of the prior of the encoder that ships, other images being the bank."""
    folder = Path(mrisem.__file__).parent / "assets" / "janus_mini"
    model = JanusForConditionalGeneration.from_pretrained(folder)
    cosines: Cosines = {}
    for pairs in tqdm(held_out, desc="shipped"):
        found = measure_alignment(model.eval(), SHIPPED_LEVELS, SHIPPED_COMPONENTS, pairs)
        for kind, cosine in found:
            cosines.setdefault(KINDS[kind], []).append(cosine)
    return cosines


def main() -> None:
    """Print the table; write it to ``gradient.json`` in the material's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, default=Path("outputs/pretrain_janus_mini"))
    arguments = parser.parse_args()
    held_out = list(batches(arguments.material, "held_out", N_MEASURE, FIRST_SEED))
    rows = {
        "linear filter of 16 x 16 pixels": linear_filter(arguments.material, held_out),
        "shipped: gradient of its prior": shipped(held_out),
    }
    table = {
        name: {kind: {"mean": sum(v) / len(v), "n": len(v)} for kind, v in sorted(row.items())}
        for name, row in rows.items()
    }
    text = json.dumps(table, indent=2) + "\n"
    (arguments.material / "gradient.json").write_text(text, encoding="utf-8")
    for name, row in table.items():
        cells = (f"{kind} {cell['mean']:+.3f} ({cell['n']})" for kind, cell in row.items())
        print(f"{name:50s} {', '.join(cells)}")


if __name__ == "__main__":
    main()
