"""Encoders that `mrisem compress` has made: a light student of an encoder, and a pruned one.

A folder holds ``encoder.safetensors``, the weights, and ``encoder.json``: the kind, and all that is
needed to make the network, the hash of the teacher, and what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from mrisem.errors import InputError
from mrisem.files import reading
from mrisem.imagenet.layers import ConvolutionalLayers
from mrisem.prior.checkpoints import read_json
from mrisem.prior.image.encoder import FrozenEncoder
from mrisem.prior.image.levels import Dtype, map_tokens, torch_dtype
from mrisem.prior.image.perceptual import freeze_layers
from mrisem.prior.image.preparation import Preparation

FACTS, WEIGHTS = "encoder.json", "encoder.safetensors"


class StudentNetwork(nn.Module):
    """A few convolutions that predict the projected tokens of a teacher.

    The trunk reduces an image eight times along y and x, as VGG16 does at its fourth block, and
    sees 65 pixels (VGG16: 92). Each level has a linear head. Tokens are averaged over a grid as
    the teacher's are, and scaled to unit length.

    Args:
        widths: number of components of each level's tokens.
        grid: number of tokens along y and x.
        channels: number of channels at full resolution; four times as many at an eighth.
    """

    def __init__(self, widths: Sequence[int], grid: int, channels: int) -> None:
        super().__init__()
        self.grid, c = grid, channels
        # (in, out, stride, dilation)
        plan = [(1, c, 1, 1), (c, c, 2, 1), (c, 2 * c, 2, 1), (2 * c, 4 * c, 2, 1)]
        plan += [(4 * c, 4 * c, 1, 1), (4 * c, 4 * c, 1, 2)]
        layers: list[nn.Module] = []
        for n_in, n_out, stride, dilation in plan:
            # SiLU: smooth, so that the gradient at the image is, too
            layers += [nn.Conv2d(n_in, n_out, 3, stride, dilation, dilation), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Conv2d(4 * c, width, 1) for width in widths)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map pixels ``(n, 1, y, x)`` to unit vectors ``(n, token, component)`` of each level."""
        maps = self.trunk(pixels)
        return tuple(normalize(map_tokens(head(maps), self.grid), dim=-1) for head in self.heads)


def student_preparation(frame: Mapping[str, int | None]) -> Preparation:
    """Map images to [-1, 1] within the frame that the teacher sees.

    Args:
        frame: ``image_size`` and ``resized`` of the teacher's `Preparation`.
    """
    return Preparation(frame["image_size"], 1, (0.5, 0.5), resized=frame["resized"])


def load_student(
    path: str | None, levels: Sequence[int] = (4,), dtype: Dtype = "auto"
) -> FrozenEncoder:
    """Load a student, whose tokens are the teacher's projected ones, ``N(P^T (h - m))``.

    They need no further PCA (``components=[null]``), and the teacher is not needed. A loss compares
    them with a bank that the student has built itself, not with the teacher's entries: what the
    student gets wrong in the same way at every image then cancels, other auxiliary subjects
    serve, and `mrisem.prior.image.builder` builds and names that bank as any other.

    Args:
        path: folder that `mrisem compress compression=student` has written.
        levels: levels of the teacher that are compared.
        dtype: dtype of weights and embeddings; ``auto``: bfloat16 if torch finds a CUDA device,
            else float32.

    Returns:
        encoder on the CPU.

    Raises:
        InputError: when the folder holds no student, or one of other levels.
    """
    folder, facts, weights = _read(path, "student", levels)
    with reading(folder / WEIGHTS, "the weights of a student", "compress again"):
        network = StudentNetwork(facts["widths"], facts["grid"], facts["channels"])
        network.load_state_dict(weights)
        prepare = student_preparation(facts["frame"])
    chosen = [facts["levels"].index(level) for level in levels]
    network.heads = nn.ModuleList(network.heads[index] for index in chosen)
    return FrozenEncoder(
        network.to(torch_dtype(dtype)),
        prepare,
        tuple(levels),
        tuple(facts["widths"][index] for index in chosen),
        facts["grid"] ** 2,
        ("student", tuple(levels), facts["grid"]),
    )


def load_pruned(
    path: str | None, levels: Sequence[int] = (4,), dtype: Dtype = "auto"
) -> FrozenEncoder:
    """Load a pruned VGG16 or AlexNet; the compared levels are as wide as the whole network's.

    Args:
        path: folder that `mrisem compress compression=pruned` has written.
        levels: levels that are compared.
        dtype: dtype of weights and embeddings; ``auto``: bfloat16 if torch finds a CUDA device,
            else float32.

    Returns:
        encoder on the CPU.

    Raises:
        InputError: when the folder holds no pruned network, or one of other levels.
    """
    folder, facts, weights = _read(path, "pruned", levels)
    with reading(folder / WEIGHTS, "the weights of a pruned network", "compress again"):
        layers = ConvolutionalLayers(facts["network"], weights, max(levels))
    return freeze_layers(layers.to(torch_dtype(dtype)), tuple(levels), facts["grid"])


def _read(
    path: str | None, kind: str, levels: Sequence[int]
) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Read folder, facts and weights of a compressed encoder."""
    folder = Path(path or "").expanduser()
    if path is None or not all((folder / name).is_file() for name in (FACTS, WEIGHTS)):
        raise InputError(
            f"encoder.path must be a folder with {FACTS} and {WEIGHTS}, got {path}; make one with "
            f"`mrisem compress compression={kind}`"
        )
    facts = read_json(folder / FACTS)
    if facts.get("kind") != kind:
        raise InputError(
            f"encoder={kind} needs a folder of that kind, {folder} holds {facts.get('kind')}; set "
            "encoder to it"
        )
    if not levels or not set(levels) <= {*facts["levels"]}:
        raise InputError(
            f"the {kind} network of {folder} was made for levels {facts['levels']}, got "
            f"{[*levels]}; set encoder.levels to some of them, or compress again"
        )
    with reading(folder / WEIGHTS, "whole safetensors weights", "compress again"):
        return folder, facts, load_file(folder / WEIGHTS)
