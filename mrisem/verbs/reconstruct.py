"""`mrisem reconstruct`: reconstructs scans by any method."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig

from mrisem.errors import InputError
from mrisem.files import held
from mrisem.progress import silence
from mrisem.results.files import Planned, RunFolder
from mrisem.results.record import Scan
from mrisem.signals import Interrupted
from mrisem.tasks.callbacks.bars import Bars
from mrisem.tasks.callbacks.interruption import Interruption
from mrisem.tasks.callbacks.logging import PredictionLogger
from mrisem.tasks.callbacks.writer import ReconstructionWriter
from mrisem.types import FailedScan
from mrisem.verbs.devices import (
    Place,
    end_with_the_first,
    find_place,
    other_processes,
    predict_options,
)
from mrisem.verbs.gathering import following
from mrisem.verbs.jobs import SweepSummary, accept
from mrisem.verbs.loggers import NO_LOGGER, open_logger
from mrisem.verbs.pieces import group_options, has_prior, make_datamodule, make_task
from mrisem.verbs.priors import Priors
from mrisem.verbs.records import hash_companions, hash_weights, make_record

if TYPE_CHECKING:
    from mrisem.data.datamodules import FastMRI

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> int:
    """Reconstruct every slice that the configuration selects.

    Returns:
        0, or 2 when slices could not be reconstructed.
    """
    place = find_place(config)
    end_with_the_first(place)
    data = make_datamodule(config, config.scale.fit.slices_at_once)
    data.setup("predict")
    task = make_task(config)
    callbacks: list[pl.Callback] = []
    contents = hash_weights(task) | hash_companions(config)
    # a process whose share is empty needs no bank
    if has_prior(config) and data.slices:
        priors = Priors(config, data, task)
        callbacks, contents = [priors.callback()], contents | priors.contents()
    folder = Path(config.output_dir)
    planned, unreadable = plan(data)
    record = make_record(config, contents)
    output = RunFolder(folder, record, planned, shared=place.rank > 0)
    callbacks += [ReconstructionWriter(output), Interruption()]
    for scan in unreadable:
        output.fail(scan)
    bad = {(scan.file, index) for scan in unreadable for index in scan.slices}
    data.share(place.rank, place.n)
    if output.shared:
        SweepSummary.new_folder = False  # the folder belongs to the first process
        with following(folder, place.rank) if place.by != "mrisem" else nullcontext():
            data.skip(output.finished_slices() | bad)
            _predict(config, task, data, callbacks, place)
            output.hand_over(place.rank)
        return 0
    with held(folder):
        if not config.skip_existing:
            output.clear()
        done = output.open()
        accept(config, "reconstruct")
        data.skip(done | bad)
        with closed(output), other_processes("reconstruct", config, place):
            _predict(config, task, data, callbacks, place)
    for scan in output.failed:
        logger.error("failed %s: %s", _name(scan.file, scan.slices), scan.message)
    n_new = len(output.finished_slices() - done)
    print(
        f"{record.method}: {n_new} slices reconstructed, {len(done)} were there, "
        f"{len(output.failed)} scans failed -> {output.results}"
    )
    return 2 if output.failed else 0


@contextmanager
def closed(output: RunFolder) -> Iterator[None]:
    """Close the output however the block ends; an interruption reports the number of slices."""
    try:
        yield
    except Interrupted as stop:
        stop.kept = f"{len(output.finished_slices())} slices are kept in {output.results}"
        raise
    finally:
        output.close()


def plan(data: FastMRI) -> tuple[dict[str, Planned], list[FailedScan]]:
    """Return the plan of each input file, and the unreadable files (``on_error=skip``)."""
    planned: dict[str, Planned] = {}
    failed: list[FailedScan] = []
    with data.index:
        for volume, parts in groupby(data.slices, key=lambda part: part.volume):
            slices = [part.slice for part in parts]
            try:
                scan = Scan(file=volume.file, **asdict(volume.content))
                facts = volume.acquisition, frozenset(slices), volume.simulation
                planned[volume.file] = Planned(scan, *facts, volume.affine, volume.placed)
            except InputError as error:
                if data.on_error == "raise":
                    raise
                failed.append(FailedScan(volume.file, str(error), tuple(slices)))
    return planned, failed


def _predict(
    config: DictConfig,
    task: pl.LightningModule,
    data: FastMRI,
    callbacks: list[pl.Callback],
    place: Place,
) -> None:
    """Reconstruct this process's share of the slices."""
    if not data.slices and not data.failed:  # nothing is left to do
        return
    folder = Path(config.output_dir)
    options = NO_LOGGER if place.rank else config.logger
    if config.trainer.get("enable_progress_bar", True):
        callbacks.insert(-2, Bars([part.volume.file for part in data.slices]))
    if place.rank:
        silence()
    with open_logger(options, "reconstruct", folder, group_options(config)) as log:
        if log is not None:
            callbacks.insert(0, PredictionLogger())
        trainer = instantiate(
            config.trainer,
            callbacks=callbacks,
            logger=log or False,
            default_root_dir=folder,
            **predict_options(config, place),
        )
        trainer.predict(task, datamodule=data, return_predictions=False)


def _name(file: str, slices: tuple[int, ...]) -> str:
    """Return the name of a file with the numbers of its slices."""
    return f"{file} slices {', '.join(map(str, slices))}" if slices else file
