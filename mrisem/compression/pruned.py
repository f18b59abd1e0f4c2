"""VGG16 or AlexNet without the channels that matter least to a bank's separation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn.utils import prune

from mrisem.data.auxiliary import AuxiliarySlices
from mrisem.errors import InputError
from mrisem.imagenet.layers import ConvolutionalLayers
from mrisem.prior.cache import Unfinished
from mrisem.prior.image.bank import EmbeddingBank
from mrisem.prior.image.perceptual import BlockTokens
from mrisem.prior.image.prior import SemanticPrior
from mrisem.progress import progress

Masks = dict[str, Tensor]  # name of a convolution -> channels that stay, ``(channel,)`` bool


@dataclass(frozen=True)
class Pruned:
    """Removal of channels (`mrisem.compression.compression.Compression`).

    A channel c with activation a counts by the first-order change of the margin M when it is set to
    zero, ``|sum_yx a_c dM/da_c|``, averaged over images (Molchanov et al. 2017); M is the mean
    similarity to an image's own side of the bank less that to the other side. In all layers
    together, the channel with the smallest count for the operations that it takes goes first.
    Outputs of compared levels keep all channels.

    Args:
        cost: share of the multiplications that stays, above 0 and below 1.
        rounds: number of rounds, before each of which channels are counted anew; each leaves the
            same share of the multiplications before it.
    """

    cost: Annotated[float, Gt(0), Lt(1)] = 1 / 3
    rounds: Annotated[int, Ge(1)] = 4

    def check(self, teacher: Any) -> None:
        """See `Compression`."""
        if not isinstance(getattr(teacher, "network", None), BlockTokens):
            raise InputError(
                "channels are pruned of VGG16 or AlexNet, got another encoder; set encoder=vgg16 "
                "or alexnet, or compression=student"
            )

    def components(self, bank: EmbeddingBank) -> list[int | None]:
        """See `Compression`: as many as the teacher's."""
        return [part.components.shape[1] for part in bank.levels.values()]

    def compress(
        self, teacher: SemanticPrior, images: AuxiliarySlices, folder: Path
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `Compression`."""
        encoder: Any = copy.deepcopy(teacher.encoder)  # the teacher keeps its channels
        prior = SemanticPrior(encoder, teacher.bank, teacher.level_weights, teacher.temperature)
        layers, levels = encoder.network.layers, encoder.network.levels
        fixed = {str(layers.block_ends[level - 1] - 2) for level in levels}  # before the ReLU
        unfinished = Unfinished(folder / "channels.safetensors")
        masks = unfinished.read() or {
            name: torch.ones(len(conv.bias), dtype=torch.bool)
            for name, conv in convolutions(layers).items()
        }
        first = int(masks.pop("done", torch.tensor(0)))
        mark(layers, masks)
        with progress("prune", self.rounds, "rounds", first) as bar:
            for done in range(first + 1, self.rounds + 1):
                scores, areas = channel_scores(prior, layers, images)
                share = self.cost ** (done / self.rounds)
                masks = choose(convolutions(layers), masks, scores, areas, fixed, share)
                mark(layers, masks)
                unfinished.save({**masks, "done": torch.tensor(done)})
                bar.advance()
        return {"network": layers.network, "grid": encoder.network.grid}, cut(layers, masks)


def convolutions(layers: ConvolutionalLayers) -> dict[str, Any]:
    """Return name -> convolution, first to last."""
    return {n: conv for n, conv in layers.features.named_children() if isinstance(conv, nn.Conv2d)}


def mark(layers: ConvolutionalLayers, masks: Masks) -> None:
    """Set channels to zero by torch's pruning, which keeps the weights beside their masks."""
    for name, conv in convolutions(layers).items():
        kept = masks[name].to(conv.bias)
        prune.custom_from_mask(conv, "weight", kept[:, None, None, None].expand_as(conv.weight))
        prune.custom_from_mask(conv, "bias", kept)


def cut(layers: ConvolutionalLayers, masks: Masks) -> dict[str, Tensor]:
    """Cut channels out: of a convolution's outputs, and of the next one's inputs."""
    weights: dict[str, Tensor] = {}
    inputs: Tensor | slice = slice(None)
    for name, conv in convolutions(layers).items():
        kept = masks[name]
        weights[f"{name}.weight"] = conv.weight.detach().cpu()[kept][:, inputs].float()
        weights[f"{name}.bias"] = conv.bias.detach().cpu()[kept].float()
        inputs = kept
    return weights


def channel_scores(
    prior: SemanticPrior, layers: ConvolutionalLayers, images: AuxiliarySlices
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Score channels: mean over images of ``|sum_yx a_c dM/da_c|``.

    Returns:
        name of a convolution -> score of each channel; and -> number of pixels of its output.
    """
    outputs: dict[str, Any] = {}
    scores: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        output.retain_grad()
        outputs[name] = output

    names = [*convolutions(layers)]
    hooks = [
        # the ReLU behind a convolution
        layers.features[int(name) + 1].register_forward_hook(
            lambda *call, name=name: keep(name, call[-1])
        )
        for name in names
    ]
    for good, bad, _ in images:
        margin(prior, torch.stack([good, bad])).backward()
        for name, a in outputs.items():
            change = (a.detach() * a.grad).sum((2, 3)).abs().mean(0).float().cpu()
            scores[name] = scores.get(name, 0) + change / len(images)
    for hook in hooks:
        hook.remove()
    return scores, {name: outputs[name][0, 0].numel() for name in names}


def margin(prior: SemanticPrior, pair: Tensor) -> Tensor:
    """Sum the margins of a good and a bad image ``(2, y, x)`` over levels, by their weights."""
    device = next(iter(prior.bank.levels.values())).entries.device
    said = prior.losses(pair.to(device).requires_grad_())
    margins = [
        weight * (said[f"positives_{level}"] - said[f"negatives_{level}"])
        for weight, level in zip(prior.level_weights, prior.bank.levels, strict=True)
    ]
    good, bad = torch.stack(margins).sum(0)  # nearer to the good side
    return good - bad


def choose(
    convs: Mapping[str, Any],
    masks: Masks,
    scores: Mapping[str, Tensor],
    areas: Mapping[str, int],
    fixed: set[str],
    share: float,
) -> Masks:
    """Remove channels, the smallest score for its cost first, until a share of the cost stays.

    Args:
        convs: convolutions with all channels, first to last.
        masks: channels that are left so far.
        scores: score of each channel.
        areas: number of pixels of each convolution's output.
        fixed: names of convolutions that keep all channels.
        share: share of the multiplications of all channels.

    Raises:
        InputError: when one channel a layer costs more.
    """
    masks = {name: mask.clone() for name, mask in masks.items()}
    n_inputs = next(iter(convs.values())).weight.shape[1]
    # multiplications for one input and one output channel
    unit = {name: areas[name] * conv.weight[0, 0].numel() for name, conv in convs.items()}

    def cost(counts: Mapping[str, int]) -> int:
        inputs = [n_inputs, *counts.values()]
        return sum(unit[name] * n * counts[name] for name, n in zip(convs, inputs, strict=False))

    limit = share * cost({name: len(masks[name]) for name in convs})
    counts = {name: int(masks[name].sum()) for name in convs}
    while (now := cost(counts)) > limit:
        candidates = []
        for name in convs:
            if name not in fixed and counts[name] > 1:
                left = scores[name].where(masks[name], torch.inf)
                saved = now - cost({**counts, name: counts[name] - 1})
                candidates.append((float(left.min()) / saved, name, int(left.argmin())))
        if not candidates:
            least = now / limit * share
            raise InputError(
                f"compression.cost must be at least {least:.3g}, which one channel a layer costs, "
                f"got {share:.3g}; set it higher"
            )
        _, name, channel = min(candidates)
        masks[name][channel] = False
        counts[name] -= 1
    return masks
