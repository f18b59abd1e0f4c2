"""HaarPSI, VIF and LPIPS: similarity as a viewer judges it."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mrisem.metrics.score import Score

log = logging.getLogger(__name__)

SMALLEST_VIF = 41  # pixels: four scales, each a valid filtering (17, 9, 5, 3) and a halving

# File names under which torchvision caches the ImageNet backbones that LPIPS compares features of.
BACKBONE_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


def unit_image(image: np.ndarray, data_range: float) -> Tensor:
    """Return a magnitude as ``(1, 1, y, x)`` float32 over ``data_range``, clipped to [0, 1]."""
    scaled = np.clip(image.astype(np.float32) / np.float32(data_range), 0, 1)
    return torch.from_numpy(scaled)[None, None]


def haarpsi(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Haar wavelet perceptual similarity index, with piq's (the authors') constants.

    Range: [0, 1]; higher is better. Source: Reisenhofer et al. 2018, by ``piq.haarpsi``.

    Args:
        reconstruction: ``(y, x)`` magnitude, at least 16 x 16.
        target: ``(y, x)`` magnitude, same units.
        data_range: the target volume's maximum; both images are clipped to it.
    """
    import piq  # takes seconds to import

    images = unit_image(reconstruction, data_range), unit_image(target, data_range)
    return float(piq.haarpsi(*images, data_range=1.0))


def vif(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float | None:
    """Visual information fidelity in the pixel domain, with piq's (the authors') constants.

    The share of the target's information, seen through a noisy eye, that the reconstruction keeps.
    Range: [0, about 1], above 1 where contrast was enhanced; higher is better.
    Source: Sheikh & Bovik 2006, by ``piq.vif_p``.

    Args:
        reconstruction: ``(y, x)`` magnitude.
        target: ``(y, x)`` magnitude, same units.
        data_range: the target volume's maximum; both images are clipped to it.

    Returns:
        the score; None for images below 41 x 41 pixels and for an empty target.
    """
    if min(target.shape) < SMALLEST_VIF or not target.any():
        return None
    import piq  # takes seconds to import

    images = unit_image(reconstruction, data_range), unit_image(target, data_range)
    return float(piq.vif_p(*images, data_range=1.0))


class Lpips:
    """Learned perceptual image patch similarity, through torchmetrics. Never downloads.

    Images are divided by the data range, clipped to [0, 1] and repeated to three channels. Without
    the backbone's weights in torch's cache the score is None and one log line names the missing
    file.
    Range: [0, about 1]; lower is better. Source: Zhang et al. 2018.

    Args:
        net: the backbone whose features are compared.
    """

    def __init__(self, net: Literal["alex", "vgg"] = "alex"):
        self.net = net

    @property
    def weights(self) -> Path:
        """Where the backbone's weights must lie."""
        return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE_FILES[self.net]

    @cached_property
    def network(self) -> nn.Module | None:
        """The metric, or None (said once) when its weights are missing."""
        if not self.weights.is_file():
            log.warning("LPIPS is left empty: it needs torchvision's %s", self.weights)
            return None
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(net_type=self.net, normalize=True).eval()

    def __call__(
        self, reconstruction: np.ndarray, target: np.ndarray, data_range: float
    ) -> float | None:
        """Score one slice, ``(y, x)`` magnitudes of at least 64 x 64."""
        if self.network is None:
            return None
        images = [unit_image(image, data_range) for image in (reconstruction, target)]
        with torch.no_grad():
            return float(self.network(*(image.expand(-1, 3, -1, -1) for image in images)))


HAARPSI = Score(haarpsi, "HaarPSI", "higher", 3)
VIF = Score(vif, "VIF", "higher", 3)
LPIPS = Score(Lpips("alex"), "LPIPS", "lower", 3)
