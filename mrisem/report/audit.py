"""The hallucination audit: each run with a prior against the same run without it."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrisem.data.dataset import read_slice, undersample
from mrisem.data.volumes import inspect_volume
from mrisem.errors import InputError
from mrisem.metrics.hallucination import image_change, kspace_change
from mrisem.metrics.statistics import summarise
from mrisem.physics.coils import estimate_sensitivity_maps
from mrisem.physics.masks import calibration_lines
from mrisem.physics.sense import SenseOperator
from mrisem.report.results import Volume, read_reconstruction, read_target
from mrisem.report.runs import Run, open_file
from mrisem.report.summary import GROUP_COLUMNS, Column, Row, group_rows
from mrisem.report.tables import DASH, Summary, Table, build_table

log = logging.getLogger(__name__)

KSPACE_COLUMNS = tuple(
    f"{what}_{where}"
    for where in ("measured", "unmeasured")
    for what in ("changed", "added", "removed")
)
NUMBERS = ("difference", "false_detail", *KSPACE_COLUMNS)
COLUMNS = (
    *("file", "slice", "method", "without", "acceleration"),
    *NUMBERS,
    *("acquisition", "anatomy", "mask", "run", "without_run"),
)
# Overrides in which a run and the same run without its prior may differ.
_FREE = re.compile(
    r"^\+*(prior|model\.prior_weight|encoder|prompt|auxiliary|output_dir|data\.root"
    r"|data\.max_slices|paths|hydra|on_error|skip_existing|logger|trainer)\b"
)


@dataclass(frozen=True)
class Pair:
    """A run with a prior, and the run with the same settings without."""

    guided: Run
    plain: Run


def find_pairs(runs: Sequence[Run]) -> tuple[list[Pair], list[Run]]:
    """Pair each run that had a prior with the one without: same data, mask, method and overrides.

    Returns:
        the pairs, and the runs with a prior that have no partner.
    """
    partners: dict[Any, Run] = {}
    for run in runs:
        partners.setdefault((run.method, _settings(run)), run)
    pairs: list[Pair] = []
    alone: list[Run] = []
    for run in runs:
        prior = run.recorded("prior.name")
        if prior not in (None, "none"):
            plain = partners.get((run.method.removesuffix(f" + {prior}"), _settings(run)))
            if plain is None:
                alone.append(run)
            else:
                pairs.append(Pair(run, plain))
    return pairs, alone


def _settings(run: Run) -> tuple[str, str, frozenset[str]]:
    kept = frozenset(override for override in run.overrides if not _FREE.match(override))
    return run.anatomy, run.mask, kept


def audit(pair: Pair, targets: Path, cache: Path | None = None) -> list[Row]:
    """Compare the slices that both runs of a pair reconstructed.

    Args:
        pair: the runs.
        targets: folder of the input files.
        cache: folder with the sensitivity maps that the runs used.

    Returns:
        one row a slice, see `COLUMNS`; those of k-space are NaN where a run kept no complex image,
        as earlier versions did not.

    Raises:
        InputError: the runs were made from different samples.
    """
    rows: list[Row] = []
    for file in pair.guided.files:
        partner = pair.plain.folder / "reconstructions" / file.name
        if partner.is_file():
            volumes = (read_reconstruction(file), read_reconstruction(partner))
            rows += _audit_file(pair, volumes, targets / file.name, cache)
    if any(np.isnan(row["changed_measured"]) for row in rows):
        log.warning(
            "%s: without complex images of both runs k-space is not audited; reconstruct them "
            "again with this version (skip_existing=false)",
            pair.guided.label,
        )
    return rows


def _audit_file(
    pair: Pair, volumes: tuple[Volume, Volume], target_file: Path, cache: Path | None
) -> Iterator[Row]:
    guided, plain = volumes
    facts = {"file": target_file.name, "method": pair.guided.label, "without": pair.plain.label}
    facts |= {"acquisition": guided.acquisition, "anatomy": pair.guided.anatomy}
    facts |= {"mask": pair.guided.mask}
    shared = sorted(set(guided.slices) & set(plain.slices))
    target = read_target(target_file, shared).images.numpy()
    for number in shared:
        places = [(volume, volume.slices.index(number)) for volume in volumes]
        images = [volume.images[place].numpy() for volume, place in places]
        row = facts | {"slice": number, **image_change(images[0], images[1], target[number])}
        row["acceleration"] = float(guided.facts["acceleration"][places[0][1]])
        samples = [read_samples(volume.path, place) for volume, place in places]
        yield row | _kspace_row(samples, target_file, number, pair, cache)


def _kspace_row(
    samples: list[tuple[Tensor, Tensor] | None],
    file: Path,
    number: int,
    pair: Pair,
    cache: Path | None,
) -> Row:
    """Return what changed in the coils' k-space, NaN where it cannot be known."""
    if samples[0] is None or samples[1] is None:
        return dict.fromkeys(KSPACE_COLUMNS, np.nan)
    (guided, mask), (plain, other) = samples[0], samples[1]
    if not torch.equal(mask, other):
        raise InputError(
            f"a run and the one without its prior must have the same samples, got others of "
            f"{file.name} in {pair.guided.folder} and {pair.plain.folder}; reconstruct one again"
        )
    estimator = pair.guided.recorded("data.sensitivity_maps") or "torch"
    sense = SenseOperator(sensitivity_maps(file, number, mask, estimator, cache), mask[None])
    kspace = [sense.coil_kspace(image[None])[0].numpy() for image in (guided, plain)]
    return dict(kspace_change(kspace[0], kspace[1], mask.numpy()))


def read_samples(file: Path, place: int) -> tuple[Tensor, Tensor] | None:
    """Return a slice's complex image and its mask, both ``(y, x)``; None where not kept."""
    with open_file(file) as content:
        if "image" not in content or "mask" not in content:
            return None
        return torch.from_numpy(content["image"][place]), torch.from_numpy(content["mask"][place])


def sensitivity_maps(
    file: Path, number: int, mask: Tensor, estimator: str, cache: Path | None
) -> Tensor:
    """Return the maps ``(1, coil, y, x)`` that a slice was reconstructed with.

    Args:
        file: the input.
        number: index of the slice.
        mask: ``(y, x)`` bool, its samples: whole columns.
        estimator: of the maps, as ``data.sensitivity_maps`` names it.
        cache: folder where they may lie.
    """
    columns = mask.all(0)
    masked, _ = undersample(read_slice(inspect_volume(file), number)[0], columns)
    n = calibration_lines(columns)
    return estimate_sensitivity_maps(masked[None], n, cache, estimator=estimator)


def audit_summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return mean, interval and so on of each column, for each pair of methods and group."""
    keys = (*GROUP_COLUMNS, "method", "without")
    return [
        dict(zip(keys, group, strict=True))
        | {
            name: summarise([row[name] for row in members], [row["file"] for row in members])
            for name in NUMBERS
        }
        for group, members in group_rows(rows, keys).items()
    ]


def audit_tables(entries: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the summary as tables, shown in percent: one for each group."""
    columns = [Column(name, name.replace("_", " "), None, 4) for name in NUMBERS]
    tables = []
    for (anatomy, mask), members in group_rows(entries).items():
        group = {"anatomy": f"prior against no prior: {anatomy}", "mask": mask, "paired_tests": ()}
        methods = {"methods": {entry["method"]: entry for entry in members}}
        tables.append(build_table(group | methods, columns, _percent))
    return tables


def _percent(summary: Summary, _: int) -> tuple[str, str]:
    mean = summary["mean"]
    return DASH if mean is None else f"{100 * mean:.3g} %", ""
