"""What a semantic prior is, and what makes one: the two seams of this package.

A prior of your own is a class with `Prior.losses` and a builder that returns it; ``_target_`` in a
YAML of ``conf/prior`` names the builder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Contrast = Literal["same", "cross", "mixed"]


class Prior(Protocol):
    """A loss on magnitude images; a subclass gives `losses`, the rest is for curves."""

    def losses(self, magnitude: Tensor, iteration: int = 0) -> dict[str, Tensor]:
        """Evaluate the loss.

        Args:
            magnitude: ``(batch, y, x)`` float32, of any positive scale.
            iteration: number of the fit's step, which seeds random draws.

        Returns:
            name -> ``(batch,)`` float32; ``semantic`` is the loss, the others go to the curves.
        """

    def diagnose(self, magnitude: Tensor, iteration: int | None) -> dict[str, Tensor]:
        """Return named ``(batch,)`` values that cost extra; iteration None: the final image."""
        return {}

    def signature(self, magnitude: Tensor) -> dict[str, Tensor]:
        """Place images in an embedding: level -> ``(batch, feature)``; empty: no picture."""
        return {}

    def bank_signature(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Place the bank there: level -> positives, negatives, each ``(n, feature)``."""
        return {}


class AuxiliaryImages(Sized, Iterable[tuple[Tensor, Tensor, Any]], Protocol):
    """(positive, negative, info) for each auxiliary slice, ``(Y, X)`` float32, always the same."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that the images depend on."""

    def describe(self) -> dict[str, Any]:
        """Return what stands beside a bank, for people."""


class AuxiliaryData(Protocol):
    """Where a builder finds auxiliary images (`mrisem.data.datamodules.FastMRI`)."""

    @property
    def reconstructed_acquisitions(self) -> list[str]:
        """Acquisitions among the scans that are to be reconstructed."""

    def auxiliary_slices(
        self, acquisition: str | None = None, contrast: Contrast = "same"
    ) -> AuxiliaryImages:
        """Images of other subjects for scans of one acquisition.

        Args:
            acquisition: name of the scans' acquisition; None where all are of one.
            contrast: ``same``, ``cross`` (another acquisition) or ``mixed`` (every one).
        """


class PriorBuilder(Protocol):
    """Makes the priors of a run."""

    def __call__(self, data: AuxiliaryData, device: torch.device) -> dict[str, Prior]:
        """Make a prior for each acquisition that is reconstructed: acquisition -> prior.

        Args:
            data: gives the auxiliary images.
            device: where the images to be guided are.
        """

    def contents(self, data: AuxiliaryData, device: torch.device) -> dict[str, str]:
        """Name what the priors depend on beside their options; nothing by default.

        Returns:
            keys that begin with ``prior`` -> hashes, for the run's record.
        """
        return {}
