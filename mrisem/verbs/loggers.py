"""Loggers of `conf/logger`: none, CSV, TensorBoard, Weights & Biases; for train to evaluate.

Names in the logs (`mrisem.tasks.callbacks.logging` and `log_scores`): ``train/<name>`` and
``val/<name>`` of training; ``loss/<name>`` and ``similarity/<level>/<side>`` of per-scan fits over
``iteration`` and ``scan``; ``score/<name>`` of an evaluated run; tables ``scans`` and ``slices``;
pictures ``image/reconstruction`` and ``image/comparison``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mrisem.errors import InputError

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger, WandbLogger

    from mrisem.results.rows import Row
    from mrisem.results.run import Run

NO_LOGGER = OmegaConf.create({"name": "none"})  # for all processes but the first
N_PANELS = 3  # number of pictured comparisons of an evaluated run
WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # last two: old names


@contextmanager
def open_logger(
    options: DictConfig, verb: str, folder: Path, facts: Mapping[str, Any]
) -> Iterator[Logger | None]:
    """Make the configured logger, log the configuration, and close the logger at the end.

    Args:
        options: ``config.logger``; ``logger=none`` yields None.
        verb: wandb's job type, and the logs' subfolder.
        folder: run folder, whose folder ``logs`` holds the logs.
        facts: resolved configuration.

    Raises:
        InputError: when a package for the logger is missing.
    """
    if options.name == "none":
        yield None
        return
    try:
        logger: Any = instantiate(options.make, save_dir=folder / "logs", version=verb)
    except ModuleNotFoundError as error:
        raise InputError(
            f"logger={options.name} needs the package {options.name}, got none installed "
            f"({error}); pip install {options.name}, or set logger=csv"
        ) from error
    logger.log_hyperparams(dict(facts))
    status = "failed"  # until the block has ended without an error
    try:
        yield logger
        status = "success"
    finally:
        logger.finalize(status)
        if options.name == "wandb":
            logger.experiment.finish(exit_code=0 if status == "success" else 1)


def wandb_logger(
    save_dir: Path, version: str, project: str, group: str | None = None, tags: Sequence[str] = ()
) -> WandbLogger:
    """Start a run of Weights & Biases that neither prompts nor waits.

    Args:
        save_dir: folder of its files; the folder above it names the run.
        version: wandb's job type.
        project: wandb's project.
        group: wandb's group; None: name of the sweep's folder, or none outside a sweep.
        tags: wandb's tags.
    """
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    mode = wandb_mode()
    if mode == "offline":
        print(f"wandb: no key is known, so offline: wandb sync {save_dir}/wandb/offline-*")
    return WandbLogger(
        name=save_dir.parent.name,
        save_dir=save_dir,
        project=project,
        group=group or _sweep(),
        job_type=version,
        tags=list(tags),
        offline=mode == "offline",
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
    )


def wandb_mode() -> str:
    """Return ``WANDB_MODE``; without it, ``online`` if there is a key, else ``offline``.

    Raises:
        InputError: when ``WANDB_MODE`` is no mode of wandb.
    """
    from requests.utils import get_netrc_auth

    if mode := os.environ.get("WANDB_MODE"):
        if mode not in WANDB_MODES:
            raise InputError(
                f"WANDB_MODE must be one of {', '.join(WANDB_MODES)}, got {mode!r}; set one of them"
            )
        return mode
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    has_key = os.environ.get("WANDB_API_KEY") or get_netrc_auth(server)
    return "online" if has_key else "offline"


def log_scores(
    options: DictConfig, runs: Sequence[Run], rows: Sequence[Row], targets: Mapping[Path, Path]
) -> None:
    """Log each evaluated run by itself, so that a dashboard can group runs by swept settings.

    Args:
        options: ``config.logger``.
        runs: evaluated runs.
        rows: scores of all their slices; ``run`` holds the absolute run folder.
        targets: run folder -> folder of its targets.
    """
    if options.name == "none":
        return
    for run in runs:
        run_rows = [row for row in rows if row["run"] == str(run.folder)]
        with open_logger(options, "evaluate", run.folder, run.record.settings) as logger:
            if logger is not None and run_rows:
                _log_run(logger, run_rows, targets)


def _log_run(logger: Logger, rows: Sequence[Row], targets: Mapping[Path, Path]) -> None:
    """Log mean scores, the table of slices, and pictures that compare slices with targets."""
    from mrisem.report.panels import choose_slices, load_panel, panel_figure
    from mrisem.tasks.callbacks.logging import log_picture, log_table

    names = [key for key, value in rows[0].items() if isinstance(value, float)]
    # scores of some slices may be missing, such as those of lesions
    values = {
        name: [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
        for name in names
    }
    means = {f"score/{name}": sum(v) / len(v) for name, v in values.items() if v}
    logger.log_metrics(means, step=0)
    columns = [key for key in rows[0] if key != "run"]
    log_table(logger, "slices", columns, [[row.get(key) for key in columns] for row in rows])
    for index, key in enumerate(choose_slices(rows, N_PANELS)):
        panel = load_panel(key, rows, targets, error_window=0.15)
        if panel.tiles:
            caption = f"{panel.file} [{panel.slice}], errors to 15 % of the window"
            log_picture(logger, "image/comparison", panel_figure(panel), caption, index)


def _sweep() -> str | None:
    """Return the name of the sweep's folder; None for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name
