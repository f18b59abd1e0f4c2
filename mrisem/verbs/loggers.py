"""Loggers of `conf/logger`: none, CSV, TensorBoard, Weights & Biases, for every verb that measures.

Names of what is logged (`mrisem.tasks.callbacks.logging` and `log_scores`): ``train/<name>``,
``val/<name>`` of training; ``loss/<name>``, ``similarity/<level>/<side>`` of per-scan fits over
``iteration`` and ``scan``; ``score/<name>`` of an evaluated run; tables ``scans``, ``slices``;
pictures ``image/reconstruction``, ``image/comparison``.
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

NO_LOGGER = OmegaConf.create({"name": "none"})  # of processes beside the first
N_PANELS = 3  # comparisons of an evaluated run
WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # last two: old names


@contextmanager
def open_logger(
    options: DictConfig, verb: str, folder: Path, facts: Mapping[str, Any]
) -> Iterator[Logger | None]:
    """Make the configured logger, give it the run's configuration, and close it in the end.

    Args:
        options: ``config.logger``; ``logger=none`` yields None.
        verb: wandb's job type, and part of the files' place.
        folder: run folder; logs go below ``logs``.
        facts: resolved configuration.

    Raises:
        InputError: when the package that it needs is missing.
    """
    if options.name == "none":
        yield None
        return
    try:
        logger: Any = instantiate(options.make, save_dir=folder / "logs", version=verb)
    except ModuleNotFoundError as error:
        raise InputError(
            f"logger={options.name} needs the package {options.name}, which is not installed "
            f"({error}); pip install {options.name}, or logger=csv"
        ) from error
    logger.log_hyperparams(dict(facts))
    status = "failed"
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
    """Start a run of Weights & Biases that neither asks nor waits.

    Args:
        save_dir: folder of its files; the run is named by the folder above it.
        version: wandb's job type.
        project: wandb's project.
        group: wandb's group; None: the sweep's folder, or none outside a sweep.
        tags: words that the run is found by.
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
    """Return ``WANDB_MODE``, else online where a key is known, else offline.

    Raises:
        InputError: when ``WANDB_MODE`` is none of wandb's.
    """
    from requests.utils import get_netrc_auth

    if mode := os.environ.get("WANDB_MODE"):
        if mode not in WANDB_MODES:
            raise InputError(f"WANDB_MODE must be one of {', '.join(WANDB_MODES)}, got {mode!r}")
        return mode
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    known = os.environ.get("WANDB_API_KEY") or get_netrc_auth(server)
    return "online" if known else "offline"


def log_scores(
    options: DictConfig, runs: Sequence[Run], rows: Sequence[Row], targets: Mapping[Path, Path]
) -> None:
    """Log each evaluated run by itself, so that a dashboard can group by what was swept.

    Args:
        options: ``config.logger``.
        runs: evaluated runs.
        rows: Scores of all their slices; ``run`` holds the absolute run folder.
        targets: run folder to the folder of its targets.
    """
    if options.name == "none":
        return
    for run in runs:
        mine = [row for row in rows if row["run"] == str(run.folder)]
        with open_logger(options, "evaluate", run.folder, run.record.settings) as logger:
            if logger is not None and mine:
                _log_run(logger, mine, targets)


def _log_run(logger: Logger, rows: Sequence[Row], targets: Mapping[Path, Path]) -> None:
    """Log means, the table of slices, and comparisons with the target."""
    from mrisem.report.panels import choose_slices, load_panel, panel_figure
    from mrisem.tasks.callbacks.logging import log_picture, log_table

    names = [key for key, value in rows[0].items() if isinstance(value, float)]
    found = {
        name: [row[name] for row in rows if math.isfinite(row.get(name, math.nan))]
        for name in names
    }
    means = {f"score/{name}": sum(v) / len(v) for name, v in found.items() if v}
    logger.log_metrics(means, step=0)
    columns = [key for key in rows[0] if key != "run"]
    log_table(logger, "slices", columns, [[row.get(key) for key in columns] for row in rows])
    for index, key in enumerate(choose_slices(rows, N_PANELS)):
        panel = load_panel(key, rows, targets, error_window=0.15)
        if panel.tiles:
            caption = f"{panel.file} [{panel.slice}], errors to 15 % of the window"
            log_picture(logger, "image/comparison", panel_figure(panel), caption, index)


def _sweep() -> str | None:
    """Name of the sweep's folder; None for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name
