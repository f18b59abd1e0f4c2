"""`mrisem train`: fit a backbone over a dataset, supervised: a warm start for `reconstruct`."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from mrisem.types import InputError
from mrisem.verbs.pieces import make_datamodule
from mrisem.verbs.reconstruct import make_task


def run(config: DictConfig) -> int:
    """Train on `multicoil_train` less the auxiliary subjects, validate on `multicoil_val`.

    Goes on from ``checkpoints/last.ckpt`` when the run folder has one.
    """
    if config.prior.name != "none":
        raise InputError(
            f"training over a dataset takes no prior yet, got prior={config.prior.name}; set "
            "prior=none here and give the prior to mrisem reconstruct"
        )
    folder = Path(config.output_dir)
    data = make_datamodule(config, config.scale.train.batch_size)
    task = make_task(config)
    if not any(p.requires_grad for p in task.parameters()):
        raise InputError(f"model={config.model.name} has nothing to train; set model=unrolled")
    checkpoints = ModelCheckpoint(
        folder / "checkpoints", filename="best", monitor="val/ssim_loss", save_last=True
    )
    trainer = instantiate(
        config.trainer,
        callbacks=[checkpoints],
        logger=CSVLogger(folder, name="", version=""),
        default_root_dir=folder,
    )
    last = folder / "checkpoints" / "last.ckpt"
    trainer.fit(task, datamodule=data, ckpt_path=last if last.is_file() else None)
    print(
        f"trained {config.model.name}: best val/ssim_loss {checkpoints.best_model_score:.4f}"
        f"; use it with model.checkpoint={checkpoints.best_model_path}"
    )
    return 0
