"""HaarPSI, VIF, LPIPS and DISTS: similarity as a viewer judges it.

Arguments: see `mrisem.metrics.score`; both images are clipped to the data range.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
import torchmetrics
from torch import Tensor
from torch.nn.functional import conv2d

from mrisem.imagenet.layers import MEAN, STD, ConvolutionalLayers
from mrisem.imagenet.weights import MissingWeightsError, read_weights
from mrisem.metrics.score import Score
from mrisem.physics.units import common_unit

log = logging.getLogger(__name__)

SMALLEST_VIF = 41  # pixels: four scales, each a valid filtering (17, 9, 5, 3) and a halving

# LPIPS maps [-1, 1] to the networks' input by these, per colour channel.
_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LPIPS_FILES = {"alexnet": "alex.pth", "vgg16": "vgg.pth"}
_DISTS_C = 1e-6  # c of both similarities


def _unit_images(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> Tensor:
    """``(2, 1, 1, y, x)`` float32: both magnitudes over ``data_range``, clipped to [0, 1]."""
    reconstruction, target, exponent = common_unit(reconstruction, target)
    data_range = np.ldexp(data_range, exponent)
    images = np.stack([reconstruction, target])[:, None, None].astype(np.float32)
    return torch.from_numpy(np.clip(images / np.float32(data_range), 0, 1))


def haarpsi(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Haar wavelet perceptual similarity index, with the authors' constants, from 16 x 16 pixels.

    Range: [0, 1]; higher is better. Source: Reisenhofer et al. 2018, by ``piq.haarpsi``.
    """
    import piq  # takes seconds to import

    images = _unit_images(reconstruction, target, data_range)
    return float(piq.haarpsi(*images, data_range=1.0))


def vif(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float | None:
    """Visual information fidelity in the pixel domain, with piq's (the authors') constants.

    The share of the target's information, seen through a noisy eye, that the reconstruction keeps.
    Range: [0, about 1], above 1 where contrast was enhanced; higher is better.
    None for images below 41 x 41 pixels and for an empty target.
    Source: Sheikh & Bovik 2006, by ``piq.vif_p``.
    """
    if min(target.shape) < SMALLEST_VIF or not target.any():
        return None
    import piq  # takes seconds to import

    images = _unit_images(reconstruction, target, data_range)
    return float(piq.vif_p(*images, data_range=1.0))


def lpips_distance(layers: ConvolutionalLayers, images: Tensor) -> Tensor:
    """Learned perceptual image patch similarity of two images.

    ``sum_l mean_yx sum_c w_lc (f_lc - g_lc)^2`` over the blocks l, with the activations of each
    pixel divided by their norm over the channels c. Source: Zhang et al. 2018, version 0.1; the
    weights w are those that torchmetrics ships, and the norm is guarded as there.

    Args:
        layers: AlexNet or VGG16, all five blocks.
        images: ``(2, 3, y, x)`` float32 in [0, 1].

    Returns:
        the distance, without axes: 0 for equal images.
    """
    shift, scale = (torch.tensor(v)[:, None, None] for v in (_LPIPS_SHIFT, _LPIPS_SCALE))
    activations = layers((2 * images - 1 - shift) / scale)
    distance = images.new_zeros(())
    for activation, weight in zip(activations, _lpips_weights(layers.network), strict=True):
        norm = (activation.square().sum(1, keepdim=True) + 1e-8).sqrt()
        first, second = activation / norm
        distance = distance + (weight * (first - second).square()).sum(0).mean()
    return distance


def dists_distance(layers: ConvolutionalLayers, images: Tensor) -> Tensor:
    """Deep image structure and texture similarity of two images, as a distance.

    ``1 - sum_lc (alpha_lc l(f, g) + beta_lc s(f, g))`` over the channels c of the image itself
    (l = 0) and of the five blocks, whose max poolings are replaced by Hann-weighted L2 poolings;
    ``l = (2 m_f m_g + c) / (m_f^2 + m_g^2 + c)`` with the means over the pixels and
    ``s = (2 cov_fg + c) / (var_f + var_g + c)``. Source: Ding et al. 2020; the weights alpha and
    beta, of sum 1 together, are those that torchmetrics ships. Images keep their size (the authors'
    script shrinks larger ones to 256 pixels). Arguments and result as for `lpips_distance`, of
    VGG16.
    """
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    maps, hidden = [images], (images - mean) / std
    for index, block in enumerate(layers.blocks()):
        hidden = block(hidden) if index == 0 else block[1:](_l2_pool(hidden))
        maps.append(hidden)
    centres = [m.mean((-2, -1), keepdim=True) for m in maps]
    centred = [m - centre for m, centre in zip(maps, centres, strict=True)]
    means = torch.cat(centres, 1).flatten(1)
    variances = torch.cat([m.square().mean((-2, -1)) for m in centred], 1)
    covariance = torch.cat([(m[0] * m[1]).mean((-2, -1)) for m in centred])
    texture = (2 * means.prod(0) + _DISTS_C) / (means.square().sum(0) + _DISTS_C)
    structure = (2 * covariance + _DISTS_C) / (variances.sum(0) + _DISTS_C)
    alpha, beta = _dists_weights()
    return 1 - ((alpha * texture).sum() + (beta * structure).sum()) / (alpha.sum() + beta.sum())


def _l2_pool(activation: Tensor) -> Tensor:
    """Halve the size: root of the squares averaged by a 3 x 3 Hann window, zeros outside."""
    window = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
    kernel = window.expand(activation.shape[1], 1, 3, 3)
    squares = conv2d(activation.square(), kernel, stride=2, padding=1, groups=len(kernel))
    return (squares + 1e-12).sqrt()


@cache
def _lpips_weights(network: str) -> list[Tensor]:
    stored = _shipped(f"lpips_models/{_LPIPS_FILES[network]}")
    return [stored[f"lin{block}.model.1.weight"][0] for block in range(5)]


@cache
def _dists_weights() -> tuple[Tensor, Tensor]:
    stored = _shipped("dists_models/weights.pt")
    return stored["alpha"].detach().flatten(), stored["beta"].detach().flatten()


def _shipped(name: str) -> dict[str, Tensor]:
    """Read a file of weights that torchmetrics ships."""
    file = Path(torchmetrics.__file__).parent / "functional" / "image" / name
    return torch.load(file, map_location="cpu", weights_only=True)


@dataclass(eq=False)
class NetworkDistance:
    """Distance of two images in the features of a network trained on ImageNet. Never downloads.

    Args:
        name: name of the score, for messages.
        network: ``vgg16`` or ``alexnet``.
        distance: distance of ``(2, 3, y, x)`` images in [0, 1], all channels equal, by the
            network's layers.
    """

    name: str
    network: str
    distance: Callable[[ConvolutionalLayers, Tensor], Tensor]

    @cached_property
    def layers(self) -> ConvolutionalLayers | None:
        """The network, or None (said once) where its weights are not on this machine."""
        try:
            return ConvolutionalLayers(self.network, read_weights(self.network))
        except MissingWeightsError as error:
            log.warning("%s is left empty: %s", self.name, error)
            return None

    def __call__(
        self, reconstruction: np.ndarray, target: np.ndarray, data_range: float
    ) -> float | None:
        """Score one slice; None without weights, and below 31 (AlexNet) or 16 (VGG16) pixels."""
        if self.layers is None or min(target.shape) < self.layers.architecture.smallest_image:
            return None
        images = _unit_images(reconstruction, target, data_range).flatten(0, 1)
        with torch.no_grad():
            return float(self.distance(self.layers, images.expand(-1, 3, -1, -1)))


HAARPSI = Score(haarpsi, "HaarPSI", "higher", 3)
VIF = Score(vif, "VIF", "higher", 3)
# Range of all three: [0, about 1]. LPIPS_VGG judges what AlexNet guided.
LPIPS = Score(NetworkDistance("LPIPS", "alexnet", lpips_distance), "LPIPS", "lower", 3)
LPIPS_VGG = Score(
    NetworkDistance("LPIPS (VGG)", "vgg16", lpips_distance), "LPIPS (VGG)", "lower", 3
)
DISTS = Score(NetworkDistance("DISTS", "vgg16", dists_distance), "DISTS", "lower", 3)
