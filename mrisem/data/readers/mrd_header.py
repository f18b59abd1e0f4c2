"""Facts of an ISMRMRD header that sorting and placing the readouts need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import numpy as np

from mrisem.errors import InputError
from mrisem.files import reading


@dataclass(frozen=True)
class MrdHeader:
    """What the header says of its first encoding.

    Args:
        text: the header.
        encoded: samples of a readout, columns and partitions of the encoded matrix.
        center: encoding steps 1 and 2 of the zero frequency.
        last: highest encoding step 1.
        pixel: edge lengths of a voxel along readout, phase encode and partitions in mm; None where
            the header gives no field of view.
        patient_id: the subject; empty where the header names none.
    """

    text: bytes
    encoded: tuple[int, int, int]
    center: tuple[int, int]
    last: int
    pixel: tuple[float, float, float] | None
    patient_id: str


def parse_header(text: bytes | str, path: Path) -> MrdHeader:
    """Read a header.

    Raises:
        InputError: when it is damaged, or the trajectory is not Cartesian.
    """
    raw = text.encode() if isinstance(text, str) else bytes(text)
    with reading(path, "an ISMRMRD file with a whole XML header", "convert the raw data again"):
        root = fromstring(raw)
        encodings = root.findall("{*}encoding")
        if not encodings:
            raise ValueError("the header has no encoding")
        encoding = encodings[0]
        trajectory = _text(encoding, "trajectory")
        if trajectory != "cartesian":
            raise InputError(
                f"only Cartesian trajectories are read, got {trajectory or 'none'} in {path}; grid "
                "the data first and give them as another format (docs/data.md)"
            )
        x, y, z = (int(_text(encoding, f"encodedSpace/matrixSize/{a}") or 0) for a in "xyz")
        if min(x, y, z) < 1:
            raise ValueError(f"encodedSpace must be at least 1 x 1 x 1, got {x} x {y} x {z}")
        center, last = _limits(encoding, 1, y)
        fields = [_text(encoding, f"encodedSpace/fieldOfView_mm/{a}") for a in "xyz"]
        pixel = None
        if all(fields):
            pixel = float(fields[0]) / x, float(fields[1]) / y, float(fields[2]) / z
        patient = _text(root, "subjectInformation/patientID")
        return MrdHeader(raw, (x, y, z), (center, _limits(encoding, 2, z)[0]), last, pixel, patient)


def _limits(encoding: Element, step: int, n: int) -> tuple[int, int]:
    """Centre and maximum of an encoding step; without limits those of the whole matrix."""
    place = f"encodingLimits/kspace_encoding_step_{step}"
    center, last = (_text(encoding, f"{place}/{name}") for name in ("center", "maximum"))
    return int(center or n // 2), int(last or n - 1)


def _text(root: Element, path: str) -> str:
    found = root.findtext("/".join("{*}" + part for part in path.split("/")))
    return (found or "").strip()


def affine_of(heads: np.ndarray, slices: np.ndarray, header: MrdHeader) -> np.ndarray | None:
    """``(4, 4)`` float64: (column, row, slice) of the encoded matrix to RAS+ mm.

    ISMRMRD gives the centre of a slice and its directions in LPS; the centre is pixel ``n // 2``.

    Args:
        heads: headers of the readouts.
        slices: values of their slice counter, in the order of the slices.
        header: header of the file.
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
    if len(first) > 1 and (last != origin).any():
        step = (last - origin) / (len(first) - 1)
    if depth > 1:
        origin = origin - step * (depth // 2)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = phase * header.pixel[1], read * header.pixel[0]
    affine[:3, 2] = step
    affine[:3, 3] = origin - affine[:3, 0] * (width // 2) - affine[:3, 1] * (rows // 2)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def moved_to_crop(
    affine: np.ndarray, encoded: tuple[int, int], crop: tuple[int, int]
) -> np.ndarray:
    """Affine of the central ``crop`` ``(Y, X)`` of an image with ``encoded`` ``(y, x)`` pixels.

    >>> moved_to_crop(np.eye(4), (8, 6), (4, 6))[:3, 3].tolist()
    [0.0, 2.0, 0.0]
    """
    top, left = (n // 2 - m // 2 for n, m in zip(encoded, crop, strict=True))
    moved = affine.copy()
    moved[:, 3] += affine[:, 0] * left + affine[:, 1] * top
    return moved
