"""At which images of a network the losses act: the last one, or those of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mrisem.errors import InputError
from mrisem.types import Reconstruction

IMAGE = "image"  # name of a network's last image


@dataclass(frozen=True)
class Placement:
    """Where data loss and prior act.

    A stage k of an unrolled network has a network output ``z_k`` and, after data consistency, an
    image ``x_k``; the last ``x_K`` is the reconstruction. The paper's unrolled script (Feng et al.,
    arXiv:2511.19641) takes ``loss_on="stages"`` and ``prior_on="network"``, its language route
    ``prior_on="stages"``: a stage is network and data consistency, so its output is ``x_k``.

    Args:
        loss_on: images of the data loss, summed: ``image``, or ``stages``: ``z_1, x_1, ..., x_K``.
        prior_on: images of the prior, summed: ``image``, ``network``: ``z_K``, or ``stages``:
            ``x_1, ..., x_K``.
    """

    loss_on: Literal["image", "stages"] = "image"
    prior_on: Literal["image", "network", "stages"] = "image"

    def __post_init__(self) -> None:
        """Check the words."""
        if self.loss_on not in ("image", "stages"):
            raise InputError(f"model.loss_on must be image or stages, got {self.loss_on!r}")
        if self.prior_on not in ("image", "network", "stages"):
            raise InputError(
                f"model.prior_on must be image, network or stages, got {self.prior_on!r}"
            )

    def data_names(self, names: Sequence[str]) -> Sequence[str]:
        """Choose the data loss's among the names of `images`, oldest first."""
        return [IMAGE] if self.loss_on == "image" else names

    def prior_names(self, names: Sequence[str]) -> Sequence[str]:
        """Choose the prior's among the names of `images`, oldest first."""
        if self.prior_on == "image":
            return [IMAGE]
        return names[-2:-1] if self.prior_on == "network" else names[1::2]

    def images(self, result: Reconstruction) -> dict[str, Tensor]:
        """Name the images that a network gives, oldest first: ``z_1, x_1, ..., z_K, image``.

        Raises:
            InputError: when stages are asked for and the network gives none.
        """
        images: dict[str, Tensor] = {}
        for k, output in enumerate(result.network_outputs, start=1):
            images |= {f"z_{k}": output, f"x_{k}": result.iterates[k]}
        if images:
            images.popitem()  # x_K is the image
        elif self != Placement():
            raise InputError(
                f"model.loss_on={self.loss_on} and model.prior_on={self.prior_on} need a network "
                "with stages, this one gives its image alone; set both to image, or model=unrolled"
            )
        return {**images, IMAGE: result.image}
