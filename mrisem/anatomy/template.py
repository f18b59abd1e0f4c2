"""MNI152 template in the copy of nilearn, and the hull of its brain.

ICBM152 nonlinear symmetric 2009a (Fonov et al., NeuroImage 54, 2011), an average without skull.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrisem.anatomy.fields import Volume
from mrisem.errors import InputError


def _template_file(kind: str) -> Path:
    """Find nilearn's copy of the template without importing nilearn, which takes seconds."""
    package = find_spec("nilearn")
    if package is None or package.origin is None:
        raise InputError(
            "simulated brains need the MNI152 template of nilearn, which is not installed; run "
            "pip install mrisem[demo]"
        )
    name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    return Path(package.origin).parent / "datasets" / "data" / name


@lru_cache(maxsize=1)
def load_template() -> tuple[Volume, Volume]:
    """Load the template and its hull.

    Returns:
        T1 intensity and share of grey matter, both in [0, 1], on a grid of 1 mm; distance from the
        hull in mm (negative inside) and nearness to the ventricles in [0, 1], on a grid of 2 mm.
        The average template shows a grey seam at the walls of the ventricles.

    Raises:
        InputError: when nilearn is not installed.
    """
    import nibabel
    from scipy import ndimage

    image: Any = nibabel.load(_template_file("t1"))
    grey: Any = nibabel.load(_template_file("gm"))
    t1 = np.asarray(image.dataobj, dtype=np.float32) / 255
    fine = torch.from_numpy(np.stack([t1, np.asarray(grey.dataobj, dtype=np.float32) / 255]))
    x, y, z = (float(coordinate) for coordinate in image.affine[:3, 3])
    coarse = np.pad(t1[::2, ::2, ::2], ((20, 20), (20, 20), (0, 0)))
    # Closing fills the sulci, so that the hull is smooth. The margin of 12 voxels keeps it from
    # meeting the border of the grid.
    mask = ndimage.binary_closing(np.pad(coarse > 0, 12), iterations=10)
    mask = ndimage.binary_fill_holes(mask[12:-12, 12:-12, 12:-12])
    # in voxels of 2 mm, smoothed, then in mm
    distance = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    distance = ndimage.gaussian_filter(distance.astype(np.float32), 2.5) * 2
    # the ventricles are dark and deep inside
    ventricles = (coarse > 0) & (coarse < 0.4) & (distance < -22)
    near_ventricle = ndimage.gaussian_filter(ventricles.astype(np.float32), 1.3)
    hull = torch.from_numpy(np.stack([distance, (4 * near_ventricle).clip(0, 1)]))
    return Volume(fine, (x, y, z), 1.0), Volume(hull, (x - 40, y - 40, z), 2.0)
