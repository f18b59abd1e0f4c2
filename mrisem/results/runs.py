"""Search for run folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mrisem.errors import InputError
from mrisem.results.labels import label_runs, table_order
from mrisem.results.run import Run, read_run

__all__ = ["Run", "find_runs"]


def find_runs(roots: Iterable[Path]) -> list[Run]:
    """Return the runs in folders and their subfolders, labelled, in table order.

    Raises:
        InputError: when a folder is missing or holds no reconstructions.
    """
    folders: dict[Path, None] = {}
    for root in roots:
        if not root.is_dir():
            raise InputError(f"a run folder must exist, got {root}; correct the path")
        below = {file.parent.parent for file in root.rglob("reconstructions/*.h5")}
        # a run of which every scan failed has no reconstructions
        below |= {
            f.parent for f in root.rglob("failed.json") if (f.parent / "record.json").is_file()
        }
        if not below:
            raise InputError(
                f"a run folder must hold reconstructions/*.h5, got none in or below {root}; "
                f"make them: mrisem reconstruct ... output_dir={root}"
            )
        folders |= dict.fromkeys(folder.resolve() for folder in sorted(below))
    return sorted(label_runs([read_run(folder) for folder in folders]), key=table_order)
