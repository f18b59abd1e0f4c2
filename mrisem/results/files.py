"""Run folder of `mrisem reconstruct`: it never loses a slice, and never mixes two runs.

It holds ``record.json``, ``reconstructions/<input>.h5``, ``fit.csv`` and ``failed.json``. Each
slice has a file of its own in a hidden folder until its volume is complete
(`mrisem.results.storage`).
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mrisem.errors import InputError
from mrisem.files import reading, remove_partial, whole, write_text
from mrisem.results.record import Record
from mrisem.results.storage import CURVE, PER_SLICE, Part, Planned, Storage, run_key
from mrisem.types import FailedScan

__all__ = ["CURVE", "Part", "Planned", "RunFolder"]


class RunFolder:
    """Output of one run, for use while the folder is locked (`mrisem.files.held`).

    Args:
        folder: the run folder.
        record: record of the run.
        plan: input file name -> its plan.
        shared: whether another process joins slices to volumes.
    """

    def __init__(
        self, folder: Path, record: Record, plan: Mapping[str, Planned], *, shared: bool = False
    ) -> None:
        self.folder, self.record, self.plan, self.shared = folder, record, plan, shared
        self.results = folder / "reconstructions"
        self.failed: list[FailedScan] = []
        self._storage = Storage(self.results, record, plan)

    def open(self) -> set[tuple[str, int]]:
        """Check the folder, complete volumes of an interrupted run, and list finished slices.

        Returns:
            (input file, slice) of all that need not be made again.

        Raises:
            InputError: when the folder holds another run, or outputs of other scans.
        """
        self._check_record()
        remove_partial(self.folder, self.results)
        for path in self.results.glob(".parts/failed-*.json"):
            path.unlink()  # left by a killed process; these slices are tried again
        for file in self.plan:
            remove_partial(self._storage.parts_folder(file))
            self.finish(file)
        done = self.finished_slices()
        self.record.save(self.folder / "record.json")
        planned = {(file, index) for file, plan in self.plan.items() for index in plan.slices}
        if not planned <= done:
            (self.folder / "fit.csv").unlink(missing_ok=True)  # written again at the end
        return done

    def finished_slices(self) -> set[tuple[str, int]]:
        """Return (input file, slice) of all that is made."""
        files = self._storage
        return {
            (file, index)
            for file in self.plan
            for index in (*files.volume_slices(file), *files.part_slices(file))
        }

    def clear(self) -> None:
        """Remove outputs that are made again, and those of another run; nothing else."""
        has_record = (self.folder / "record.json").is_file()
        outputs = self._storage.outputs()
        others = {*self.results.glob("*.h5"), *self.results.glob(".parts/*/*.npz")} - {*outputs}
        # without a record, a file of a planned name may be of another program: it stays
        removed = [path for path in outputs if has_record or _is_of_a_run(path)]
        removed += [path for path in others if run_key(path) not in (None, self.record.key)]
        for path in removed:
            path.unlink()
        # embeddings of the removed reconstructions describe images that are gone
        stems = {path.stem if path.suffix == ".h5" else path.parent.name for path in removed}
        for path in (self.folder / "embeddings").glob("*/*.npz"):
            if Path(path.parent.name).stem in stems and path.stem.isdigit():
                path.unlink()
        for name in ("fit.csv", "failed.json", "record.json") if has_record else ():
            (self.folder / name).unlink(missing_ok=True)

    def keep(self, file: str, index: int, part: Part, curves: np.ndarray) -> None:
        """Write one slice.

        Args:
            file: name of the input file.
            index: index of the slice in the input file.
            part: entry of the slice in each dataset of `PER_SLICE`.
            curves: points that its fit logged, of dtype `CURVE`.
        """
        self._storage.write_part(file, index, part, curves)

    def fail(self, scan: FailedScan) -> None:
        """Note slices that cannot be reconstructed; equal messages of a scan are joined."""
        same = [s for s in self.failed if (s.file, s.message) == (scan.file, scan.message)]
        if same:
            self.failed.remove(same[0])
            slices = tuple(sorted({*same[0].slices, *scan.slices}))
            scan = FailedScan(scan.file, scan.message, slices)
        self.failed.append(scan)

    def finish(self, file: str) -> None:
        """Join the slices of a volume, once all slices are made or failed."""
        files = self._storage
        if self.shared or not files.part_slices(file):
            return
        former = files.volume_slices(file)
        failed = [scan for scan in self.failed if scan.file == file]
        fresh = {i: part for i in files.part_slices(file) if (part := files.read_part(file, i))}
        if not self.plan[file].slices <= {*former, *fresh, *(i for s in failed for i in s.slices)}:
            return
        # A process that was killed between these two steps leaves a slice in volume and part.
        if new := [part for index, part in fresh.items() if index not in former]:
            volume = files.read_volume(file, (*PER_SLICE, "curves"))
            if former and not volume:
                raise InputError(
                    f"{files.volume_path(file)} must stay whole while slices are added, but is "
                    "damaged; it is kept beside as .damaged, the same command makes its slices "
                    "again"
                )
            files.write_volume(file, volume, new, failed)
        shutil.rmtree(files.parts_folder(file))

    def hand_over(self, rank: int) -> None:
        """Write the failures of this process for the process that closes the folder (`close`)."""
        path = self.results / ".parts" / f"failed-{rank}.json"
        write_text(path, json.dumps([asdict(scan) for scan in self.failed]))

    def close(self) -> None:
        """Complete volumes with failed slices; write the curves and the failures."""
        for path in sorted(self.results.glob(".parts/failed-*.json")):
            with reading(path, "a list of failed scans", "remove it"):
                for entry in json.loads(path.read_text(encoding="utf-8")):
                    self.fail(FailedScan(entry["file"], entry["message"], tuple(entry["slices"])))
            path.unlink()
        for file in self.plan:
            self.finish(file)
        failed = self._former_failures() + [asdict(scan) for scan in self.failed]
        if failed:
            write_text(self.folder / "failed.json", json.dumps(failed, indent=1) + "\n")
        else:
            (self.folder / "failed.json").unlink(missing_ok=True)
        if not (self.folder / "fit.csv").exists():
            self._write_curves()
        parts = self.results / ".parts"
        if parts.is_dir() and not any(parts.iterdir()):
            parts.rmdir()

    def _former_failures(self) -> list[dict[str, Any]]:
        """Return failures of input files of earlier commands, which this one did not process."""
        path = self.folder / "failed.json"
        processed = {*self.plan, *(scan.file for scan in self.failed)}
        if not path.is_file():
            return []
        with reading(path, "a list of failed scans", "remove it"):
            entries = json.loads(path.read_text(encoding="utf-8"))
            return [entry for entry in entries if entry["file"] not in processed]

    def _check_record(self) -> None:
        """Raise InputError for a folder with outputs of another run, or of another program."""
        path, outputs = self.folder / "record.json", self._storage.outputs()
        if path.is_file() and (outputs or any(map(_is_of_a_run, self.results.glob("*.h5")))):
            self.record.check_same_run(Record.load(path), self.folder)
        elif outputs:
            raise InputError(
                f"a run folder with outputs must hold a record.json, got none beside {outputs[0]}; "
                "choose another output_dir, or move the file away"
            )

    def _write_curves(self) -> None:
        """Write ``fit.csv`` from the curves in the files of slices and volumes."""
        rows = sorted(self._storage.curves(), key=lambda row: row[0])
        if not any(len(curves) for _, curves in rows):  # nothing was fitted
            return
        with (
            whole(self.folder / "fit.csv") as partial,
            partial.open("w", newline="", encoding="utf-8") as stream,
        ):
            table = csv.writer(stream)
            table.writerow(["file", *(CURVE.names or ())])
            for file, points in rows:
                table.writerows((file, s, i, n.decode(), v) for s, i, n, v in points.tolist())


def _is_of_a_run(path: Path) -> bool:
    """Return whether `mrisem reconstruct` wrote a file."""
    return run_key(path) is not None
