"""`mrisem reconstruct`: reconstruct scans by any method."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

import mrisem
from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.callbacks.logging import PredictionLogger
from mrisem.tasks.callbacks.writer import Provenance, ReconstructionWriter
from mrisem.errors import InputError
from mrisem.verbs.loggers import open_logger
from mrisem.verbs.pieces import has_prior, make_datamodule, without
from mrisem.verbs.priors import bank_callback

logger = logging.getLogger(__name__)

# Warm starts that come with the package; at scale=demo.
SHIPPED = ("unrolled_mini",)
# How fits are called in tables, where not by their own name.
_FITS = {"none": "as trained"}
# What a result does not depend on: these may differ when a run is resumed.
_FREE = (
    "output_dir",
    "on_error",
    "skip_existing",
    "paths",
    "trainer",
    "logger",
    "metrics",
    "returns",
    "scale",
)


def run(config: DictConfig) -> int:
    """Reconstruct every slice that the configuration selects.

    Returns:
        0, or 2 when scans were skipped because they could not be read.
    """
    folder = Path(config.output_dir)
    data = make_datamodule(config, config.scale.fit.slices_at_once)
    data.setup("predict")
    task = make_task(config)
    writer = ReconstructionWriter(folder, provenance(config))
    n_before = 0
    if config.skip_existing:
        done = writer.done()
        n_before = len(done)
        data.skip(done)
    else:
        writer.clear()
    if data.slices or data.failed:
        callbacks: list[pl.Callback] = [writer]
        if has_prior(config) and data.slices:
            callbacks.insert(0, bank_callback(config, data, task))
        with open_logger(config.logger, "reconstruct", folder, without(config)) as log:
            if log is not None:
                callbacks.append(PredictionLogger())
            trainer = instantiate(
                config.trainer, callbacks=callbacks, logger=log or False, default_root_dir=folder
            )
            trainer.predict(task, datamodule=data, return_predictions=False)
    for scan in writer.failed:
        logger.error("skipped %s: %s", scan.file, scan.message)
    print(
        f"{method_name(config)}: {writer.n_written} slices reconstructed, {n_before} were there, "
        f"{len(writer.failed)} scans failed -> {writer.results}"
    )
    return 2 if writer.failed else 0


def make_task(config: DictConfig) -> ReconstructionTask:
    """Make the task of ``config.model``; the same seed gives the same starting weights.

    Raises:
        InputError: when a method that has no place for a prior is given one.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        task: ReconstructionTask = instantiate(config.model.task)
    if has_prior(config) and not task.takes_prior:
        raise InputError(
            f"model={config.model.name} as it is takes no prior, got prior={config.prior.name}; "
            "set prior=none, or a network that is fitted, such as model=unrolled fit=all"
        )
    checkpoint = config.model.get("checkpoint")
    if checkpoint:
        load_checkpoint(task, Path(checkpoint))
    return task


def load_checkpoint(task: ReconstructionTask, path: Path) -> None:
    """Load weights that `mrisem train` wrote, or those that ship under a name of `SHIPPED`.

    Raises:
        InputError: when the file is missing or of another network.
    """
    if str(path) in SHIPPED:
        path = Path(mrisem.__file__).parent / "assets" / f"{path}.ckpt"
    if not path.is_file():
        raise InputError(
            f"model.checkpoint must be {' or '.join(SHIPPED)}, or a file written by mrisem train, "
            f"got {path}"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    try:
        task.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise InputError(
            f"{path} does not fit model={type(task).__name__} ({first}); give the sizes that it "
            "was trained with"
        ) from error


def method_name(config: DictConfig) -> str:
    """Return the name of the method in tables, such as ``unrolled lora + image_same``.

    A network whose weights are all fitted to the scan goes by its own name.
    """
    fit = config.fit.name if "fit" in config.model.task else "all"
    name = config.model.name if fit == "all" else f"{config.model.name} {_FITS.get(fit, fit)}"
    extra = [n for n in (config.regulariser.name, config.prior.name) if n != "none"]
    return " + ".join([name, *extra])


def provenance(config: DictConfig) -> Provenance:
    """Return method, mask and the hash of all that the result depends on."""
    facts = without(config, *_FREE)
    facts["data"] = without(config.data, "max_slices", "max_volumes")
    text = json.dumps(facts, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    return Provenance(method_name(config), str(config.mask.name), key)
