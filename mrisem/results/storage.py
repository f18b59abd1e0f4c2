"""Storage of reconstructed slices: each in a file of its own until its volume is complete."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mrisem.data.contents import dataset, open_scan
from mrisem.data.geometry import Affine
from mrisem.errors import InputError
from mrisem.files import reading, whole
from mrisem.results.record import Record, Scan
from mrisem.types import FailedScan

# Datasets of a volume's file with one entry for each slice.
PER_SLICE = (
    *("reconstruction", "image", "mask", "coarse_maps", "readout"),
    *("slices", "acceleration", "data_consistency", "seconds"),
)
# Points of the curves of a fit.
CURVE = np.dtype([("slice", "i4"), ("iteration", "i4"), ("name", "S64"), ("value", "f8")])
Part = dict[str, np.ndarray]


@dataclass(frozen=True)
class Planned:
    """Plan of a run for one input file.

    Args:
        scan: content of the file.
        acquisition: fastMRI's name of the sequence.
        slices: indices of the slices to be reconstructed.
        simulation: text of the file on how it was simulated; empty: none.
        affine: matrix that maps (column, row, slice of the input) to mm (RAS+); None: not known.
        placed: whether the file states the position of its voxels, beside their size.
    """

    scan: Scan
    acquisition: str
    slices: frozenset[int]
    simulation: str = ""
    affine: Affine | None = None
    placed: bool = False


@dataclass(frozen=True)
class Storage:
    """Files of slices and volumes in the folder ``reconstructions`` of a run.

    Args:
        results: the folder.
        record: record of the run.
        plan: input file name -> its plan.
    """

    results: Path
    record: Record
    plan: Mapping[str, Planned]

    def volume_path(self, file: str) -> Path:
        """Return the volume of an input file."""
        return self.results / f"{Path(file).stem}.h5"

    def parts_folder(self, file: str) -> Path:
        """Return the folder of the slices of an input file; it is hidden from other programs."""
        return self.results / ".parts" / Path(file).stem

    def _part_path(self, file: str, index: int) -> Path:
        """Return the file of one slice."""
        return self.parts_folder(file) / f"{index}.npz"

    def outputs(self) -> list[Path]:
        """Return the existing volumes and slices of planned input files."""
        volumes = [path for file in self.plan if (path := self.volume_path(file)).is_file()]
        return volumes + [p for file in self.plan for p in self.parts_folder(file).glob("*.npz")]

    def part_slices(self, file: str) -> list[int]:
        """Return the slices that have files of their own."""
        return sorted(int(path.stem) for path in self.parts_folder(file).glob("*.npz"))

    def volume_slices(self, file: str) -> list[int]:
        """Return the slices in a volume; empty without a volume."""
        volume = self.read_volume(file, ("slices",))
        slices: list[int] = volume["slices"].tolist() if volume else []
        if len({*slices}) < len(slices):
            raise InputError(
                f"{self.volume_path(file)} must hold each slice once, got {slices}; remove it, the "
                "same command makes its slices again"
            )
        return slices

    def write_part(self, file: str, index: int, part: Part, curves: np.ndarray) -> None:
        """Write one slice, see `mrisem.results.files.RunFolder.keep`."""
        scan = self.plan[file].scan.model_dump_json()
        facts = {"key": np.str_(self.record.key), "scan": np.str_(scan)}
        with whole(self._part_path(file, index)) as partial, partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **part, **facts, curves=curves)

    def read_part(self, file: str, index: int) -> Part | None:
        """Read one slice; None: its file is damaged, and the slice must be made again."""
        path = self._part_path(file, index)
        try:
            with (
                reading(path, "a complete .npz", "nothing need be done"),
                path.open("rb") as stream,
                np.load(stream, allow_pickle=False) as content,
            ):
                part = dict(content)  # reads all arrays, so that damage shows here
                key, scan = str(part.pop("key")), str(part.pop("scan"))
                if key != self.record.key or "curves" not in part:
                    raise ValueError("it belongs to another run")
        except InputError as error:
            _set_aside(path, error)
            return None
        self._check_scan(path, scan, file)
        return part

    def read_volume(self, file: str, names: tuple[str, ...]) -> Part:
        """Read datasets of a volume; empty: it is missing, or damaged and renamed."""
        path = self.volume_path(file)
        if not path.is_file():
            return {}
        try:
            with (
                reading(path, "a file of a run", "nothing need be done"),
                open_scan(path) as content,
            ):
                datasets = {name: dataset(content, name) for name in names}
                volume = {name: item[()] for name, item in datasets.items() if item is not None}
                scan = str(content.attrs["scan"])
        except InputError as error:
            _set_aside(path, error)
            return {}
        self._check_scan(path, scan, file)
        return volume

    def write_volume(
        self, file: str, volume: Part, new: list[Part], failed: Sequence[FailedScan]
    ) -> None:
        """Write a volume.

        Args:
            file: name of the input file.
            volume: datasets of the former volume; empty: there is none.
            new: slices that are added.
            failed: slices of the input file that failed.
        """
        former = [volume] if volume else []
        columns = {
            name: np.concatenate([*(v[name] for v in former), *(p[name][None] for p in new)])
            for name in PER_SLICE
            if name in new[0]
        }
        order = np.argsort(columns["slices"])
        curves = np.concatenate([part["curves"] for part in (*former, *new)])
        # stable: the points of a slice stay in the order of the fit
        curves = curves[np.argsort(curves["slice"], kind="stable")]
        with whole(self.volume_path(file)) as partial, h5py.File(partial, "w") as content:
            for name, values in columns.items():
                # masks shrink to almost nothing; floats would not shrink, and take long
                compression = "gzip" if name == "mask" else None
                content.create_dataset(name, data=values[order], compression=compression)
            content.create_dataset("curves", data=curves)
            self._write_facts(content, self.plan[file], failed)

    def _write_facts(
        self, content: h5py.File, planned: Planned, failed: Sequence[FailedScan]
    ) -> None:
        """Write the attributes of a volume."""
        failures = [{"slices": [*scan.slices], "message": scan.message} for scan in failed]
        content.attrs["record"] = self.record.model_dump_json()
        content.attrs["scan"] = planned.scan.model_dump_json()
        content.attrs["failed"] = json.dumps(failures)
        content.attrs["acquisition"] = planned.acquisition
        content.attrs["simulation"] = planned.simulation
        if planned.affine is not None:
            content.attrs["affine"] = np.array(planned.affine)
            content.attrs["placed"] = planned.placed
        # for readers without this package; the record holds both as well
        content.attrs["method"] = self.record.method
        content.attrs["mask"] = self.record.mask

    def curves(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield input file and curves of all volumes and slices of the run."""
        for path in self.results.glob("*.h5"):
            # earlier commands of the run may have made volumes that this one does not plan
            if run_key(path) == self.record.key:
                with h5py.File(path) as content:
                    scan = Scan.model_validate_json(str(content.attrs["scan"]))
                    yield scan.file, content["curves"][()]
        for file in self.plan:
            for index in self.part_slices(file):
                if part := self.read_part(file, index):
                    yield file, part["curves"]

    def _check_scan(self, path: Path, text: str, file: str) -> None:
        """Raise InputError if an output was made from another scan with the same file name."""
        scan = self.plan[file].scan
        with reading(path, "of one scan", "choose another output_dir"):
            recorded = Scan.model_validate_json(text)
        if recorded != scan:
            names = [n for n in Scan.model_fields if getattr(recorded, n) != getattr(scan, n)]
            raise InputError(
                f"{path} must be made of the present {file}, got one with other "
                f"{', '.join(names)}; choose another output_dir"
            )


def _set_aside(path: Path, error: InputError) -> None:
    """Rename a file that cannot be read: the disk may be at fault, and the content not lost."""
    warnings.warn(f"made again: {error}", stacklevel=3)
    path.replace(path.with_name(f"{path.name}.damaged"))


def run_key(path: Path) -> str | None:
    """Return the key of the run that wrote a file; None: it is damaged, or of another program."""
    try:
        if path.suffix == ".npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as part:
                return str(part["key"]) if {"scan", "curves"} <= {*part} else None
        with h5py.File(path) as content:
            return Record.parse(str(content.attrs["record"])).key
    except Exception:  # damaged bytes fail in every way that a parser can
        return None
