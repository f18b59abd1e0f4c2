"""What a section of the page is made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mrisem.report.audit import audit_tables
from mrisem.report.changes import Changes
from mrisem.report.curves import Curves
from mrisem.report.embedding import Picture
from mrisem.report.lesions import page_tables
from mrisem.report.panels import Panel
from mrisem.report.summary import Column, Row
from mrisem.report.sweeps import Sweep
from mrisem.report.tables import Table


@dataclass(frozen=True)
class Group:
    """What may be compared: one anatomy and sampling.

    Args:
        table: of its scores.
        rows: of its slices' scores.
        panels: its images.
        curves: of its fits.
        pictures: of its embeddings.
        note: which pictures are missing and why; or an empty string.
        sweeps: of the parameters in which its runs differ.
        audit: of its runs with a prior (`mrisem.report.audit.audit_summary`).
        maps: what the prior changed in the images of a run, after what is compared.
        lesions: of its methods (`mrisem.report.lesions.lesion_tables`).
    """

    table: Table
    rows: Sequence[Row]
    panels: Sequence[Panel]
    curves: Curves
    pictures: Sequence[Picture] = ()
    note: str = ""
    sweeps: Sequence[Sweep] = ()
    audit: Sequence[dict[str, Any]] = ()
    maps: Sequence[tuple[str, Changes]] = ()
    lesions: Sequence[dict[str, Any]] = ()

    @property
    def tables(self) -> list[Table]:
        """Its scores, then audit and lesions where there are any."""
        return [self.table, *audit_tables(self.audit), *page_tables(self.lesions)]

    @property
    def drawn(self) -> list[Column]:
        """Columns that are worth a figure."""
        return [column for column in self.table.columns if column.name != "seconds"]


@dataclass(frozen=True)
class Samplings:
    """One anatomy over acceleration and pattern of the mask.

    Args:
        anatomy: its name.
        sweeps: of the mask.
        columns: to be drawn.
    """

    anatomy: str
    sweeps: Sequence[Sweep]
    columns: Sequence[Column]
