"""What a prior changed in the images of a run, as the page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrisem.report.audit_figure import Maps, choose_rows, load_maps
from mrisem.report.summary import Row


@dataclass(frozen=True)
class Changes:
    """A run with a prior beside the same run without.

    Args:
        picture: that the evaluation drew.
        plain: folder of the run without.
        guided: folder of the run with it.
        targets: folder of the input files.
        rows: of the audit.
    """

    picture: Path
    plain: Path
    guided: Path
    targets: Path
    rows: Sequence[Row]

    def load(self, most: int) -> list[Maps]:
        """Load the slices that changed most; none where one of their files is not there."""
        rows = choose_rows(self.rows, most)
        folders = (self.plain / "reconstructions", self.guided / "reconstructions", self.targets)
        if not all((folder / row["file"]).is_file() for folder in folders for row in rows):
            return []
        return [load_maps(self.plain, self.guided, self.targets, row) for row in rows]
