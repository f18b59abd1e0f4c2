"""`mrisem reconstruct`: reconstruct scans by any method."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig

from mrisem.tasks.callbacks.logging import PredictionLogger
from mrisem.tasks.callbacks.writer import Provenance, ReconstructionWriter
from mrisem.verbs.loggers import open_logger
from mrisem.verbs.pieces import has_prior, make_datamodule, make_task, without
from mrisem.verbs.priors import bank_callback

logger = logging.getLogger(__name__)

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
