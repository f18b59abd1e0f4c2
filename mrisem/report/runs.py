"""Run folders: what `mrisem reconstruct` left there, and what each run is called in a table."""

import logging
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
from omegaconf import DictConfig, ListConfig, OmegaConf

from mrisem.errors import InputError

log = logging.getLogger(__name__)

Settings = dict[str, str | None]  # dotted key to text; None: unknown
# Overrides that do not tell two runs of one method apart: paths, data and how, not what, was run.
_NOT_NAMING = re.compile(
    r"^\+*((output_dir|data|auxiliary\.root|hydra|on_error|skip_existing|logger|trainer)\b"
    r"|mask(\.acceleration)?=)"
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?", re.IGNORECASE)
_ORDER = (
    *("zero_filled", "cg_sense", "grappa", "tv", "l1_wavelet"),
    *("unet", "unrolled", "varnet", "inr"),
)


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path  # absolute
    files: tuple[Path, ...]  # its reconstructions/*.h5, sorted
    method: str  # as written into the files, such as "unrolled + image_same"
    mask: str  # pattern and nominal acceleration, such as "gaussian R=4"
    config: dict[str, Any]  # that it recorded, resolved; empty when it recorded none
    overrides: tuple[str, ...]  # of the command line
    label: str  # the method, with what distinguishes it from other runs of that method

    @property
    def anatomy(self) -> str:
        """Recorded ``data.name``, or an empty string."""
        return str(self.recorded("data.name") or "")

    @property
    def has_prior(self) -> bool:
        """Whether a prior guided it: methods are named ``model + prior``."""
        return " + " in self.method

    @property
    def command(self) -> str:
        """The command line that made the reconstructions."""
        return shlex.join(["mrisem", "reconstruct", *self.overrides])

    def recorded(self, key: str) -> Any:
        """Return a value of the recorded configuration by its dotted key, or None."""
        return OmegaConf.select(OmegaConf.create(self.config), key)


def find_runs(roots: Iterable[Path]) -> list[Run]:
    """Return the runs in or below the folders, labelled, in table order.

    Raises:
        InputError: a folder is missing or holds no reconstructions.
    """
    folders: dict[Path, None] = {}
    for root in roots:
        if not root.is_dir():
            raise InputError(f"a run folder must exist, got {root}; check the path")
        below = sorted({file.parent.parent for file in root.rglob("reconstructions/*.h5")})
        if not below:
            raise InputError(
                f"a run folder must hold reconstructions/*.h5, got none in or below {root}; "
                f"make them: mrisem reconstruct ... output_dir={root}"
            )
        folders |= dict.fromkeys(folder.resolve() for folder in below)
    runs = label_runs([read_run(folder) for folder in folders])
    return sorted(runs, key=lambda run: method_order(run.label))


def read_run(folder: Path) -> Run:
    """Read one run folder, labelled by its method alone."""
    files = tuple(sorted((folder / "reconstructions").glob("*.h5")))
    attributes = read_attributes(files[0])
    config = _load(folder / ".hydra/reconstruct/config.yaml") or {}
    method, mask = str(attributes.get("method", folder.name)), str(attributes.get("mask", ""))
    nominal = OmegaConf.select(OmegaConf.create(config), "mask.acceleration")
    if nominal is not None and "R=" not in mask:
        factors = nominal if isinstance(nominal, ListConfig) else [nominal]
        mask = f"{mask} R={','.join(f'{factor:g}' for factor in factors)}".strip()
    overrides = _load(folder / ".hydra/reconstruct/overrides.yaml") or []
    return Run(folder, files, method, mask, config, tuple(map(str, overrides)), method)


def _load(path: Path) -> Any:
    if not path.is_file():
        log.warning("%s is missing: this run's command and settings are not known", path)
        return None
    return OmegaConf.to_container(OmegaConf.load(path), resolve=True)


def open_file(file: Path) -> h5py.File:
    """Open an HDF5 file to read; InputError when it is damaged."""
    try:
        return h5py.File(file)
    except OSError as error:
        raise InputError(f"{file} must be a whole HDF5 file ({error}); make it again") from error


def read_attributes(file: Path) -> dict[str, Any]:
    """Return the attributes of an HDF5 file."""
    with open_file(file) as content:
        return dict(content.attrs)


def label_runs(runs: Sequence[Run]) -> list[Run]:
    """Tell runs of one method on the same files apart by the overrides in which they differ.

    A method's runs are named by the same settings whatever their anatomy and mask. Of one swept
    parameter every value is named; of several, those that are not the default.
    """
    labels: dict[Path, str] = {}
    for method in sorted({run.method for run in runs}):
        variants = [run for run in runs if run.method == method]
        settings = settings_of(variants)
        groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in variants:
            groups[run.anatomy, run.mask].append(run)
        confused = [group for group in groups.values() if _share_files(group)]
        differing = {
            key
            for group in confused
            for key in settings[group[0].folder]
            if len({settings[run.folder][key] for run in group}) > 1
        }
        for group in groups.values() if confused else ():
            labels |= _distinct_labels(group, settings, sorted(differing))
    return [replace(run, label=labels.get(run.folder, run.method)) for run in runs]


def _share_files(runs: Sequence[Run]) -> bool:
    names = [{file.name for file in run.files} for run in runs]
    return any(a & b for a, b in combinations(names, 2))


def settings_of(runs: Sequence[Run]) -> dict[Path, Settings]:
    """Return what each run used of all that any of them overrode, by its folder."""
    keys = sorted({key for run in runs for key in _overridden(run)})
    return {run.folder: {key: _setting(run, key) for key in keys} for run in runs}


def _overridden(run: Run) -> set[str]:
    named = (text for text in run.overrides if "=" in text and not _NOT_NAMING.match(text))
    return {text.lstrip("+").split("=", 1)[0] for text in named}


def _distinct_labels(
    runs: Sequence[Run], settings: dict[Path, Settings], keys: Sequence[str]
) -> dict[Path, str]:
    defaults = {
        key: settings[run.folder][key] for run in runs for key in {*keys} - _overridden(run)
    }
    suffixes = []
    for run in runs:
        used = {key: text for key in keys if (text := settings[run.folder][key]) is not None}
        if len(keys) > 1:
            used = {key: text for key, text in used.items() if text != defaults.get(key)}
        suffixes.append(", ".join(f"{key}={text}" for key, text in used.items()))
    if len(set(suffixes)) < len(suffixes) and _share_files(runs):
        suffixes = ["/".join(run.folder.parts[-2:]) for run in runs]
    return {
        run.folder: f"{run.method} [{suffix}]" if suffix else run.method
        for run, suffix in zip(runs, suffixes, strict=True)
    }


def _setting(run: Run, key: str) -> str | None:
    """Return a setting as text: what the run used, overridden or by default; None if unknown."""
    used = run.recorded(key)
    if isinstance(used, DictConfig):  # a choice of a group, most of which record their name
        used = used.get("name")
    if used is None:
        written = (override.lstrip("+").partition("=") for override in run.overrides)
        return {name: text for name, _, text in written}.get(key)
    if isinstance(used, float) and used.is_integer():
        used = int(used)  # 1 and 1.0 are one setting
    return str(used).lower() if isinstance(used, bool) else str(used).replace(" ", "")


def method_order(label: str) -> tuple[int, str, str, tuple[float, ...], str]:
    """Sort key of labels: baselines, networks, those with a prior; settings by their numbers.

    >>> sorted(["unrolled + image_same", "tv", "unrolled", "zero_filled"], key=method_order)
    ['zero_filled', 'tv', 'unrolled', 'unrolled + image_same']
    >>> sorted(["tv [weight=10]", "tv [weight=2]", "tv [weight=1e-3]"], key=method_order)
    ['tv [weight=1e-3]', 'tv [weight=2]', 'tv [weight=10]']
    """
    model = label.split()[0]
    place = _ORDER.index(model) if model in _ORDER else len(_ORDER)
    numbers = tuple(float(number) for number in _NUMBER.findall(label))
    return (place, model, _NUMBER.sub("", label), numbers, label)


def slug(text: str) -> str:
    """Return a text as part of a file name.

    >>> slug("brain, gaussian R=4")
    'brain_gaussian_r_4'
    """
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
