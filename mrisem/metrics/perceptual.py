"""HaarPSI, VIF, LPIPS and DISTS: scores of perceived similarity.

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

SMALLEST_VIF = 41  # pixels: four scales are filtered (17, 9, 5, 3 pixels, no padding) and halved

# LPIPS maps [-1, 1] to the input of the networks by (value - shift) / scale, per colour channel.
_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LPIPS_FILES = {"alexnet": "alex.pth", "vgg16": "vgg.pth"}
_DISTS_C = 1e-6  # constant c of both similarities


def _unit_images(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> Tensor:
    """Scale both magnitudes by ``data_range``, clip to [0, 1]: ``(2, 1, 1, y, x)`` float32."""
    reconstruction, target, exponent = common_unit(reconstruction, target)
    data_range = np.ldexp(data_range, exponent)
    images = np.stack([reconstruction, target])[:, None, None].astype(np.float32)
    return torch.from_numpy(np.clip(images / np.float32(data_range), 0, 1))


def haarpsi(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Haar wavelet perceptual similarity index, with the constants of its authors.

    The slice must have at least 16 x 16 pixels. Range: [0, 1]; higher is better.
    Source: Reisenhofer et al., Signal Process Image Commun 61:33 (2018), by ``piq.haarpsi``.
    """
    import piq  # takes seconds to import

    images = _unit_images(reconstruction, target, data_range)
    return float(piq.haarpsi(*images, data_range=1.0))


def vif(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float | None:
    """Visual information fidelity in the pixel domain, with the constants of its authors.

    It models a viewer who sees images with noise, and measures the share of the target's visible
    information that the reconstruction keeps. Range: [0, about 1], above 1 where contrast is
    enhanced; higher is better. None for images below 41 x 41 pixels and for a target of zeros.
    Source: Sheikh & Bovik, IEEE Trans Image Process 15:430 (2006), by ``piq.vif_p``.
    """
    if min(target.shape) < SMALLEST_VIF or not target.any():
        return None
    import piq  # takes seconds to import

    images = _unit_images(reconstruction, target, data_range)
    return float(piq.vif_p(*images, data_range=1.0))


def lpips_distance(layers: ConvolutionalLayers, images: Tensor) -> Tensor:
    """Learned perceptual image patch similarity of two images.

    ``sum_l mean_yx sum_c w_lc (f_lc - g_lc)^2`` over the blocks l. The activations f and g of each
    pixel are divided by their norm over the channels c. Source: Zhang et al., CVPR 2018,
    arXiv:1801.03924, version 0.1; weights w and the constant in the norm are those of torchmetrics.

    Args:
        layers: all five blocks of AlexNet or VGG16.
        images: ``(2, 3, y, x)`` float32 in [0, 1].

    Returns:
        distance of shape (): 0 for equal images.
    """
    shift, scale = (
        torch.tensor(channels)[:, None, None] for channels in (_LPIPS_SHIFT, _LPIPS_SCALE)
    )
    activations = layers((2 * images - 1 - shift) / scale)
    distance = images.new_zeros(())
    for activation, weight in zip(activations, _lpips_weights(layers.network), strict=True):
        norm = (activation.square().sum(1, keepdim=True) + 1e-8).sqrt()
        first, second = activation / norm
        distance = distance + (weight * (first - second).square()).sum(0).mean()
    return distance


def dists_distance(layers: ConvolutionalLayers, images: Tensor) -> Tensor:
    """Deep image structure and texture similarity (DISTS) of two images, as a distance.

    ``1 - sum_k (alpha_k t_k + beta_k s_k)`` over the channels k of the image itself and of the five
    blocks, whose max poolings are replaced by Hann-weighted L2 poolings. With means m, variances
    and covariance over the pixels of channel k of both images f and g:
    ``t_k = (2 m_f m_g + c) / (m_f^2 + m_g^2 + c)`` (texture) and
    ``s_k = (2 cov_fg + c) / (var_f + var_g + c)`` (structure). Source: Ding et al. 2020,
    arXiv:2004.07728. The weights alpha and beta, all together of sum 1, are those of
    torchmetrics. Images keep their size; the authors' script shrinks larger ones to 256 pixels.

    Args:
        layers: all five blocks of VGG16.
        images: ``(2, 3, y, x)`` float32 in [0, 1].

    Returns:
        distance of shape (): 0 for equal images.
    """
    mean, std = (torch.tensor(channels)[:, None, None] for channels in (MEAN, STD))
    feature_maps, features = [images], (images - mean) / std
    for index, block in enumerate(layers.blocks()):
        # block[1:] leaves out the max pooling with which the later blocks begin
        features = block(features) if index == 0 else block[1:](_l2_pool(features))
        feature_maps.append(features)
    centres = [feature_map.mean((-2, -1), keepdim=True) for feature_map in feature_maps]
    centred = [
        feature_map - centre for feature_map, centre in zip(feature_maps, centres, strict=True)
    ]
    means = torch.cat(centres, 1).flatten(1)
    variances = torch.cat([feature_map.square().mean((-2, -1)) for feature_map in centred], 1)
    covariance = torch.cat(
        [(feature_map[0] * feature_map[1]).mean((-2, -1)) for feature_map in centred]
    )
    texture = (2 * means.prod(0) + _DISTS_C) / (means.square().sum(0) + _DISTS_C)
    structure = (2 * covariance + _DISTS_C) / (variances.sum(0) + _DISTS_C)
    alpha, beta = _dists_weights()
    return 1 - ((alpha * texture).sum() + (beta * structure).sum()) / (alpha.sum() + beta.sum())


def _l2_pool(activation: Tensor) -> Tensor:
    """Halve the size: root of the squares, averaged by a 3 x 3 Hann window with zeros outside."""
    window = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
    kernel = window.expand(activation.shape[1], 1, 3, 3)
    squares = conv2d(activation.square(), kernel, stride=2, padding=1, groups=len(kernel))
    return (squares + 1e-12).sqrt()


@cache
def _lpips_weights(network: str) -> list[Tensor]:
    weights = _load_weights(f"lpips_models/{_LPIPS_FILES[network]}")
    return [weights[f"lin{block}.model.1.weight"][0] for block in range(5)]


@cache
def _dists_weights() -> tuple[Tensor, Tensor]:
    weights = _load_weights("dists_models/weights.pt")
    return weights["alpha"].detach().flatten(), weights["beta"].detach().flatten()


def _load_weights(name: str) -> dict[str, Tensor]:
    """Read a file of weights from the installed torchmetrics."""
    file = Path(torchmetrics.__file__).parent / "functional" / "image" / name
    return torch.load(file, map_location="cpu", weights_only=True)


@dataclass(eq=False)
class NetworkDistance:
    """Distance of two images in the features of a network trained on ImageNet; never downloads.

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
        """The network; None, with one warning, where its weights are not on this machine."""
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
# Range of all three: [0, about 1]. LPIPS_VGG is for reconstructions that AlexNet guided: a score by
# the network that guided would be circular.
LPIPS = Score(NetworkDistance("LPIPS", "alexnet", lpips_distance), "LPIPS", "lower", 3)
LPIPS_VGG = Score(
    NetworkDistance("LPIPS (VGG)", "vgg16", lpips_distance), "LPIPS (VGG)", "lower", 3
)
DISTS = Score(NetworkDistance("DISTS", "vgg16", dists_distance), "DISTS", "lower", 3)
