"""Peak host memory of building the paper's knee bank: 20 subjects x 36 slices, 1440 images, ViT-L.

Random features stand for the encoder's, so that the figure is the bank's own.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from mrisem.prior.image.bank import EmbeddingBank
from mrisem.prior.image.building import build_bank

N_SLICES, N_TOKENS, WIDTH = 720, 576, 1024


class RandomFeatures:
    """Features of ViT-L/16-384's shape, the same for the same image."""

    levels = (1, 13, 24)
    widths = (WIDTH,) * 3
    n_tokens = N_TOKENS
    fingerprint = "random"

    def __call__(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """Three levels of ``(n, 576, 1024)``."""
        generator = torch.Generator().manual_seed(int(magnitude[0, 0, 0]))
        shape = (len(magnitude), N_TOKENS, WIDTH)
        return tuple(torch.randn(shape, generator=generator) for _ in self.levels)


class Slices:
    """Numbered images."""

    def __len__(self) -> int:
        return N_SLICES

    def __iter__(self):
        for index in range(N_SLICES):
            yield torch.full((2, 2), float(index)), torch.full((2, 2), float(index)), None


def peak_gigabytes() -> float:
    """Peak resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Build, save and load, and print the peaks."""
    print(f"before                    {peak_gigabytes():5.2f} GB")
    start = time.perf_counter()
    bank = build_bank(
        RandomFeatures(), Slices(), (64, 128, 256), {}, dtype=torch.bfloat16, batch_size=4
    )
    print(f"built in {time.perf_counter() - start:6.0f} s        peak {peak_gigabytes():5.2f} GB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.safetensors"
        bank.save(path)
        print(f"saved, {path.stat().st_size / 1e9:.2f} GB on disk  peak {peak_gigabytes():5.2f} GB")
        del bank
        EmbeddingBank.load(path)
    print(f"loaded again              peak {peak_gigabytes():5.2f} GB")


if __name__ == "__main__":
    main()
