"""Keep of a checkpoint what a warm start needs: the weights, in half precision."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

LIMIT = 3e6  # bytes that may ship


def main() -> None:
    """``export.py SOURCE TARGET``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="written by `mrisem train`")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    weights = torch.load(arguments.source, weights_only=True)["state_dict"]
    torch.save({"state_dict": {k: v.half() for k, v in weights.items()}}, arguments.target)
    size = arguments.target.stat().st_size
    if size > LIMIT:
        raise SystemExit(
            f"{arguments.target} has {size / 1e6:.2f} MB, more than 3; train a smaller"
        )
    print(f"{sum(v.numel() for v in weights.values())} weights, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
