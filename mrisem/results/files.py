"""What `mrisem reconstruct` writes: a run folder that never loses a slice and never mixes two runs.

``record.json``, ``reconstructions/<input>.h5``, ``fit.csv``, ``failed.json``. Each slice is kept by
itself in a hidden folder until its volume is complete; then the volume's file appears, whole.
"""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrisem.data.contents import dataset, open_scan
from mrisem.data.geometry import Affine
from mrisem.errors import InputError
from mrisem.files import reading, remove_partial, whole, write_text
from mrisem.results.record import Record, Scan
from mrisem.types import FailedScan

# Datasets of a volume's file, one entry a slice.
PER_SLICE = (
    *("reconstruction", "image", "mask", "coarse_maps", "readout"),
    *("slices", "acceleration", "data_consistency", "seconds"),
)
CURVE = np.dtype([("slice", "i4"), ("iteration", "i4"), ("name", "S64"), ("value", "f8")])
Part = dict[str, np.ndarray]


@dataclass(frozen=True)
class Planned:
    """What a run makes of one input file.

    Args:
        scan: content of the file.
        acquisition: fastMRI's name of the sequence.
        slices: indices of the slices to be reconstructed.
        simulation: how the file says that it was simulated; empty where it says nothing.
        affine: maps (column, row, slice of the input) to mm (RAS+); None: the file does not say.
        placed: whether the file says where its voxels lie, beside their size.
    """

    scan: Scan
    acquisition: str
    slices: frozenset[int]
    simulation: str = ""
    affine: Affine | None = None
    placed: bool = False


class RunFolder:
    """The output of one run, to be used while the folder is held (`mrisem.files.held`).

    Args:
        folder: the run folder.
        record: what makes the reconstructions.
        plan: input file name -> what is made of it.
        shared: whether another process puts the volumes together.
    """

    def __init__(
        self, folder: Path, record: Record, plan: Mapping[str, Planned], *, shared: bool = False
    ) -> None:
        self.folder, self.record, self.plan, self.shared = folder, record, plan, shared
        self.results = folder / "reconstructions"
        self.failed: list[FailedScan] = []

    def open(self) -> set[tuple[str, int]]:
        """Check what is there, finish what an interrupted run left complete, and list it.

        Returns:
            (input file, slice) of all that need not be made again.

        Raises:
            InputError: the folder holds another run, or was made of other scans.
        """
        self._check_record()
        remove_partial(self.folder, self.results)
        for path in self.results.glob(".parts/failed-*.json"):
            path.unlink()  # of a start that was killed; those slices are tried again
        for file in self.plan:
            remove_partial(self._parts(file))
            self.finish(file)
        done = self.there()
        self.record.save(self.folder / "record.json")
        wanted = {(file, i) for file, planned in self.plan.items() for i in planned.slices}
        if not wanted <= done:
            (self.folder / "fit.csv").unlink(missing_ok=True)  # written again at the end
        return done

    def there(self) -> set[tuple[str, int]]:
        """Return (input file, slice) of all that is made."""
        return {(f, i) for f in self.plan for i in (*self._slices(f), *self._kept(f))}

    def clear(self) -> None:
        """Remove what is to be made again, and what another run left here; nothing else."""
        recorded = (self.folder / "record.json").is_file()
        planned = self._outputs()
        others = {*self.results.glob("*.h5"), *self.results.glob(".parts/*/*.npz")} - {*planned}
        removed = [path for path in planned if recorded or _made_here(path)]
        removed += [path for path in others if _key(path) not in (None, self.record.key)]
        for path in removed:
            path.unlink()
        stems = {path.stem if path.suffix == ".h5" else path.parent.name for path in removed}
        for path in (self.folder / "embeddings").glob("*/*.npz"):
            if Path(path.parent.name).stem in stems and path.stem.isdigit():
                path.unlink()
        for name in ("fit.csv", "failed.json", "record.json") if recorded else ():
            (self.folder / name).unlink(missing_ok=True)

    def keep(self, file: str, index: int, part: Part, curves: np.ndarray) -> None:
        """Write one slice.

        Args:
            file: name of the input file.
            index: the slice's index there.
            part: its entry of each dataset of `PER_SLICE`.
            curves: what its fit logged, of dtype `CURVE`.
        """
        facts = {"key": np.str_(self.record.key), "scan": np.str_(self._scan(file))}
        with whole(self._part(file, index)) as partial, partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **part, **facts, curves=curves)

    def fail(self, scan: FailedScan) -> None:
        """Note slices that cannot be reconstructed; reports of one scan are put together."""
        same = [s for s in self.failed if (s.file, s.message) == (scan.file, scan.message)]
        if same:
            self.failed.remove(same[0])
            slices = tuple(sorted({*same[0].slices, *scan.slices}))
            scan = FailedScan(scan.file, scan.message, slices)
        self.failed.append(scan)

    def finish(self, file: str) -> None:
        """Put the slices of a volume together, once all are there that can be."""
        if self.shared or not self._kept(file):
            return
        before = self._slices(file)
        failed = {i for scan in self.failed if scan.file == file for i in scan.slices}
        fresh = {i: part for i in self._kept(file) if (part := self._read_part(file, i))}
        if not self.plan[file].slices <= {*before, *fresh, *failed}:
            return
        # one that was put into the volume before a run was killed is in both
        if new := [part for index, part in fresh.items() if index not in before]:
            volume = self._read_volume(file, (*PER_SLICE, "curves"))
            if before and not volume:
                raise InputError(
                    f"{self._volume(file)} must stay whole while slices are added, but is damaged; "
                    "it is kept beside as .damaged, the same command makes its slices again"
                )
            self._write_volume(file, volume, new)
        shutil.rmtree(self._parts(file))

    def hand_over(self, rank: int) -> None:
        """Leave what failed to the process that closes the folder (`close`)."""
        path = self.results / ".parts" / f"failed-{rank}.json"
        write_text(path, json.dumps([asdict(scan) for scan in self.failed]))

    def close(self) -> None:
        """Finish volumes whose other slices failed; write the curves and what failed."""
        for path in sorted(self.results.glob(".parts/failed-*.json")):
            with reading(path, "a list of failed scans", "remove it"):
                for entry in json.loads(path.read_text(encoding="utf-8")):
                    self.fail(FailedScan(entry["file"], entry["message"], tuple(entry["slices"])))
            path.unlink()
        for file in self.plan:
            self.finish(file)
        failed = self._failed_before() + [asdict(scan) for scan in self.failed]
        if failed:
            write_text(self.folder / "failed.json", json.dumps(failed, indent=1) + "\n")
        else:
            (self.folder / "failed.json").unlink(missing_ok=True)
        if not (self.folder / "fit.csv").exists():
            self._write_curves()
        parts = self.results / ".parts"
        if parts.is_dir() and not any(parts.iterdir()):
            parts.rmdir()

    def _failed_before(self) -> list[dict[str, Any]]:
        """Return what failed of files that an earlier command of the run took, and not this one."""
        path = self.folder / "failed.json"
        taken = {*self.plan, *(scan.file for scan in self.failed)}
        if not path.is_file():
            return []
        with reading(path, "a list of failed scans", "remove it"):
            listed = json.loads(path.read_text(encoding="utf-8"))
            return [entry for entry in listed if entry["file"] not in taken]

    def _outputs(self) -> list[Path]:
        """List files of planned volumes and of their slices that are there."""
        volumes = [path for file in self.plan if (path := self._volume(file)).is_file()]
        return volumes + [p for file in self.plan for p in self._parts(file).glob("*.npz")]

    def _check_record(self) -> None:
        """Refuse a folder with another run's results, or with files that are not ours."""
        path, outputs = self.folder / "record.json", self._outputs()
        if path.is_file() and (outputs or any(map(_made_here, self.results.glob("*.h5")))):
            self.record.same_run(Record.load(path), self.folder)
        elif outputs:
            raise InputError(
                f"a run is continued by its record.json, got none for {outputs[0]}; choose another "
                "output_dir, or move the file away"
            )

    def _scan(self, file: str) -> str:
        return self.plan[file].scan.model_dump_json()

    def _volume(self, file: str) -> Path:
        return self.results / f"{Path(file).stem}.h5"

    def _parts(self, file: str) -> Path:
        return self.results / ".parts" / Path(file).stem

    def _part(self, file: str, index: int) -> Path:
        return self._parts(file) / f"{index}.npz"

    def _kept(self, file: str) -> list[int]:
        """Return the slices that are kept by themselves."""
        return sorted(int(path.stem) for path in self._parts(file).glob("*.npz"))

    def _slices(self, file: str) -> list[int]:
        """Return the slices of a volume's file; none where there is none."""
        volume = self._read_volume(file, ("slices",))
        slices: list[int] = volume["slices"].tolist() if volume else []
        if len({*slices}) < len(slices):
            raise InputError(f"{self._volume(file)} must hold each slice once, got {slices}")
        return slices

    def _read_volume(self, file: str, names: tuple[str, ...]) -> Part:
        """Return datasets of a volume's file; none where it is missing, or damaged and removed."""
        path = self._volume(file)
        if not path.is_file():
            return {}
        try:
            with (
                reading(path, "a file of a run", "nothing need be done"),
                open_scan(path) as content,
            ):
                found = {name: dataset(content, name) for name in names}
                volume = {name: values[()] for name, values in found.items() if values is not None}
                scan = str(content.attrs["scan"])
        except InputError as error:
            _set_aside(path, error)
            return {}
        self._check_scan(path, scan, file)
        return volume

    def _read_part(self, file: str, index: int) -> Part | None:
        """Return a slice that is kept; None where it is damaged, and is made again."""
        path = self._part(file, index)
        try:
            with (
                reading(path, "a whole .npz", "nothing need be done"),
                path.open("rb") as stream,
                np.load(stream, allow_pickle=False) as content,
            ):
                part = dict(content)
                key, scan = str(part.pop("key")), str(part.pop("scan"))
                if key != self.record.key or "curves" not in part:
                    raise ValueError("it is of another run")
        except InputError as error:
            _set_aside(path, error)
            return None
        self._check_scan(path, scan, file)
        return part

    def _check_scan(self, path: Path, scan: str, file: str) -> None:
        now = self.plan[file].scan
        with reading(path, "of one scan", "choose another output_dir"):
            then = Scan.model_validate_json(scan)
        if then != now:
            names = [n for n in Scan.model_fields if getattr(then, n) != getattr(now, n)]
            raise InputError(
                f"{path} was made of another {file}, with other {', '.join(names)}; choose another "
                "output_dir"
            )

    def _write_volume(self, file: str, volume: Part, new: list[Part]) -> None:
        planned = self.plan[file]
        before = [volume] if volume else []
        columns = {
            name: np.concatenate([*(v[name] for v in before), *(p[name][None] for p in new)])
            for name in PER_SLICE
            if name in new[0]
        }
        order = np.argsort(columns["slices"])
        curves = np.concatenate([part["curves"] for part in (*before, *new)])
        curves = curves[np.argsort(curves["slice"], kind="stable")]
        failed = [
            {"slices": [*scan.slices], "message": scan.message}
            for scan in self.failed
            if scan.file == file
        ]
        with whole(self._volume(file)) as partial, h5py.File(partial, "w") as content:
            for name, values in columns.items():
                packed = "gzip" if name == "mask" else None
                content.create_dataset(name, data=values[order], compression=packed)
            content.create_dataset("curves", data=curves)
            content.attrs["record"] = self.record.model_dump_json()
            content.attrs["scan"] = planned.scan.model_dump_json()
            content.attrs["failed"] = json.dumps(failed)
            content.attrs["acquisition"] = planned.acquisition
            content.attrs["simulation"] = planned.simulation
            if planned.affine is not None:
                content.attrs["affine"] = np.array(planned.affine)
                content.attrs["placed"] = planned.placed
            content.attrs["method"] = self.record.method
            content.attrs["mask"] = self.record.mask

    def _write_curves(self) -> None:
        """Write ``fit.csv`` from the curves that are kept with their slices."""
        rows = sorted(self._curves(), key=lambda row: row[0])
        if not any(len(curves) for _, curves in rows):
            return
        with (
            whole(self.folder / "fit.csv") as partial,
            partial.open("w", newline="", encoding="utf-8") as stream,
        ):
            table = csv.writer(stream)
            table.writerow(["file", *(CURVE.names or ())])
            for file, points in rows:
                table.writerows((file, s, i, n.decode(), v) for s, i, n, v in points.tolist())

    def _curves(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield input file and curves of all volumes of the run, also of those made before."""
        for path in self.results.glob("*.h5"):
            if _key(path) == self.record.key:
                with h5py.File(path) as content:
                    scan = Scan.model_validate_json(str(content.attrs["scan"]))
                    yield scan.file, content["curves"][()]
        for file in self.plan:
            for index in self._kept(file):
                if part := self._read_part(file, index):
                    yield file, part["curves"]


def _set_aside(path: Path, error: InputError) -> None:
    """Rename a file that cannot be read: the fault may be the disk's, and the content not lost."""
    warnings.warn(f"made again: {error}", stacklevel=3)
    path.replace(path.with_name(f"{path.name}.damaged"))


def _made_here(path: Path) -> bool:
    """Whether `mrisem reconstruct` wrote a file."""
    return _key(path) is not None


def _key(path: Path) -> str | None:
    """Return the key of the run that a file is of; None where it is damaged or of somebody else."""
    try:
        if path.suffix == ".npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as part:
                return str(part["key"]) if {"scan", "curves"} <= {*part} else None
        with h5py.File(path) as content:
            return Record.parse(str(content.attrs["record"])).key
    except Exception:  # damaged or foreign
        return None
