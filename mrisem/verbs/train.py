"""`mrisem train`: fit a backbone over a dataset: a warm start for `reconstruct`."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from mrisem.errors import InputError
from mrisem.tasks.network import NetworkTask
from mrisem.verbs.loggers import open_logger
from mrisem.verbs.pieces import has_prior, make_datamodule, make_task, without
from mrisem.verbs.priors import bank_callback


def run(config: DictConfig) -> int:
    """Train on `multicoil_train`, never on subjects that are reconstructed.

    With ``data.validation_subjects`` the best checkpoint is selected on training subjects that are
    held out; without, the last one is named. Continues from ``checkpoints/last.ckpt`` when the run
    folder has one.
    """
    folder = Path(config.output_dir)
    data = make_datamodule(config, config.scale.train.batch_size)
    task = make_task(config)
    if not isinstance(task, NetworkTask) or task.objective is None:
        raise InputError(
            f"model={config.model.name} is not trained over a dataset; set model=unrolled, unet or "
            "varnet"
        )
    selects = bool(config.data.validation_subjects)
    monitor = f"val/{task.objective.monitor}" if selects else None
    checkpoints = ModelCheckpoint(
        folder / "checkpoints",
        filename="best" if selects else "last",
        monitor=monitor,
        save_last=selects,
        enable_version_counter=False,
    )
    callbacks: list[pl.Callback] = [checkpoints]
    if has_prior(config):
        _check_subjects(config)
        callbacks.insert(0, bank_callback(config, data, task))
    last = folder / "checkpoints" / "last.ckpt"
    table = CSVLogger(folder, name="", version="")
    with open_logger(config.logger, "train", folder, without(config)) as log:
        trainer = instantiate(
            config.trainer,
            callbacks=callbacks,
            logger=[table, log] if log is not None else table,
            default_root_dir=folder,
            **({} if selects else {"limit_val_batches": 0}),
        )
        trainer.fit(task, datamodule=data, ckpt_path=last if last.is_file() else None)
    best = checkpoints.best_model_score
    score = "" if best is None or not selects else f", best {monitor} {best:.4f}"
    print(
        f"trained {config.model.name}{score}; use it with "
        f"model.checkpoint={checkpoints.best_model_path}"
    )
    return 0


def _check_subjects(config: DictConfig) -> None:
    """Refuse to train on the very images that the bank is made of."""
    if config.data.train_subjects == "auxiliary":
        raise InputError(
            "with a prior the network may not train on the bank's own subjects, got "
            f"data.train_subjects=auxiliary and prior={config.prior.name}; set "
            "data.train_subjects=remaining"
        )
