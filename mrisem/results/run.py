"""Reading of one run folder of `mrisem reconstruct`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mrisem.files import reading
from mrisem.results.hdf5 import open_hdf5, text_of
from mrisem.results.inside import inside, load_yaml
from mrisem.results.reading import FAILURES, Failure
from mrisem.results.record import Record, flat

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Content of one run folder.

    Args:
        folder: absolute path of the folder.
        files: its ``reconstructions/*.h5``, sorted.
        record: record of the run.
        label: method, with the settings that distinguish the run from others of that method.
        failed: scans without any output.
    """

    folder: Path
    files: tuple[Path, ...]
    record: Record
    label: str
    failed: tuple[Failure, ...] = ()

    @property
    def anatomy(self) -> str:
        """Name of the data set; empty: not recorded."""
        return self.record.anatomy

    @property
    def mask(self) -> str:
        """Sampling pattern and nominal acceleration, such as ``gaussian R=4``."""
        return self.record.sampling

    @property
    def has_prior(self) -> bool:
        """Whether a semantic prior guided the run."""
        return self.record.prior is not None

    @property
    def command(self) -> str:
        """Command line of the reconstructions."""
        return shlex.join(["mrisem", "reconstruct", *self.record.overrides])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Recorded settings by dotted keys."""
        return flat(self.record.settings)

    @cached_property
    def data(self) -> dict[str, str]:
        """Options of the data that are text, such as ``root`` and ``split``."""
        # the record ignores them, since they do not change results: they stand in Hydra's file
        return self._texts("data")

    @cached_property
    def scale(self) -> str:
        """Name of the configured sizes, such as ``demo``; empty: not recorded."""
        return self._texts("scale").get("name", "")

    def _texts(self, group: str) -> dict[str, str]:
        """Return the options of a group that are text; empty: the configuration is missing."""
        config = load_yaml(inside(self.folder, ".hydra/reconstruct/config.yaml"))
        content = config.get(group) if isinstance(config, Mapping) else {}
        options = content if isinstance(content, Mapping) else {}
        return {str(k): value for k, value in options.items() if isinstance(value, str)}

    def output(self, file: str) -> Path:
        """Return the path of an input file's reconstruction."""
        return output_file(self.folder, file)


def output_file(folder: Path, file: str) -> Path:
    """Return the path of an input file's reconstruction in a run folder."""
    return inside(folder, f"reconstructions/{Path(file).stem}.h5")


def read_run(folder: Path) -> Run:
    """Read one run folder; its label is the method alone."""
    names = (path.name for path in (folder / "reconstructions").glob("*.h5"))
    # hidden files are unfinished outputs, or those of macOS
    visible = sorted(name for name in names if not name.startswith("."))
    files = tuple(inside(folder, f"reconstructions/{name}") for name in visible)
    failed = inside(folder, "failed.json")
    failures: tuple[Failure, ...] = ()
    if failed.is_file():
        with reading(failed, "a list of failed scans", "restore it, or remove it"):
            failures = FAILURES.validate_json(failed.read_bytes())
            # the entry of a whole run must name its scan; in the scan's own file it need not
            if not all(failure.file for failure in failures):
                raise ValueError("a failed scan has no file name")
    record = _record(folder, files)
    return Run(folder, files, record, record.method, failures)


def _record(folder: Path, files: tuple[Path, ...]) -> Record:
    """Return the record of a run; without a record, the folder's name is the method."""
    path = inside(folder, "record.json")
    if path.is_file():
        return Record.load(path)
    mask = ""
    for file in files[:1]:  # files of other programs may have a mask, but no record
        with open_hdf5(file) as content:
            mask = text_of(content, "mask")
            if recorded := text_of(content, "record"):
                return Record.parse(recorded)
    log.warning(
        "%s is missing: the run is called by its folder, its command and settings are not known",
        path,
    )
    return Record(model=folder.name, mask=mask)
