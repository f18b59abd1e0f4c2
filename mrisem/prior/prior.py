"""Interfaces of this package: `Prior`, a loss on images, and `PriorBuilder`, which makes priors.

To add a prior, write a class with `Prior.losses` and a builder that returns it, and name the
builder as ``_target_`` in a YAML file of ``conf/prior``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Contrast = Literal["same", "cross", "mixed"]


class Prior(Protocol):
    """Loss on magnitude images; only `losses` is required, the other methods serve curves."""

    def losses(self, magnitude: Tensor, iteration: int = 0) -> dict[str, Tensor]:
        """Evaluate the loss.

        Args:
            magnitude: ``(batch, y, x)`` float32 in any unit.
            iteration: step of the fit, which seeds random draws.

        Returns:
            name -> ``(batch,)`` float32. ``semantic`` is the loss; other values are logged.
        """

    def diagnose(self, magnitude: Tensor, iteration: int | None) -> dict[str, Tensor]:
        """Return further values to log, name -> ``(batch,)``, that take extra time.

        Args:
            magnitude: ``(batch, y, x)`` float32.
            iteration: step of the fit; None: the images are final.
        """
        return {}

    def signature(self, magnitude: Tensor) -> dict[str, Tensor]:
        """Embed images for the UMAP figure: level -> ``(batch, feature)``; empty: no figure."""
        return {}

    def bank_signature(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Embed the bank for the UMAP figure: level -> positives, negatives, ``(n, feature)``."""
        return {}


class AuxiliaryImages(Sized, Iterable[tuple[Tensor, Tensor, Any]], Protocol):
    """Pairs of a good and a bad image for each auxiliary slice.

    Iteration gives (positive, negative, info), images ``(Y, X)`` float32; repeated iterations give
    the same values.
    """

    @property
    def fingerprint(self) -> str:
        """Hash of all on which the images depend."""

    def describe(self) -> dict[str, Any]:
        """Return facts on the images for the description of a bank."""


class AuxiliaryData(Protocol):
    """Source of auxiliary images (`mrisem.data.datamodules.FastMRI`)."""

    @property
    def reconstructed_acquisitions(self) -> list[str]:
        """Acquisitions of the scans that are to be reconstructed."""

    def auxiliary_slices(
        self, acquisition: str | None = None, contrast: Contrast = "same"
    ) -> AuxiliaryImages:
        """Return images of other subjects for scans of one acquisition.

        Args:
            acquisition: acquisition of the scans; None if all scans have the same.
            contrast: contrast of the images: that of the scans (``same``), another one (``cross``),
                or every one (``mixed``).
        """


class PriorBuilder(Protocol):
    """Builder of the priors of a run."""

    def __call__(self, data: AuxiliaryData, device: torch.device) -> dict[str, Prior]:
        """Make a prior for each acquisition that is reconstructed.

        Args:
            data: source of auxiliary images.
            device: device of the images that the priors guide.

        Returns:
            acquisition -> prior.
        """

    def contents(self, data: AuxiliaryData, device: torch.device) -> dict[str, str]:
        """Return hashes of all on which the priors depend beside their options; default: none.

        Returns:
            name that begins with ``prior`` -> hash, for the record of the run.
        """
        return {}
