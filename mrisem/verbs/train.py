"""`mrisem train`: trains a backbone over a data set, as a warm start for `reconstruct`."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mrisem.errors import InputError
from mrisem.files import held, remove_partial
from mrisem.results.record import Record
from mrisem.signals import Interrupted, leave
from mrisem.tasks.callbacks.bars import Bars
from mrisem.tasks.callbacks.interruption import Interruption
from mrisem.tasks.callbacks.training import Saved, TrainingWriter, find_saved
from mrisem.tasks.network import NetworkTask
from mrisem.verbs.devices import Place, end_with_the_first, find_place, fit_options, other_processes
from mrisem.verbs.jobs import SweepSummary, accept
from mrisem.verbs.loggers import NO_LOGGER, open_logger
from mrisem.verbs.pieces import group_options, has_prior, make_datamodule, make_task
from mrisem.verbs.priors import Priors
from mrisem.verbs.records import hash_companions, hash_weights, make_record

if TYPE_CHECKING:
    from mrisem.data.datamodules import FastMRI

logger = logging.getLogger(__name__)
# Options of the trainer that do not change the trained weights.
_UNCOUNTED = (
    *("_target_", "accelerator", "strategy", "log_every_n_steps", "enable_model_summary"),
    *("enable_progress_bar", "enable_checkpointing", "num_sanity_val_steps", "max_time"),
)


def run(config: DictConfig) -> int:
    """Train on `multicoil_train`, never on subjects that are reconstructed.

    With ``data.validation_subjects`` the best checkpoint is selected on held-out subjects;
    otherwise the last one is used. A run folder with ``checkpoints/last.ckpt`` is continued, with
    the same weights, bit for bit, as without an interruption.

    Returns:
        0, or 2 when slices could not be read.
    """
    place = find_place(config)
    end_with_the_first(place)
    data = make_datamodule(config, config.scale.train.batch_size)
    task = make_task(config)
    if not isinstance(task, NetworkTask) or task.objective is None:
        raise InputError(
            f"model must be a network that is trained over a data set, got {config.model.name}; "
            "set model=unrolled, unet or varnet"
        )
    data.setup("fit")
    callbacks: list[pl.Callback] = []
    contents = hash_weights(task) | hash_companions(config) | {"scans": _hash_scans(data)}
    if has_prior(config):
        _check_subjects(config)
        priors = Priors(config, data, task)
        callbacks, contents = [priors.callback()], contents | priors.contents()
    folder = Path(config.output_dir)
    monitor = f"val/{task.objective.monitor}" if config.data.validation_subjects else None
    writer = TrainingWriter(folder, monitor)
    if place.rank:
        leave()  # on a signal, ending early would break the step that the first process completes
        SweepSummary.new_folder = False  # the folder belongs to the first process
        saved = find_saved(folder)
        if saved is None or saved.epochs < config.trainer.max_epochs:
            _fit(config, task, data, [*callbacks, writer], saved, place)
        return 2 if writer.failed else 0
    with held(folder):
        saved = _open(folder, _record(config, contents))
        accept(config, "train")
        if saved is not None and saved.epochs >= config.trainer.max_epochs:
            print(f"{saved.path} has all {saved.epochs} epochs: the training is complete")
            return 0
        try:
            with other_processes("train", config, place):
                _fit(config, task, data, [*callbacks, writer, Interruption()], saved, place)
        except Interrupted as stop:
            now = find_saved(folder)
            stop.kept = f"{0 if now is None else now.epochs} epochs are kept in {folder}"
            raise
    return _end(writer, config.model.name)


def _end(writer: TrainingWriter, model: str) -> int:
    """Print the result of the training, and scans that were left out; return the exit code."""
    for scan in writer.failed.values():
        logger.error("left out %s %s: %s", scan.file, [*scan.slices], scan.message)
    name = "last" if writer.best is None else "best"
    score = "" if writer.best is None else f", best {writer.monitor} {writer.best:.4f}"
    path = writer.folder / "checkpoints" / f"{name}.ckpt"
    print(f"trained {model}{score}; use it with model.checkpoint={path}")
    return 2 if writer.failed else 0


def _fit(
    config: DictConfig,
    task: NetworkTask,
    data: FastMRI,
    callbacks: list[pl.Callback],
    saved: Saved | None,
    place: Place,
) -> None:
    """Train from a saved state, or from the start without one."""
    folder = Path(config.output_dir)
    options = NO_LOGGER if place.rank else config.logger
    if config.trainer.get("enable_progress_bar", True):
        callbacks = [Bars(), *callbacks]
    with open_logger(options, "train", folder, group_options(config)) as log:
        trainer = instantiate(
            config.trainer,
            callbacks=callbacks,
            logger=log or False,
            default_root_dir=folder,
            enable_checkpointing=False,
            **({} if config.data.validation_subjects else {"limit_val_batches": 0}),
            **fit_options(config, place),
        )
        # Lightning's handlers would wait for processes that may have got no signal
        trainer._signal_connector.register_signal_handlers = lambda: None
        path = None if saved is None else saved.path
        trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)


def _record(config: DictConfig, contents: dict[str, str]) -> Record:
    """Make the record of a training."""
    record = make_record(config, contents)
    trainer: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    # records leave out the trainer and the batch size, which change a training but no fit
    counted = {"trainer": {k: v for k, v in trainer.items() if k not in _UNCOUNTED}}
    counted["batch_size"] = config.scale.train.batch_size
    return record.model_copy(update={"settings": record.settings | counted})


def _open(folder: Path, record: Record) -> Saved | None:
    """Return the saved state of this training; raise InputError for the folder of another."""
    saved, path = find_saved(folder), folder / "checkpoints" / "record.json"
    remove_partial(folder, path.parent)
    if saved is not None:
        if not path.is_file():
            raise InputError(
                "a folder with a checkpoint must hold the training's record.json, got none beside "
                f"{saved.path}; choose another output_dir"
            )
        record.check_same_run(Record.load(path), folder)
    record.save(path)
    return saved


def _hash_scans(data: FastMRI) -> str:
    """Return the hash of all training and validation slices."""
    digest = hashlib.sha256()
    with data.index:
        for part in (*data.training_slices, *data.validation_slices):
            try:
                content: object = part.volume.content
            except InputError:
                if data.on_error == "raise":
                    raise
                content = part.volume.file  # the failure is reported when it is read
            digest.update(repr((content, part.slice)).encode())
    return digest.hexdigest()[:24]


def _check_subjects(config: DictConfig) -> None:
    """Raise InputError for training on the same images that the bank is made of."""
    if config.data.train_subjects == "auxiliary":
        raise InputError(
            "training with a prior must leave out the bank's subjects, got "
            f"data.train_subjects=auxiliary and prior={config.prior.name}; set "
            "data.train_subjects=remaining"
        )
