"""Labels of runs in tables, and the reference against which each run is tested."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from mrisem.errors import InputError
from mrisem.results.inside import one_line
from mrisem.results.record import PRIOR_KEYS, without_keys
from mrisem.results.run import Run

Settings = dict[str, str | None]  # name -> value as text; None: the run has no such setting
SAMPLING = ("mask", "mask.acceleration")
_REGULARISER_KEYS = ("regulariser", "model.task.regulariser")
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?", re.IGNORECASE)
# models in the order of tables
_ORDER = (
    *("zero_filled", "cg_sense", "grappa", "tv", "l1_wavelet"),
    *("unet", "unrolled", "unrolled_vit", "varnet", "inr"),
)


def label_runs(runs: Sequence[Run]) -> list[Run]:
    """Label runs by their method, and by the settings in which runs on the same files differ.

    All runs of a method name the same settings, whatever their anatomy and mask. A single swept
    parameter is named with each value. Of several parameters, a label names values other than the
    default, that is the value of a run that does not set the parameter on its command line.
    """
    labels: dict[Path, str] = {}
    for method in sorted({run.record.method for run in runs}):
        variants = [run for run in runs if run.record.method == method]
        names = _distinguishing(variants)
        for group in _comparable(variants) if names is not None else ():
            labels |= _distinct_labels(group, names or [])
    return [replace(run, label=one_line(labels.get(run.folder, run.record.method))) for run in runs]


def settings_of(runs: Sequence[Run]) -> dict[Path, Settings]:
    """Return the settings that distinguish runs of one method: run folder -> settings."""
    facts = {run.folder: _facts(run) for run in runs}
    written = {key for run in runs for key in _written(run)}
    keys = {key for key in written if len({values.get(key) for values in facts.values()}) > 1}
    keys = (keys | {*(_distinguishing(runs) or ())}) - {*SAMPLING}
    return {folder: {k: values.get(k) for k in sorted(keys)} for folder, values in facts.items()}


def _comparable(runs: Sequence[Run]) -> list[list[Run]]:
    """Split runs into groups of one anatomy and sampling."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.anatomy, run.mask].append(run)
    return list(groups.values())


def _distinguishing(runs: Sequence[Run]) -> list[str] | None:
    """Return the settings that distinguish runs of one method; None: no two runs share files."""
    ambiguous = [group for group in _comparable(runs) if _share_files(group)]
    if not ambiguous:
        return None
    facts = {run.folder: _facts(run) for run in runs}
    written = {key for run in runs for key in _written(run)}
    names: set[str] = set()
    for group in ambiguous:
        settings = [facts[run.folder] for run in group]
        keys = {key for values in settings for key in values}
        differing = {key for key in keys if len({values.get(key) for values in settings}) > 1}
        names |= differing & written
        # One option may change many settings. Settings that nobody wrote are named only where two
        # runs would still have one label; the shortest name comes first.
        for key in sorted(differing - written, key=lambda k: (k.count("."), len(k), k)):
            if _n_distinct(settings, names | {key}) > _n_distinct(settings, names):
                names.add(key)
    return sorted(names)


def _n_distinct(settings: Sequence[Settings], names: set[str]) -> int:
    """Return the number of distinct combinations of values of these settings."""
    return len({tuple(values.get(name) for name in sorted(names)) for values in settings})


def _share_files(runs: Sequence[Run]) -> bool:
    """Return whether two of the runs reconstructed a file of the same name."""
    names = [{file.name for file in run.files} for run in runs]
    return any(a & b for a, b in combinations(names, 2))


def _distinct_labels(runs: Sequence[Run], names: Sequence[str]) -> dict[Path, str]:
    """Return run folder -> label of comparable runs of one method, from these settings."""
    facts = {run.folder: _facts(run) for run in runs}
    defaults = {k: facts[run.folder].get(k) for run in runs for k in {*names} - _written(run)}
    suffixes = []
    for run in runs:
        values = {k: text for k in names if (text := facts[run.folder].get(k)) is not None}
        if len(names) > 1:
            values = {key: text for key, text in values.items() if text != defaults.get(key)}
        suffixes.append(", ".join(f"{key}={text}" for key, text in values.items()))
    # settings may not distinguish repeated runs: the end of the path does
    if len(set(suffixes)) < len(suffixes) and _share_files(runs):
        suffixes = ["/".join(run.folder.parts[-2:]) for run in runs]
    return {
        run.folder: f"{run.record.method} [{suffix}]" if suffix else run.record.method
        for run, suffix in zip(runs, suffixes, strict=True)
    }


def _facts(run: Run) -> Settings:
    """Return settings, paths and contents as text; a chosen YAML goes by its group's name."""
    record = run.record
    hashes = {key: digest[:8] for key, digest in record.contents.items()}
    # eight digits of a hash are enough to tell two checkpoints apart in a label
    facts: Settings = {k.removesuffix(".name"): _text(v) for k, v in run.settings.items()}
    return facts | hashes | record.places | ({"encoder": record.encoder} if record.encoder else {})


def _written(run: Run) -> set[str]:
    """Return the names of the settings on a run's command line."""
    words = (word.lstrip("+~").partition("=") for word in run.record.overrides)
    return {name for name, _, _ in words}


def _text(value: Any) -> str:
    """Return a value as text, as a command line would have it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are the same setting
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


def table_order(run: Run) -> tuple[int, str, str, tuple[float, ...], str]:
    """Sort key of runs: baselines, networks, runs with a prior; settings by their numbers."""
    model, label = run.record.model, run.label
    position = _ORDER.index(model) if model in _ORDER else len(_ORDER)
    numbers = tuple(float(number) for number in _NUMBER.findall(label))
    return (position, model, _NUMBER.sub("", label), numbers, label)


def run_without_prior(run: Run, runs: Sequence[Run]) -> Run | None:
    """Return the run that is the same without its prior, on the same files; None: there is none."""
    same = [
        other
        for other in runs
        if run.has_prior
        and not other.has_prior
        and other.record.key_without_prior == run.record.key_without_prior
    ]
    names = {file.name for file in run.files}
    # of several such runs the one that shares most files
    shared = [len(names & {file.name for file in other.files}) for other in same]
    return same[shared.index(max(shared))] if any(shared) else None


def reference_of(run: Run, runs: Sequence[Run], reference_label: str | None = None) -> Run | None:
    """Return the run against which a run is tested; None for the reference itself.

    It is, among runs of the same anatomy and sampling, the first of these that exists: the same run
    without its prior; without its regulariser; the zero-filled run; the first run.

    Args:
        run: the run.
        runs: all runs, in table order.
        reference_label: label of the reference of all runs; None: as above.
    """
    rivals = [r for r in runs if (r.anatomy, r.mask) == (run.anatomy, run.mask)]
    if reference_label is not None:
        candidates = [other for other in rivals if other.label == reference_label]
    else:
        plain = run_without_prior(run, rivals)
        bare = [other for other in rivals if run.record.regulariser and _is_bare(other, run)]
        zero_filled = [other for other in rivals if other.record.model == "zero_filled"]
        candidates = [*filter(None, [plain]), *bare, *zero_filled, *rivals]
    reference = next(iter(candidates), None)
    return None if reference is None or reference.label == run.label else reference


def _is_bare(other: Run, run: Run) -> bool:
    """Return whether ``other`` is the same run without its prior and its regulariser."""
    extra = (*PRIOR_KEYS, *_REGULARISER_KEYS)
    settings = [without_keys(each.record.settings, extra) for each in (other, run)]
    is_plain = not (other.has_prior or other.record.regulariser)
    return is_plain and other.record.model == run.record.model and settings[0] == settings[1]


def references(runs: Sequence[Run], reference_label: str | None = None) -> dict[str, str]:
    """Return label of a run -> label of its reference (`reference_of`), for runs that have one."""
    labels: dict[str, str] = {}
    for run in runs:
        reference = reference_of(run, runs, reference_label)
        if reference is not None:
            labels.setdefault(run.label, reference.label)
    return labels


def check_reference(reference_label: str | None, runs: Sequence[Run]) -> None:
    """Raise InputError unless the reference is None or one of the labels."""
    labels = list(dict.fromkeys(run.label for run in runs))
    if reference_label is not None and reference_label not in labels:
        raise InputError(
            f"reference must be one of {labels}, got {reference_label!r}; set one of them"
        )
