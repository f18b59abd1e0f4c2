"""The MNI152 template as nilearn bundles it, and the hull of its brain.

ICBM152 nonlinear symmetric 2009a (Fonov et al., NeuroImage 54, 2011): a skull-stripped average.
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
            "simulated brains need nilearn's MNI152 template, nilearn is not installed: "
            "pip install mrisem[demo]"
        )
    name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    return Path(package.origin).parent / "datasets" / "data" / name


@lru_cache(maxsize=1)
def load_template() -> tuple[Volume, Volume]:
    """Load the template: T1 and grey matter at 1 mm; at 2 mm the distance from the hull (mm).

    The second channel of the latter marks the ventricles' walls, where an average template shows a
    seam of grey.

    Raises:
        InputError: without nilearn.
    """
    import nibabel
    from scipy import ndimage

    image: Any = nibabel.load(_template_file("t1"))
    grey: Any = nibabel.load(_template_file("gm"))
    t1 = np.asarray(image.dataobj, dtype=np.float32) / 255
    fine = torch.from_numpy(np.stack([t1, np.asarray(grey.dataobj, dtype=np.float32) / 255]))
    x, y, z = (float(v) for v in image.affine[:3, 3])
    coarse = np.pad(t1[::2, ::2, ::2], ((20, 20), (20, 20), (0, 0)))
    mask = ndimage.binary_closing(np.pad(coarse > 0, 12), iterations=10)
    mask = ndimage.binary_fill_holes(mask[12:-12, 12:-12, 12:-12])
    distance = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    distance = ndimage.gaussian_filter(distance.astype(np.float32), 2.5) * 2
    ventricles = (coarse > 0) & (coarse < 0.4) & (distance < -22)
    near = ndimage.gaussian_filter(ventricles.astype(np.float32), 1.3)
    hull = torch.from_numpy(np.stack([distance, (4 * near).clip(0, 1)]))
    return Volume(fine, (x, y, z), 1.0), Volume(hull, (x - 40, y - 40, z), 2.0)
