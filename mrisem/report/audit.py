"""The hallucination audit: each run with a prior against the same run without it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.metrics.hallucination import image_change, kspace_change
from mrisem.metrics.statistics import summarise
from mrisem.report.results import Volume, open_file, read_reconstruction, read_target
from mrisem.report.runs import Run
from mrisem.report.summary import Column
from mrisem.report.tables import DASH, Cell, Table, TableRow, as_lines

log = logging.getLogger(__name__)
Row = dict[str, Any]

IMAGE_COLUMNS = ("difference", "false_detail")
KSPACE_COLUMNS = tuple(
    f"{what}_{where}"
    for where in ("measured", "unmeasured")
    for what in ("changed", "added", "removed")
)
COLUMNS = (
    *("file", "slice", "method", "without", "acceleration"),
    *(*IMAGE_COLUMNS, *KSPACE_COLUMNS),
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
    pairs: list[Pair] = []
    alone: list[Run] = []
    for run in runs:
        prior = run.recorded("prior.name")
        if prior in (None, "none"):
            continue
        wanted = (run.method.removesuffix(f" + {prior}"), run.anatomy, run.mask, _settings(run))
        plain = next(
            (o for o in runs if (o.method, o.anatomy, o.mask, _settings(o)) == wanted), None
        )
        if plain is None:
            alone.append(run)
        else:
            pairs.append(Pair(run, plain))
    return pairs, alone


def _settings(run: Run) -> frozenset[str]:
    return frozenset(override for override in run.overrides if not _FREE.match(override))


def audit(pair: Pair, targets: Path, cache: Path | None = None) -> list[Row]:
    """Compare the slices that both runs of a pair reconstructed.

    Args:
        pair: the runs.
        targets: folder of the input files.
        cache: folder of sensitivity maps; those that the runs used are found there.

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
            rows += _audit_file(pair, file, partner, targets / file.name, cache)
    if any(np.isnan(row["changed_measured"]) for row in rows):
        log.warning(
            "%s: without complex images of both runs k-space is not audited; reconstruct them "
            "again with this version (skip_existing=false)",
            pair.guided.label,
        )
    return rows


def _audit_file(
    pair: Pair, file: Path, partner: Path, target_file: Path, cache: Path | None
) -> Iterator[Row]:
    guided, plain = read_reconstruction(file), read_reconstruction(partner)
    shared = sorted(set(guided.slices.tolist()) & set(plain.slices.tolist()))
    known = {"file": file.name, "method": pair.guided.label, "without": pair.plain.label}
    known |= {"acquisition": guided.acquisition, "anatomy": pair.guided.anatomy}
    known |= {"mask": pair.guided.mask}
    for number in shared:
        places = [int(np.flatnonzero(one.slices == number)[0]) for one in (guided, plain)]
        target = read_target(target_file, np.array([number]))[0].numpy()
        images = [o.images[at].numpy() for o, at in zip((guided, plain), places, strict=True)]
        row = {"slice": number, **known, **image_change(images[0], images[1], target)}
        row["acceleration"] = float(guided.facts["acceleration"][places[0]])
        samples = [read_samples(o, at) for o, at in zip((guided, plain), places, strict=True)]
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
    from mrisem.physics.sense import SenseOperator

    estimator = pair.guided.recorded("data.sensitivity_maps") or "torch"
    maps = sensitivity_maps(file, number, mask, estimator, cache)
    sense = SenseOperator(maps, mask[None])
    kspace = [sense.coil_kspace(image[None])[0].numpy() for image in (guided, plain)]
    return dict(kspace_change(kspace[0], kspace[1], mask.numpy()))


def read_samples(volume: Volume, at: int) -> tuple[Tensor, Tensor] | None:
    """Return a slice's complex image and its mask, both ``(y, x)``; None where not kept."""
    with open_file(volume.path) as content:
        if "image" not in content or "mask" not in content:
            return None
        return torch.from_numpy(content["image"][at]), torch.from_numpy(content["mask"][at])


def sensitivity_maps(
    file: Path, number: int, mask: Tensor, estimator: str, cache: Path | None
) -> Tensor:
    """Return the maps ``(1, coil, y, x)`` that a slice was reconstructed with.

    Args:
        file: the input.
        number: index of the slice.
        mask: ``(y, x)`` bool, its samples: whole columns.
        estimator: of the maps.
        cache: folder where they may lie.
    """
    from mrisem.data.dataset import read_slice, undersample
    from mrisem.data.volumes import inspect_volume
    from mrisem.physics.coils import estimate_sensitivity_maps
    from mrisem.physics.masks import calibration_lines

    columns = mask.all(0)
    masked, _ = undersample(read_slice(inspect_volume(file), number)[0], columns)
    n = calibration_lines(columns)
    return estimate_sensitivity_maps(masked[None], n, cache, estimator=estimator)


def audit_summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return mean, interval and so on of each column, for each pair of methods and group."""
    keys = ("anatomy", "mask", "method", "without")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        dict(zip(keys, group, strict=True))
        | {
            name: summarise([row[name] for row in members], [row["file"] for row in members])
            for name in (*IMAGE_COLUMNS, *KSPACE_COLUMNS)
        }
        for group, members in sorted(groups.items())
    ]


def audit_tables(entries: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return the summary as tables, shown in percent: one for each group."""
    names = (*IMAGE_COLUMNS, *KSPACE_COLUMNS)
    columns = tuple(Column(name, name.replace("_", " "), None, 4) for name in names)
    rows: dict[str, list[TableRow]] = {}
    for entry in entries:
        title = f"prior against no prior: {entry['anatomy']}, {entry['mask']}"
        row = TableRow(
            method=entry["method"],
            n=entry["difference"]["n"],
            reference=None,
            cells=tuple(_cell(entry[name]) for name in names),
        )
        rows.setdefault(title, []).append(row)
    return [Table(title, columns, tuple(found)) for title, found in rows.items()]


def _cell(summary: Mapping[str, Any]) -> Cell:
    mean, std, low, high = (summary[key] for key in ("mean", "std", "low", "high"))
    text = DASH if mean is None else f"{100 * mean:.3g} %"
    return Cell(mean, std, text, best=False, test=None, low=low, high=high, interval="")


def text_tables(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """Return the tables of `audit_tables` as cells, by title."""
    return {table.title: as_lines(table) for table in audit_tables(entries)}
