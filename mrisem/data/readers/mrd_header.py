"""Facts of an ISMRMRD header for sorting the readouts and for the position of the image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import numpy as np

from mrisem.errors import InputError
from mrisem.files import reading


@dataclass(frozen=True)
class MrdHeader:
    """Facts of the first encoding in a header.

    Args:
        text: text of the header.
        encoded: numbers of samples of a readout, of columns, and of partitions.
        center: encoding steps 1 and 2 of the zero frequency.
        last: highest encoding step 1.
        pixel: edges of a voxel along readout, phase encode and partitions, mm; None: the header
            states no field of view.
        patient_id: name of the subject; empty: the header names none.
    """

    text: bytes
    encoded: tuple[int, int, int]
    center: tuple[int, int]
    last: int
    pixel: tuple[float, float, float] | None
    patient_id: str


def parse_header(text: bytes | str, path: Path) -> MrdHeader:
    """Read the facts of a header.

    Raises:
        InputError: when the header is damaged, or the trajectory is not Cartesian.
    """
    raw = text.encode() if isinstance(text, str) else bytes(text)
    with reading(path, "an ISMRMRD file with a complete XML header", "convert the raw data again"):
        root = fromstring(raw)
        encodings = root.findall("{*}encoding")
        if not encodings:
            raise ValueError("the header has no encoding")
        encoding = encodings[0]
        trajectory = _text(encoding, "trajectory")
        if trajectory != "cartesian":
            raise InputError(
                f"the trajectory must be Cartesian, got {trajectory or 'none'} in {path}; grid the "
                "data first and give them as another format (docs/data.md)"
            )
        # x is the readout, y and z are the phase encodes
        x, y, z = (int(_text(encoding, f"encodedSpace/matrixSize/{a}") or 0) for a in "xyz")
        if min(x, y, z) < 1:
            raise ValueError(f"encodedSpace must be at least 1 x 1 x 1, got {x} x {y} x {z}")
        center, last = _limits(encoding, 1, y)
        lengths = [_text(encoding, f"encodedSpace/fieldOfView_mm/{a}") for a in "xyz"]
        pixel = None
        if all(lengths):
            pixel = float(lengths[0]) / x, float(lengths[1]) / y, float(lengths[2]) / z
        patient = _text(root, "subjectInformation/patientID")
        return MrdHeader(raw, (x, y, z), (center, _limits(encoding, 2, z)[0]), last, pixel, patient)


def _limits(encoding: Element, step: int, n: int) -> tuple[int, int]:
    """Return centre and maximum of an encoding step; without limits those of ``n`` steps."""
    limits = f"encodingLimits/kspace_encoding_step_{step}"
    center, last = (_text(encoding, f"{limits}/{name}") for name in ("center", "maximum"))
    return int(center or n // 2), int(last or n - 1)


def _text(root: Element, path: str) -> str:
    """Return the text of an element; empty: there is none."""
    text = root.findtext("/".join("{*}" + part for part in path.split("/")))
    return (text or "").strip()


def affine_of(heads: np.ndarray, slices: np.ndarray, header: MrdHeader) -> np.ndarray | None:
    """Return the affine ``(4, 4)`` float64: (column, row, slice) of the encoded matrix to RAS+ mm.

    Args:
        heads: headers of the readouts.
        slices: values of their slice counter, in the order of the slices.
        header: header of the file.

    Returns:
        the affine; None: the file states no field of view or no directions.
    """
    first = [heads[np.flatnonzero(heads["idx"]["slice"] == number)[0]] for number in slices]
    read, phase, across = (
        np.asarray(first[0][name], dtype=np.float64)
        for name in ("read_dir", "phase_dir", "slice_dir")
    )
    if header.pixel is None or not (read.any() and phase.any() and across.any()):
        return None
    rows, width, depth = header.encoded
    origin, last = (np.asarray(h["position"], dtype=np.float64) for h in (first[0], first[-1]))
    step = across * header.pixel[2]
    # positions of slices count more than their thickness: there may be gaps
    if len(first) > 1 and (last != origin).any():
        step = (last - origin) / (len(first) - 1)
    # the position of a slab is its centre, that of a slice pixel n // 2 of both axes
    if depth > 1:
        origin = origin - step * (depth // 2)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = phase * header.pixel[1], read * header.pixel[0]
    affine[:3, 2] = step
    affine[:3, 3] = origin - affine[:3, 0] * (width // 2) - affine[:3, 1] * (rows // 2)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS of ISMRMRD to RAS+


def moved_to_crop(
    affine: np.ndarray, encoded: tuple[int, int], crop: tuple[int, int]
) -> np.ndarray:
    """Return the affine of the central ``crop`` ``(Y, X)`` of an image of ``encoded`` ``(y, x)``.

    >>> moved_to_crop(np.eye(4), (8, 6), (4, 6))[:3, 3].tolist()
    [0.0, 2.0, 0.0]
    """
    top, left = (n // 2 - m // 2 for n, m in zip(encoded, crop, strict=True))
    moved = affine.copy()
    moved[:, 3] += affine[:, 0] * left + affine[:, 1] * top
    return moved
