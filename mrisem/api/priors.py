"""Semantic priors for `mrisem.fit`."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

import torch

from mrisem.api.options import Overrides, given, words
from mrisem.api.scan import Scan
from mrisem.config.compose import compose
from mrisem.data.anatomies import FastMRIMixed
from mrisem.errors import InputError

Kind = Literal["image_same", "image_cross", "image_language", "generative"]


@dataclass(frozen=True)
class PriorChoice:
    """A prior and what its bank is made of, as words of the command line.

    Its bank is taken from the cache, or built, when a scan is there: it holds no subject that is
    reconstructed.
    """

    options: tuple[str, ...]

    def describe(self, scan: Scan) -> str:
        """Build or load the scan's bank and describe it: images, entries, separation."""
        from mrisem.verbs.pieces import make_datamodule
        from mrisem.verbs.priors import make_prior_builder

        seed = given(seed=None if scan.mask is None else scan.mask.seed, output_dir="unused")
        config = compose("bank", [*scan.words(), *seed, *self.options])
        data = make_datamodule(config, config.scale.fit.slices_at_once)
        scan.give(data)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        builder = make_prior_builder(config)
        if not hasattr(builder, "describe"):
            raise InputError(f"prior={config.prior.name} keeps no bank; choose kind='image_same'")
        return "\n".join(builder.describe(data, device))


def semantic_prior(
    encoder: str | None = None,
    *,
    images: str | PathLike[str] | None = None,
    acquisition: str | None = None,
    kind: Kind = "image_same",
    n_subjects: int | None = None,
    overrides: Overrides = None,
) -> PriorChoice:
    """Choose the prior that guides a fit: an encoder, and the images of its bank.

    The bank is built once and kept in the cache folder (``paths.cache``). Subjects of the scan,
    and those of the test and validation folders of its data set, never enter it.

    Args:
        encoder: name in ``conf/encoder``; None: ``vgg16``, of ``image_language`` ``janus_mini``.
        images: data set in fastMRI's layout, whose ``multicoil_train`` is taken, or folder of
            DICOM or NIfTI images; None: the data set that the scan is in.
        acquisition: fastMRI's name of the images' contrast; None: as ``kind`` says.
        kind: ``image_same`` (the scan's contrast), ``image_cross`` (another one), or
            ``image_language`` (answers of a language model), ``generative`` (a diffusion model,
            without a bank; its options are overrides such as ``generator.path``).
        n_subjects: number of subjects in the bank; None: of the scale.
        overrides: more options of the command line, such as ``{"prior.weight": 0.01}``.

    Raises:
        InputError: when an option is wrong, or there is no such folder.
    """
    root = None if images is None else Path(fspath(images)).expanduser()
    if root is not None and not root.is_dir():
        raise InputError(
            f"images must be the folder of a data set or of images, {root} is none; name one"
        )
    if acquisition is not None and acquisition not in FastMRIMixed.acquisitions:
        raise InputError(
            f"acquisition must be one of {', '.join(FastMRIMixed.acquisitions)}, got {acquisition}"
        )
    chosen = given(
        prior=kind,
        encoder=encoder,
        auxiliary__root=root,
        auxiliary__acquisition=acquisition,
        auxiliary__n_subjects=n_subjects,
    )
    chosen += words(overrides)
    compose("reconstruct", [*chosen, *given(output_dir="unused")])  # what is wrong shows now
    return PriorChoice(tuple(chosen))
