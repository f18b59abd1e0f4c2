"""The typed record of a run: what made its reconstructions, and of what.

It stands as JSON in ``record.json`` of the run folder and in each output file, there with the scan.
Everything that compares, names or continues runs asks the record; nothing parses a method's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

import mrisem
from mrisem.errors import InputError
from mrisem.files import reading, write_text

# Settings that do not change a slice's result: where things are, how and how many are computed.
# What lies at a path counts by its content instead (`Record.contents`, `Scan`).
IGNORED = (
    *("output_dir", "on_error", "skip_existing", "paths", "logger", "metrics", "returns"),
    *("trainer", "scale", "model.checkpoint", "model.trained_by", "prior.folder"),
    *("data.root", "data.acquisition", "data.split", "data.max_slices", "data.max_volumes"),
    *("data.max_validation_slices", "data.n_workers", "data.paper_subjects"),
    *("fit.log_every", "fit.settings.log_every"),
    *("fit.settings.progress", "model.task.fit.log_every", "model.task.fit.progress"),
)
# Places of a prior's encoder and images: ignored where a bank's hash stands for their content.
IN_A_BANK = (
    *("auxiliary.root", "encoder.path", "encoder.adapter", "encoder.name", "prior.path"),
    *("prior.adapter", "prior.encoder.path", "prior.encoder.adapter", "prior.encoder.name"),
)
# Settings that a run with a prior has beside those of the same run without.
OF_A_PRIOR = (
    "prior",
    "encoder",
    "prompt",
    "auxiliary",
    "model.prior_weight",
    "model.task.steering",
)
# How fits are called in tables, where not by their own name.
_FITS = {"all": "", "none": "as trained"}


class Scan(BaseModel):
    """Content of an input file, by which another file of the same name is told apart.

    Args:
        file: name of the input file.
        subject: its ``patient_id``.
        shape: ``(slice, coil, y, x)`` of its k-space.
        header: hash of its ISMRMRD header; empty without one.
        kspace: hash of its k-space: of the central readout line of every slice and coil.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    subject: str
    shape: tuple[int, int, int, int]
    header: str
    kspace: str


class Record(BaseModel):
    """What made a run's reconstructions.

    Args:
        kind: marks the file as a record, with the number of its layout.
        version: version of this package.
        model: method.
        fit: how a network met each scan: ``all``, ``lora``, ``none``; None: nothing is fitted.
        regulariser: conventional term beside the data term; None: none.
        prior: semantic prior; None: none.
        encoder: what it looks through; None: without a prior.
        anatomy: data set, ``brain`` or ``knee``.
        mask: pattern of the samples.
        acceleration: nominal accelerations; of several, each scan draws one. Empty: the file's.
        seed: seed of masks, splits and weights.
        settings: everything configured but `IGNORED`.
        contents: hashes of what lies at configured paths: checkpoint, banks with their encoder.
        places: those paths, for people; they do not count.
        overrides: words of the command line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mrisem record 1"] = "mrisem record 1"
    version: str = mrisem.__version__
    model: str
    fit: str | None = None
    regulariser: str | None = None
    prior: str | None = None
    encoder: str | None = None
    anatomy: str = ""
    mask: str = ""
    acceleration: tuple[float, ...] = ()
    seed: int | None = None
    settings: dict[str, Any] = {}
    contents: dict[str, str] = {}
    places: dict[str, str] = {}
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of all that the results depend on beside the scans; equal runs have equal keys."""
        return _hash([self.settings, self.contents])

    @property
    def without_prior(self) -> str:
        """Hash that a run with a prior shares with the same run without it."""
        contents = {k: v for k, v in self.contents.items() if not k.startswith("prior")}
        settings = {k: v for k, v in without(self.settings, OF_A_PRIOR).items() if v != {}}
        return _hash([self.model, self.fit, self.regulariser, settings, contents])

    @property
    def method(self) -> str:
        """Name for people.

        >>> Record(model="unrolled", fit="lora", prior="image_same").method
        'unrolled lora + image_same'
        """
        fit = "" if self.fit is None else _FITS.get(self.fit, self.fit)
        extra = [term for term in (self.regulariser, self.prior) if term]
        return " + ".join([f"{self.model} {fit}".strip(), *extra])

    @property
    def sampling(self) -> str:
        """Mask and nominal acceleration for people.

        >>> Record(model="tv", mask="gaussian", acceleration=(4, 8)).sampling
        'gaussian R=4,8'
        """
        factors = ",".join(f"{factor:g}" for factor in self.acceleration)
        return f"{self.mask} R={factors}" if factors else self.mask

    def same_run(self, other: Record, place: Path) -> None:
        """Refuse to continue a run with another configuration or other contents.

        Raises:
            InputError: in one line, with what differs.
        """
        if self.key == other.key:
            return
        mine, theirs = (
            flat(record.settings) | flat({"content of": record.contents})
            for record in (self, other)
        )
        names = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
        shown = [f"{name}={theirs.get(name)} there, {mine.get(name)} now" for name in names[:3]]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise InputError(
            f"{place} was made with another configuration or other contents: {'; '.join(shown)}"
            f"{more}; choose another output_dir"
        )

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record; an InputError where it is damaged."""
        with reading(path, "the record of a run", "restore it, or choose another output_dir"):
            return cls.parse(path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a record from JSON; a ValueError where it is none."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place or 'content'}: {first['msg']}") from None


def without(settings: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a nested copy without these dotted keys.

    >>> without({"a": {"b": 1, "c": 2}, "d": 3}, ["a.b", "d"])
    {'a': {'c': 2}}
    """
    heads: dict[str, list[str]] = {}
    for key in keys:
        head, _, rest = key.partition(".")
        heads.setdefault(head, []).append(rest)
    kept = {}
    for name, value in settings.items():
        rests = heads.get(name, [])
        if "" in rests:
            continue
        kept[name] = without(value, rests) if rests and isinstance(value, Mapping) else value
    return kept


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted keys.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
