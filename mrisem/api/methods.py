"""Reconstruction of a scan by any method of ``conf/model``, with the command line's numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from os import PathLike, fspath

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig

from mrisem.api.options import Overrides, given, words
from mrisem.api.priors import PriorChoice
from mrisem.api.scan import Scan
from mrisem.config.compose import compose
from mrisem.errors import InputError
from mrisem.tasks.callbacks.collector import Collector
from mrisem.types import FailedScan
from mrisem.verbs.devices import Place, predict_options
from mrisem.verbs.pieces import has_prior, make_datamodule, make_task
from mrisem.verbs.priors import Priors
from mrisem.verbs.quiet import quiet
from mrisem.verbs.records import make_record

_CURVES = ("file", "slice", "iteration", "name", "value")


@dataclass(frozen=True, eq=False)
class Result:
    """A reconstructed scan.

    Args:
        name: method, as tables and figures call it.
        image: ``(slice, y, x)`` float32 magnitudes, in the file's units and the target's size.
        scan: what was reconstructed.
        slices: file name and index of each image.
        facts: a row an image: ``file``, ``slice``, ``acceleration`` (reached), ``data_consistency``
            (relative residual of the samples), ``seconds``.
        curves: what a fit logged: ``file``, ``slice``, ``iteration``, ``name``, ``value``.
        failed: slices without an image, and those whose fit was given up.
        config: configuration that made it.
    """

    name: str
    image: np.ndarray
    scan: Scan
    slices: tuple[tuple[str, int], ...]
    facts: pd.DataFrame
    curves: pd.DataFrame
    failed: tuple[FailedScan, ...]
    config: DictConfig

    def __repr__(self) -> str:
        return f"Result({self.name}: image (slice, y, x) = {self.image.shape})"


def fit(
    scan: Scan,
    model: str = "unrolled",
    *,
    prior: PriorChoice | None = None,
    iterations: int | None = None,
    checkpoint: str | PathLike[str] | None = None,
    scale: str | None = None,
    seed: int | None = None,
    name: str | None = None,
    overrides: Overrides = None,
) -> Result:
    """Fit a network to a scan, guided by a prior or not; a bar shows the iterations.

    Args:
        scan: undersampled.
        model: ``unrolled``, ``unet``, ``varnet``, ``inr``, or a backbone of yours.
        prior: what `mrisem.semantic_prior` returns; None: no prior.
        iterations: steps of the fit; None: of the scale.
        checkpoint: weights to start from: a file, or ``unrolled_mini``; None: random ones.
        scale: ``smoke``, ``demo`` or ``paper``: sizes of the network and the fit; None: ``demo``.
        seed: seed of the split of the samples and of random weights; None: the mask's.
        name: name of the result; None: such as ``unrolled + image_same``.
        overrides: more options of ``mrisem reconstruct``, such as ``{"prior.balance": 0.1}``.

    Raises:
        InputError: when an option is wrong or cannot act, or no slice could be reconstructed.
    """
    options = given(
        model=model,
        scale=scale,
        fit__iterations=iterations,
        model__checkpoint=None if checkpoint is None else fspath(checkpoint),
    )
    options += [*(prior.options if prior else ()), *words(overrides)]
    return _reconstruct(scan, options, seed, name)


def zero_filled(scan: Scan, *, name: str | None = None, overrides: Overrides = None) -> Result:
    """Zero-filled image, coils combined by their sensitivity maps."""
    return _reconstruct(scan, ["model=zero_filled", *words(overrides)], None, name)


def cg_sense(scan: Scan, *, name: str | None = None, overrides: Overrides = None) -> Result:
    """CG-SENSE: regularised least squares over all coils, by conjugate gradients."""
    return _reconstruct(scan, ["model=cg_sense", *words(overrides)], None, name)


def grappa(scan: Scan, *, name: str | None = None, overrides: Overrides = None) -> Result:
    """GRAPPA of the package pygrappa; it takes one volume's comb of lines."""
    return _reconstruct(scan, ["model=grappa", *words(overrides)], None, name)


def tv(scan: Scan, *, name: str | None = None, overrides: Overrides = None) -> Result:
    """Least squares over all coils with total variation."""
    return _reconstruct(scan, ["model=tv", *words(overrides)], None, name)


def l1_wavelet(scan: Scan, *, name: str | None = None, overrides: Overrides = None) -> Result:
    """Least squares over all coils with the l1 norm of wavelet coefficients."""
    return _reconstruct(scan, ["model=l1_wavelet", *words(overrides)], None, name)


def _reconstruct(scan: Scan, options: list[str], seed: int | None, name: str | None) -> Result:
    """Reconstruct a scan as `mrisem.verbs.reconstruct` does, with the result in memory."""
    drawn = 0 if scan.mask is None else scan.mask.seed
    seeds = given(seed=drawn if seed is None else seed)
    # nothing is written into output_dir
    config = compose("reconstruct", [*scan.words(), *seeds, *given(output_dir="unused"), *options])
    for_data = config.copy()
    for_data.seed = drawn
    with quiet():
        data = make_datamodule(for_data, config.scale.fit.slices_at_once)
        scan.give(data)
        task, collector = make_task(config), Collector()
        callbacks = [Priors(config, data, task).callback()] if has_prior(config) else []
        trainer = instantiate(
            config.trainer,
            callbacks=[*callbacks, collector],
            logger=False,
            **predict_options(config, Place(0, 0, 1, "mrisem")),
        )
        trainer.predict(task, datamodule=data, return_predictions=False)
    return _result(scan, collector, config, name or make_record(config, {}).method)


def _result(scan: Scan, collector: Collector, config: DictConfig, name: str) -> Result:
    for failure in collector.failed:
        warnings.warn(f"{failure.file} {[*failure.slices]}: {failure.message}", stacklevel=4)
    if not collector.slices:
        raise InputError(
            f"{name} must reconstruct a slice, all {len(scan.slices)} failed, the first with: "
            f"{collector.failed[0].message}"
        )
    kept = collector.slices
    facts = [
        (s.info.file, s.info.slice, s.info.acceleration, s.data_consistency, s.seconds)
        for s in kept
    ]
    columns = ("file", "slice", "acceleration", "data_consistency", "seconds")
    return Result(
        name=name,
        image=np.stack([each.image for each in kept]),
        scan=scan,
        slices=tuple((each.info.file, each.info.slice) for each in kept),
        facts=pd.DataFrame(facts, columns=columns),
        curves=pd.DataFrame(collector.curves, columns=_CURVES),
        failed=tuple(collector.failed),
        config=config,
    )
