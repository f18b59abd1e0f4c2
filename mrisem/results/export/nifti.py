"""Export as NIfTI: a compressed file for each scan, float32."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from mrisem.files import whole
from mrisem.results.export.placed import PlacedImages

_SCANNER, _UNKNOWN = 1, 0  # NIfTI's codes of coordinate systems


def write(scan: PlacedImages, path: Path) -> None:
    """Write ``(x, y, slice)`` float32 with the scan's affine; missing slices are zero.

    If position and orientation are not known, the codes of both transforms are 0, and readers use
    only the size of the voxels.
    """
    import nibabel

    # Evenly spaced slices, such as every second one, need no zeros between them.
    step = int(np.gcd.reduce(np.diff(scan.numbers))) if len(scan.numbers) > 1 else 1
    first, last = scan.numbers[0], scan.numbers[-1]
    values = np.zeros((*scan.images.shape[:0:-1], (last - first) // step + 1), np.float32)
    indices = [(number - first) // step for number in scan.numbers]
    values[..., indices] = scan.images.transpose(2, 1, 0)
    if missing := sorted({*range(values.shape[2])} - {*indices}):
        numbers = ", ".join(str(first + step * index) for index in missing)
        warnings.warn(f"{path.name}: slices {numbers} were not made and are zero", stacklevel=2)
    # the scan's affine counts slices of the input: begin at the first one, in steps
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
    """Compress a file without a time stamp, so that equal images give equal files."""
    import gzip

    return gzip.compress(content, compresslevel=6, mtime=0)
