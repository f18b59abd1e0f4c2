"""`mrisem train`: fit a backbone over a dataset: a warm start for `reconstruct`."""

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
from mrisem.verbs.devices import Place, end_with_the_first, find_place, others, together
from mrisem.verbs.jobs import SweepSummary, accept
from mrisem.verbs.loggers import NO_LOGGER, open_logger
from mrisem.verbs.pieces import has_prior, make_datamodule, make_task, without
from mrisem.verbs.priors import Priors
from mrisem.verbs.records import hash_companions, hash_weights, make_record

if TYPE_CHECKING:
    from mrisem.data.datamodules import FastMRI

logger = logging.getLogger(__name__)
# Options of the trainer that do not change what is trained.
_UNCOUNTED = (
    *("_target_", "accelerator", "strategy", "log_every_n_steps", "enable_model_summary"),
    *("enable_progress_bar", "enable_checkpointing", "num_sanity_val_steps", "max_time"),
)


def run(config: DictConfig) -> int:
    """Train on `multicoil_train`, never on subjects that are reconstructed.

    With ``data.validation_subjects`` the best checkpoint is selected on training subjects that are
    held out; without, the last one is named. Continues from ``checkpoints/last.ckpt`` when the run
    folder has one, with the bits of a training that was never interrupted.

    Returns:
        0, or 2 when slices could not be read.
    """
    place = find_place(config)
    end_with_the_first(place)
    data = make_datamodule(config, config.scale.train.batch_size)
    task = make_task(config)
    if not isinstance(task, NetworkTask) or task.objective is None:
        raise InputError(
            f"model={config.model.name} is not trained over a dataset; set model=unrolled, unet or "
            "varnet"
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
        leave()  # one that ended by itself would fail the step that the first one still makes
        SweepSummary.new_folder = False  # it is the first one's
        saved = find_saved(folder)
        if saved is None or saved.epochs < config.trainer.max_epochs:
            _fit(config, task, data, [*callbacks, writer], saved, place)
        return 2 if writer.failed else 0
    with held(folder):
        saved = _open(folder, _record(config, contents))
        accept(config, "train")
        if saved is not None and saved.epochs >= config.trainer.max_epochs:
            print(f"{saved.path} has all {saved.epochs} epochs: nothing is left to train")
            return 0
        try:
            with others("train", config, place):
                _fit(config, task, data, [*callbacks, writer, Interruption()], saved, place)
        except Interrupted as stop:
            now = find_saved(folder)
            stop.kept = f"{0 if now is None else now.epochs} epochs are kept in {folder}"
            raise
    return _end(writer, config.model.name)


def _end(writer: TrainingWriter, model: str) -> int:
    """Say what was trained and left out; return the exit code."""
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
    folder = Path(config.output_dir)
    options = NO_LOGGER if place.rank else config.logger
    if config.trainer.get("enable_progress_bar", True):
        callbacks = [Bars(), *callbacks]
    with open_logger(options, "train", folder, without(config)) as log:
        trainer = instantiate(
            config.trainer,
            callbacks=callbacks,
            logger=log or False,
            default_root_dir=folder,
            enable_checkpointing=False,
            **({} if config.data.validation_subjects else {"limit_val_batches": 0}),
            **together(config, place),
        )
        # our handlers stay: Lightning's waits for processes that may have got no signal
        trainer._signal_connector.register_signal_handlers = lambda: None
        path = None if saved is None else saved.path
        trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)


def _record(config: DictConfig, contents: dict[str, str]) -> Record:
    record = make_record(config, contents)
    trainer: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    counted = {"trainer": {k: v for k, v in trainer.items() if k not in _UNCOUNTED}}
    counted["batch_size"] = config.scale.train.batch_size
    return record.model_copy(update={"settings": record.settings | counted})


def _open(folder: Path, record: Record) -> Saved | None:
    """Return what is there of this training; refuse another's folder."""
    saved, path = find_saved(folder), folder / "checkpoints" / "record.json"
    remove_partial(folder, path.parent)
    if saved is not None:
        if not path.is_file():
            raise InputError(
                f"a training is continued by its record.json, got none beside {saved.path}; choose "
                "another output_dir"
            )
        record.same_run(Record.load(path), folder)
    record.save(path)
    return saved


def _hash_scans(data: FastMRI) -> str:
    """Return the hash of all slices that are trained and validated on."""
    digest = hashlib.sha256()
    with data.index:
        for part in (*data.training_slices, *data.validation_slices):
            try:
                content: object = part.volume.content
            except InputError:
                if data.on_error == "raise":
                    raise
                content = part.volume.file  # it fails when it is read, and is listed then
            digest.update(repr((content, part.slice)).encode())
    return digest.hexdigest()[:24]


def _check_subjects(config: DictConfig) -> None:
    """Refuse to train on the very images that the bank is made of."""
    if config.data.train_subjects == "auxiliary":
        raise InputError(
            "with a prior the network may not train on the bank's own subjects, got "
            f"data.train_subjects=auxiliary and prior={config.prior.name}; set "
            "data.train_subjects=remaining"
        )
