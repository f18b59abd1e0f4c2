"""Typed record of a run: method and settings that made its reconstructions, and its scans.

It is JSON in ``record.json`` of the run folder, and an attribute of each output file, beside the
scan's. All code that compares, names or continues runs reads it; none parses a method's name.
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

# Settings that do not change a slice's result: paths, and how and how many slices are computed.
# The files at a path count by their content instead (`Record.contents`, `Scan`).
IGNORED = (
    *("output_dir", "on_error", "skip_existing", "paths", "logger", "metrics", "returns"),
    *("trainer", "scale", "model.checkpoint", "model.trained_by", "prior.folder"),
    *("data.root", "data.acquisition", "data.split", "data.max_slices", "data.max_volumes"),
    *("data.max_validation_slices", "data.n_workers", "data.paper_subjects"),
    *("fit.log_every", "fit.settings.log_every"),
    *("fit.settings.progress", "model.task.fit.log_every", "model.task.fit.progress"),
)
# Paths of a prior's encoder and images: ignored if the hash of a bank covers their content.
BANK_KEYS = (
    *("auxiliary.root", "encoder.path", "encoder.adapter", "encoder.name", "prior.path"),
    *("prior.adapter", "prior.encoder.path", "prior.encoder.adapter", "prior.encoder.name"),
    *("generator.path", "generator.name", "prior.generator.path", "prior.generator.name"),
)
# Paths of the encoder in a network: ignored if the encoder's own hash is among the contents.
ENCODER_KEYS = ("model.task.network.encoder.path", "model.task.network.encoder.adapter")
# Settings that only a run with a prior has.
PRIOR_KEYS = (
    "prior",
    "encoder",
    "generator",
    "prompt",
    "auxiliary",
    "model.prior_weight",
    "model.task.steering",
)
# Names of fits in tables, if other than their own.
_FITS = {"all": "", "none": "as trained"}


class Scan(BaseModel):
    """Content of an input file, which tells it apart from another file of the same name.

    Args:
        file: name of the input file.
        subject: its ``patient_id``.
        shape: ``(slice, coil, y, x)`` of its k-space.
        header: hash of its ISMRMRD header; empty: none.
        kspace: hash of the central row of its k-space, of every slice and coil.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    subject: str
    shape: tuple[int, int, int, int]
    header: str
    kspace: str


class Record(BaseModel):
    """Record of a run.

    Args:
        kind: name and version of the record's layout.
        version: version of this package.
        model: name of the method.
        fit: weights of a network that are fitted to each scan: ``all``, ``lora`` or ``none``; None:
            the method has no weights.
        regulariser: name of the conventional regulariser; None: none.
        prior: name of the semantic prior; None: none.
        encoder: name of the encoder or generator of the prior, or else of the encoder in the
            network; None: neither.
        anatomy: name of the data set, ``brain`` or ``knee``.
        mask: name of the sampling pattern.
        acceleration: nominal accelerations, of which each scan draws one; empty: given by the file.
        seed: seed of masks, splits and weights.
        settings: configuration without `IGNORED`.
        contents: hashes of the files at configured paths: checkpoint, encoder in the network, banks
            with their encoder.
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
        """Hash of all on which the results depend, except the scans; equal runs have equal keys."""
        return _hash([self.settings, self.contents])

    @property
    def key_without_prior(self) -> str:
        """Hash that a run with a prior shares with the same run without it."""
        # a group that holds settings of a prior only leaves an empty mapping
        contents = {k: v for k, v in self.contents.items() if not k.startswith("prior")}
        settings = {k: v for k, v in without_keys(self.settings, PRIOR_KEYS).items() if v != {}}
        return _hash([self.model, self.fit, self.regulariser, settings, contents])

    @property
    def method(self) -> str:
        """Name of the method, for people.

        >>> Record(model="unrolled", fit="lora", prior="image_same").method
        'unrolled lora + image_same'
        """
        fit = "" if self.fit is None else _FITS.get(self.fit, self.fit)
        extra = [term for term in (self.regulariser, self.prior) if term]
        return " + ".join([f"{self.model} {fit}".strip(), *extra])

    @property
    def sampling(self) -> str:
        """Mask and nominal acceleration, for people.

        >>> Record(model="tv", mask="gaussian", acceleration=(4, 8)).sampling
        'gaussian R=4,8'
        """
        factors = ",".join(f"{factor:g}" for factor in self.acceleration)
        return f"{self.mask} R={factors}" if factors else self.mask

    def check_same_run(self, stored: Record, folder: Path) -> None:
        """Raise InputError if a folder's record has another configuration or other contents.

        Args:
            stored: record of the folder.
            folder: the folder, for the message.
        """
        if self.key == stored.key:
            return
        present, former = (
            flat(record.settings) | flat({"content of": record.contents})
            for record in (self, stored)
        )
        names = sorted(k for k in present.keys() | former.keys() if present.get(k) != former.get(k))
        shown = [f"{name}={former.get(name)} there, {present.get(name)} now" for name in names[:3]]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise InputError(
            f"a folder holds one run, got another configuration or other contents for {folder}: "
            f"{'; '.join(shown)}{more}; choose another output_dir"
        )

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record; raise InputError if it is damaged."""
        with reading(path, "the record of a run", "restore it, or choose another output_dir"):
            return cls.parse(path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a record from JSON; raise ValueError if it is none."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            # pydantic's own message has many lines
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"{key or 'content'}: {first['msg']}") from None


def without_keys(settings: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a copy of nested settings without these dotted keys.

    >>> without_keys({"a": {"b": 1, "c": 2}, "d": 3}, ["a.b", "d"])
    {'a': {'c': 2}}
    """
    heads: dict[str, list[str]] = {}  # first part of a key -> the rest of its keys
    for key in keys:
        head, _, rest = key.partition(".")
        heads.setdefault(head, []).append(rest)
    kept = {}
    for name, value in settings.items():
        rests = heads.get(name, [])
        if "" in rests:  # the key ends here: all below it goes
            continue
        kept[name] = without_keys(value, rests) if rests and isinstance(value, Mapping) else value
    return kept


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one mapping of dotted keys.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    values: dict[str, Any] = {}
    for name, value in settings.items():
        is_nested = isinstance(value, Mapping) and value  # an empty mapping is a value
        values |= flat(value, f"{prefix}{name}.") if is_nested else {f"{prefix}{name}": value}
    return values


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash(content: Any) -> str:
    """Return 24 digits of the SHA-256 of JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
