"""NIfTI: one compressed file a scan, float32."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from mrisem.files import whole
from mrisem.results.export.placed import PlacedImages

_SCANNER, _UNKNOWN = 1, 0  # NIfTI's codes of coordinates


def write(scan: PlacedImages, path: Path) -> None:
    """Write ``(x, y, slice)`` float32 with the scan's affine; a slice that is missing is zero.

    Where position and orientation are not known, the codes of both transforms are 0, and readers
    take the size of voxels alone.
    """
    import nibabel

    step = int(np.gcd.reduce(np.diff(scan.numbers))) if len(scan.numbers) > 1 else 1
    first, last = scan.numbers[0], scan.numbers[-1]
    values = np.zeros((*scan.images.shape[:0:-1], (last - first) // step + 1), np.float32)
    places = [(number - first) // step for number in scan.numbers]
    values[..., places] = scan.images.transpose(2, 1, 0)
    if missing := sorted({*range(values.shape[2])} - {*places}):
        numbers = ", ".join(str(first + step * place) for place in missing)
        warnings.warn(f"{path.name}: slices {numbers} were not made and are zero", stacklevel=2)
    affine = scan.affine.copy()
    affine[:3, 3] += first * scan.affine[:3, 2]
    affine[:3, 2] *= step
    image = nibabel.Nifti1Image(values, affine)
    code = _SCANNER if scan.placed else _UNKNOWN
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = scan.description.encode()[:79]
    with whole(path) as partial:
        partial.write_bytes(_compressed(image.to_bytes()))


def _compressed(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content, compresslevel=6, mtime=0)  # equal images give equal files
