"""What each run is called in a table, and which run it is tested against."""

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
from mrisem.results.record import OF_A_PRIOR, without
from mrisem.results.run import Run

Settings = dict[str, str | None]  # name to text; None: the run has no such setting
SAMPLING = ("mask", "mask.acceleration")
_OF_A_REGULARISER = ("regulariser", "model.task.regulariser")
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?", re.IGNORECASE)
_ORDER = (
    *("zero_filled", "cg_sense", "grappa", "tv", "l1_wavelet"),
    *("unet", "unrolled", "varnet", "inr"),
)


def label_runs(runs: Sequence[Run]) -> list[Run]:
    """Tell runs of one method on the same files apart by the settings in which they differ.

    A method's runs are named by the same settings whatever their anatomy and mask. Of one swept
    parameter every value is named; of several, those that are not the default: what a run of the
    method used without writing it on the command line.
    """
    labels: dict[Path, str] = {}
    for method in sorted({run.record.method for run in runs}):
        variants = [run for run in runs if run.record.method == method]
        names = _distinguishing(variants)
        for group in _comparable(variants) if names is not None else ():
            labels |= _distinct_labels(group, names or [])
    return [replace(run, label=one_line(labels.get(run.folder, run.record.method))) for run in runs]


def settings_of(runs: Sequence[Run]) -> dict[Path, Settings]:
    """Return what each run of one method used of all that distinguishes them, by its folder."""
    facts = {run.folder: _facts(run) for run in runs}
    chosen = {key for run in runs for key in _written(run)}
    keys = {key for key in chosen if len({known.get(key) for known in facts.values()}) > 1}
    keys = (keys | {*(_distinguishing(runs) or ())}) - {*SAMPLING}
    return {folder: {k: known.get(k) for k in sorted(keys)} for folder, known in facts.items()}


def _comparable(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.anatomy, run.mask].append(run)
    return list(groups.values())


def _distinguishing(runs: Sequence[Run]) -> list[str] | None:
    """Return the settings that tell runs of one method apart; None where nothing need be told.

    Settings of which one follows from the other change together. Those written on the command
    line are named; others only where two runs would still have one name, the shortest name first.
    """
    confused = [group for group in _comparable(runs) if _share_files(group)]
    if not confused:
        return None
    facts = {run.folder: _facts(run) for run in runs}
    written = {key for run in runs for key in _written(run)}
    names: set[str] = set()
    for group in confused:
        known = [facts[run.folder] for run in group]
        keys = {key for facts_of_run in known for key in facts_of_run}
        differing = {key for key in keys if len({one.get(key) for one in known}) > 1}
        names |= differing & written
        for key in sorted(differing - written, key=lambda k: (k.count("."), len(k), k)):
            if _n_names(known, names | {key}) > _n_names(known, names):
                names.add(key)
    return sorted(names)


def _n_names(known: Sequence[Settings], names: set[str]) -> int:
    return len({tuple(one.get(name) for name in sorted(names)) for one in known})


def _share_files(runs: Sequence[Run]) -> bool:
    names = [{file.name for file in run.files} for run in runs]
    return any(a & b for a, b in combinations(names, 2))


def _distinct_labels(runs: Sequence[Run], names: Sequence[str]) -> dict[Path, str]:
    facts = {run.folder: _facts(run) for run in runs}
    defaults = {k: facts[run.folder].get(k) for run in runs for k in {*names} - _written(run)}
    suffixes = []
    for run in runs:
        known = {k: text for k in names if (text := facts[run.folder].get(k)) is not None}
        if len(names) > 1:
            known = {key: text for key, text in known.items() if text != defaults.get(key)}
        suffixes.append(", ".join(f"{key}={text}" for key, text in known.items()))
    if len(set(suffixes)) < len(suffixes) and _share_files(runs):
        suffixes = ["/".join(run.folder.parts[-2:]) for run in runs]
    return {
        run.folder: f"{run.record.method} [{suffix}]" if suffix else run.record.method
        for run, suffix in zip(runs, suffixes, strict=True)
    }


def _facts(run: Run) -> Settings:
    """Return settings, places and contents as text, a choice of a group by the group's name."""
    record = run.record
    hashes = {key: digest[:8] for key, digest in record.contents.items()}
    facts: Settings = {k.removesuffix(".name"): _text(v) for k, v in run.settings.items()}
    return facts | hashes | record.places | ({"encoder": record.encoder} if record.encoder else {})


def _written(run: Run) -> set[str]:
    words = (word.lstrip("+~").partition("=") for word in run.record.overrides)
    return {name for name, _, _ in words}


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are one setting
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


def table_order(run: Run) -> tuple[int, str, str, tuple[float, ...], str]:
    """Sort key of runs: baselines, networks, those with a prior; settings by their numbers."""
    model, label = run.record.model, run.label
    place = _ORDER.index(model) if model in _ORDER else len(_ORDER)
    numbers = tuple(float(number) for number in _NUMBER.findall(label))
    return (place, model, _NUMBER.sub("", label), numbers, label)


def without_prior(run: Run, runs: Sequence[Run]) -> Run | None:
    """Return the same run without its prior, on the same files; None where there is none."""
    same = [
        other
        for other in runs
        if run.has_prior
        and not other.has_prior
        and other.record.without_prior == run.record.without_prior
    ]
    names = {file.name for file in run.files}
    shared = [len(names & {file.name for file in other.files}) for other in same]
    return same[shared.index(max(shared))] if any(shared) else None


def reference_of(run: Run, runs: Sequence[Run], wanted: str | None = None) -> Run | None:
    """Return the run that a run is tested against; None for the reference itself.

    It is the one labelled ``wanted`` when given; else the same run without its prior, else without
    its regulariser, else the zero-filled one, else the first: of the same anatomy and sampling.
    """
    rivals = [r for r in runs if (r.anatomy, r.mask) == (run.anatomy, run.mask)]
    if wanted is not None:
        candidates = [other for other in rivals if other.label == wanted]
    else:
        plain = without_prior(run, rivals)
        bare = [other for other in rivals if run.record.regulariser and _is_bare(other, run)]
        zero_filled = [other for other in rivals if other.record.model == "zero_filled"]
        candidates = [*filter(None, [plain]), *bare, *zero_filled, *rivals]
    reference = next(iter(candidates), None)
    return None if reference is None or reference.label == run.label else reference


def _is_bare(other: Run, run: Run) -> bool:
    """Whether it is the run without its prior and its regulariser."""
    extra = (*OF_A_PRIOR, *_OF_A_REGULARISER)
    settings = [without(one.record.settings, extra) for one in (other, run)]
    plain = not (other.has_prior or other.record.regulariser)
    return plain and other.record.model == run.record.model and settings[0] == settings[1]


def references(runs: Sequence[Run], wanted: str | None = None) -> dict[str, str]:
    """Return label to label of `reference_of`; what has none is left out."""
    found: dict[str, str] = {}
    for run in runs:
        reference = reference_of(run, runs, wanted)
        if reference is not None:
            found.setdefault(run.label, reference.label)
    return found


def check_reference(wanted: str | None, runs: Sequence[Run]) -> None:
    """Raise InputError unless the reference is None or one of the labels."""
    labels = list(dict.fromkeys(run.label for run in runs))
    if wanted is not None and wanted not in labels:
        raise InputError(f"reference must be one of {labels}, got {wanted!r}")
