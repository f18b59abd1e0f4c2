"""K-space and targets of a file in fastMRI's layout: their names, types, shapes and axes."""

from __future__ import annotations

from pathlib import Path

import h5py

from mrisem.data.contents import complex_type, dataset
from mrisem.data.header import Header
from mrisem.errors import InputError


def target_name(file: h5py.File) -> str | None:
    """Name of the dataset with the target images; None: the file has no targets.

    Single-coil files hold the image of the emulated single coil (``reconstruction_esc``) beside the
    multi-coil root-sum-of-squares; their target is the former. A file of targets alone may hold
    either.
    """
    kspace = dataset(file, "kspace")
    multi = kspace is not None and kspace.ndim == 4
    names = ("reconstruction_rss",) if multi else ("reconstruction_esc", "reconstruction_rss")
    return next((name for name in names if dataset(file, name) is not None), None)


def kspace_dataset(file: h5py.File, path: Path) -> h5py.Dataset:
    """Return the k-space of a file.

    Raises:
        InputError: when there is no k-space, or its values are not complex.
    """
    kspace = dataset(file, "kspace")
    if kspace is None:
        raise InputError(
            f"{path} must hold a dataset 'kspace', got {sorted(file.keys())[:20]}; rename or add it"
        )
    if not complex_type(kspace.dtype):
        fix = "write it as complex64"
        # a frequent mistake: (..., 2) real numbers, as PyTorch's view_as_real gives them
        if kspace.dtype.kind in "iuf" and kspace.shape[-1:] == (2,):
            fix = "join real and imaginary parts: kspace[..., 0] + 1j * kspace[..., 1]"
        raise InputError(f"kspace must be complex64, got {kspace.dtype} in {path}; {fix}")
    return kspace


def kspace_shape(kspace: h5py.Dataset, path: Path) -> tuple[int, int, int, int]:
    """Return ``(slice, coil, y, x)`` of k-space; single-coil files count as one coil."""
    shape = kspace.shape
    # (slice, y, x) and (coil, y, x) look alike: only the name of fastMRI's folder tells them apart.
    if len(shape) == 3 and path.parent.name.startswith("singlecoil_") and 0 not in shape:
        return shape[0], 1, shape[1], shape[2]
    if len(shape) != 4 or 0 in shape:
        raise InputError(
            f"kspace must be (slice, coil, y, x), got {shape} in {path}; single-coil files "
            "(slice, y, x) belong in a folder singlecoil_<split>, or need a coil axis of length 1"
        )
    return shape[0], shape[1], shape[2], shape[3]


def target_shape(
    file: h5py.File, shape: tuple[int, int, int, int], path: Path
) -> tuple[int, int, int] | None:
    """Check the targets and return their ``(slice, Y, X)``; None: the file has no targets."""
    name = target_name(file)
    target = None if name is None else dataset(file, name)
    if target is None:
        return None
    size = target.shape
    fits = len(size) == 3 and 0 < size[1] <= shape[2] and 0 < size[2] <= shape[3]
    if not fits or size[0] != shape[0]:
        raise InputError(
            f"{name} must be (slice, Y, X) within kspace {shape}, got {size} in {path}; rewrite or "
            "remove it"
        )
    if target.dtype.kind not in "iuf":
        raise InputError(
            f"{name} must hold real numbers, got {target.dtype} in {path}; rewrite or remove it"
        )
    return size


def check_axes(
    shape: tuple[int, int, int, int],
    header: Header,
    target: tuple[int, int, int] | None,
    path: Path,
) -> None:
    """Raise InputError if the sizes in the header show that the axes have another order."""
    if header.encoded is None:
        return
    readout, width = header.encoded
    order = ""  # actual order of the axes, where the sizes fit only that
    if shape[2] != readout and shape[1:3] == (readout, width):
        order = "(slice, y, x, coil): the coils are last"
    elif (
        target is None  # targets tell the number of slices, so that nothing is left to guess
        and header.channels == shape[0] != shape[1]
        and shape[2:] == (readout, width)
    ):
        order = "(coil, slice, y, x): the coils are first"
    # a square matrix cannot show whether y and x are exchanged
    elif readout != width and shape[3] == readout and shape[2] != readout:
        order = "(slice, coil, x, y): phase encodes and readout are swapped"
    if order:
        raise InputError(
            f"kspace must be (slice, coil, y, x) with y = {readout} and x = {width}, as the header "
            f"says, got {shape} in {path}, which looks like {order}; move the axes"
        )


def narrowed(recon: tuple[int, int], shape: tuple[int, int, int, int]) -> tuple[int, int]:
    """Limit an image size ``(Y, X)`` to k-space; wider images become square, as in fastMRI."""
    height, width = recon
    if width > shape[3]:
        height = width = shape[3]
    return min(height, shape[2]), width
