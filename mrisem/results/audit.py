"""Hallucination audit: comparison of each run with a prior with the same run without it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrisem.errors import InputError
from mrisem.files import reading
from mrisem.metrics.hallucination import image_change, kspace_change
from mrisem.metrics.statistics import summarise
from mrisem.progress import track
from mrisem.results.labels import run_without_prior
from mrisem.results.reading import Samples, Volume, read_samples, read_volume
from mrisem.results.rows import GROUP_COLUMNS, Column, Row, group_rows, subject_of
from mrisem.results.run import Run
from mrisem.results.tables import DASH, Summary, Table, build_table
from mrisem.results.targets import read_target

log = logging.getLogger(__name__)

KSPACE_COLUMNS = tuple(
    f"{change}_{samples}"
    for samples in ("measured", "unmeasured")
    for change in ("changed", "added", "removed")
)
NUMBERS = ("difference", "false_detail", *KSPACE_COLUMNS)
COLUMNS = (
    *("file", "subject", "slice", "method", "without", "acceleration"),
    *NUMBERS,
    *("acquisition", "anatomy", "mask", "run", "without_run"),
)


@dataclass(frozen=True)
class Pair:
    """Run with a prior (``guided``), and the run with the same settings without it (``plain``)."""

    guided: Run
    plain: Run


def find_pairs(runs: Sequence[Run]) -> tuple[list[Pair], list[Run]]:
    """Pair each run with a prior with the same run without it, on the same files.

    Returns:
        the pairs, and the runs with a prior that have no such partner.
    """
    partners = [(run, run_without_prior(run, runs)) for run in runs if run.has_prior]
    pairs = [Pair(run, plain) for run, plain in partners if plain is not None]
    return pairs, [run for run, plain in partners if plain is None]


def audit(pair: Pair, targets: Path) -> list[Row]:
    """Compare the slices that both runs of a pair reconstructed.

    Args:
        pair: the runs.
        targets: folder of the input files, of which only the targets are read.

    Returns:
        a row for each slice, see `COLUMNS`. Columns of k-space are NaN if a run holds no complex
        images and sensitivity maps (earlier versions).

    Raises:
        InputError: when the runs were made from different scans or samples.
    """
    rows: list[Row] = []
    for file in track(pair.guided.files, pair.guided.label, "scans"):
        partner = pair.plain.output(file.name)
        if partner.is_file():
            rows += _audit_file(pair, (read_volume(file), read_volume(partner)), targets)
    if any(np.isnan(row["changed_measured"]) for row in rows):
        log.warning(
            "%s: without complex images and maps of both runs k-space is not audited; reconstruct "
            "them again with this version (skip_existing=false)",
            pair.guided.label,
        )
    return rows


def _audit_file(pair: Pair, volumes: tuple[Volume, Volume], targets: Path) -> Iterator[Row]:
    """Yield a row for each slice that both volumes, guided and plain, hold."""
    guided, plain = volumes
    if guided.scan and plain.scan and guided.scan != plain.scan:
        raise _unlike(pair, guided, "scan")
    if guided.images.shape[1:] != plain.images.shape[1:]:
        raise _unlike(pair, guided, "size")
    facts = {"file": guided.file, "method": pair.guided.label, "without": pair.plain.label}
    facts |= {"acquisition": guided.acquisition, "anatomy": pair.guided.anatomy}
    facts |= {"mask": pair.guided.mask, "subject": guided.subject}
    facts |= {"run": str(pair.guided.folder), "without_run": str(pair.plain.folder)}
    shared = sorted(set(guided.slices) & set(plain.slices))
    if not shared:
        return
    target = read_target(targets / guided.file, shared).images.numpy()
    for number in shared:
        # the same slice may have another position in each of the two files
        positions = [(volume, volume.slices.index(number)) for volume in volumes]
        images = [volume.images[position].numpy() for volume, position in positions]
        row = facts | {"slice": number, **image_change(images[0], images[1], target[number])}
        row["acceleration"] = float(guided.facts["acceleration"][positions[0][1]])
        samples = [read_samples(volume.path, position) for volume, position in positions]
        yield row | _kspace_row(pair, guided, samples[0], samples[1])


def _kspace_row(pair: Pair, volume: Volume, guided: Samples | None, plain: Samples | None) -> Row:
    """Return the changes in the k-space of the coils; NaN without complex images and maps."""
    from mrisem.physics.coils import interpolate_maps
    from mrisem.physics.sense import SenseOperator

    if guided is None or plain is None:
        return dict.fromkeys(KSPACE_COLUMNS, np.nan)
    if not guided.mask.equal(plain.mask):
        raise _unlike(pair, volume, "samples")
    mask = guided.mask
    output = pair.guided.output(volume.file)
    with reading(output, "a complete reconstruction", "reconstruct it again"):
        size = (guided.readout, mask.shape[1])
        maps = interpolate_maps(guided.coarse_maps[None], size, mask.shape[0])
    # one set of maps for both: only the images differ in the comparison
    sense = SenseOperator(maps, mask[None])
    kspace = [sense.coil_kspace(part.image[None])[0].numpy() for part in (guided, plain)]
    return dict(kspace_change(kspace[0], kspace[1], mask.numpy()))


def _unlike(pair: Pair, volume: Volume, fact: str) -> InputError:
    """Make the error of a pair whose volumes differ in a fact that they must share."""
    return InputError(
        f"a run and the run without its prior must have the same {fact}, got others of "
        f"{volume.file} in {pair.guided.folder} and {pair.plain.folder}; reconstruct one again"
    )


def audit_summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Summarise each column (mean, interval, counts) for each pair of methods in each group."""
    keys = (*GROUP_COLUMNS, "method", "without")
    return [
        dict(zip(keys, group, strict=True))
        | {
            name: summarise([row[name] for row in members], [subject_of(row) for row in members])
            for name in NUMBERS
        }
        for group, members in group_rows(rows, keys).items()
    ]


def audit_tables(entries: Sequence[dict[str, Any]]) -> list[Table]:
    """Return the summary as tables in percent, one for each group."""
    columns = [Column(name, name.replace("_", " "), None, 4) for name in NUMBERS]
    tables = []
    for (anatomy, mask), members in group_rows(entries).items():
        group = {"anatomy": f"prior against no prior: {anatomy}", "mask": mask, "paired_tests": ()}
        methods = {"methods": {entry["method"]: entry for entry in members}}
        tables.append(build_table(group | methods, columns, _percent))
    return tables


def _percent(summary: Summary, _: int) -> tuple[str, str]:
    """Return the mean in percent, without an interval (compare `mean_text`)."""
    mean = summary["mean"]
    return DASH if mean is None else f"{100 * mean:.3g} %", ""
