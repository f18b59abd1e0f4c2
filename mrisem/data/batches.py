"""Assembly of a `mrisem.types.Batch` from the k-space of single slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from einops import repeat
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.coils import estimate_coarse_maps, interpolate_maps, root_sum_of_squares
from mrisem.physics.fourier import center_crop, crop_readout, ifft2c
from mrisem.physics.masks import calibration_square
from mrisem.physics.units import exponent_of, shift_exponent
from mrisem.types import Batch, SliceInfo

Readout = Literal["target", "all"]


@dataclass(frozen=True)
class Row:
    """One slice of a batch.

    Args:
        masked_kspace: ``(coil, y, x)`` complex64, scaled as in `Batch`.
        scale: ``()`` float32, see `Batch`.
        columns: ``(x,)`` bool, sampled columns, or ``(y, x)`` bool, sampled points.
        info: source of the slice.
        calibration: ``(coil, n, n)`` complex64, the centre of k-space for sensitivity maps, in any
            unit; None: the block that ``columns`` sample around the centre.
        target: ``(Y, X)`` float32 in units of the file, or None.
        maps: ``(coil, y, x)`` complex64, sensitivity maps from a file; None: they are estimated.
    """

    masked_kspace: Tensor
    scale: Tensor
    columns: Tensor
    info: SliceInfo
    calibration: Tensor | None = None
    target: Tensor | None = None
    maps: Tensor | None = None


def undersample(kspace: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a mask and scale the zero-filled root-sum-of-squares image to a maximum of 1.

    Args:
        kspace: ``(coil, y, x)`` complex64, in units of the file.
        columns: ``(x,)`` bool, or ``(y, x)``.

    Returns:
        masked k-space ``(coil, y, x)``, and the scale ``()``: an image times the scale is in units
        of the file.

    Raises:
        InputError: when the samples hold no signal, or the scale exceeds float32.
    """
    # Files hold k-space in units from 1e-12 to 1e12: a power of two keeps sums of squares within
    # float32, without rounding.
    exponent = exponent_of(kspace)
    masked = shift_exponent(kspace, -exponent) * columns
    scale = root_sum_of_squares(ifft2c(masked)).max()
    if not bool(scale > 0):
        raise InputError(
            "the mask must sample some signal, got zeros in every sampled column; set another mask"
        )
    in_file = shift_exponent(scale, exponent)
    if not (bool(torch.isfinite(in_file)) and bool(in_file > 0)):
        raise InputError(
            f"images must lie within the range of float32, got a maximum of {float(scale):.3g} "
            f"times 2^{exponent}; write the k-space in another unit"
        )
    return masked / scale, in_file


def magnitude(kspace: Tensor) -> Tensor:
    """Compute the root-sum-of-squares image ``(y, x)`` of k-space, in units of the file.

    Args:
        kspace: ``(coil, y, x)`` complex64.

    Raises:
        InputError: when the image exceeds float32.
    """
    exponent = exponent_of(kspace)
    image = root_sum_of_squares(ifft2c(shift_exponent(kspace, -exponent)))
    image = shift_exponent(image, exponent)
    if not bool(torch.isfinite(image).all()):
        raise InputError(
            "the image of k-space must be finite as float32, got NaN or infinity; write the "
            "k-space in another unit"
        )
    return image


def as_batch(
    rows: Sequence[Row],
    crop: tuple[int, int],
    cache_folder: Path | None = None,
    estimator: str = "torch",
    readout: Readout = "all",
) -> Batch:
    """Join slices of one volume and estimate their sensitivity maps.

    Args:
        rows: the slices; either all or none of them have targets.
        crop: ``(Y, X)`` of reconstructions.
        cache_folder: folder of cached sensitivity maps; None: they are not kept.
        estimator: name of the estimator of sensitivity maps.
        readout: image rows of the batch: those of the ``target``, or ``all``
            (`mrisem.physics.fourier.crop_readout`). Sensitivity maps come from all of k-space.
    """
    masked, scale, columns = (
        torch.stack([getattr(row, name) for row in rows])
        for name in ("masked_kspace", "scale", "columns")
    )
    height, width = masked.shape[-2:]
    # With whole columns each image row is a problem of its own, so rows outside the target can be
    # left out. Masks of points mix the rows.
    is_points = columns.ndim == 3
    n_rows = crop[0] if readout == "target" and not is_points else height
    mask = columns if is_points else repeat(columns, "b x -> b y x", y=n_rows)
    # exact zeros outside the mask, as `Batch` has them
    masked = crop_readout(masked, n_rows) * mask[:, None]
    file_maps = [row.maps for row in rows if row.maps is not None]
    if file_maps:
        full = torch.stack(file_maps)
        # unit root-sum-of-squares, as estimated maps have it
        full = full / root_sum_of_squares(full)[:, None].clamp_min(1e-12)
        maps, coarse = center_crop(full, (n_rows, width)).contiguous(), None
    else:
        maps, coarse = _estimate_maps(rows, masked, height, cache_folder, estimator)
    targets = [row.target for row in rows if row.target is not None]
    return Batch(
        masked_kspace=masked,
        mask=mask.contiguous(),
        sensitivity_maps=maps,
        scale=scale,
        crop=crop,
        info=tuple(row.info for row in rows),
        target=torch.stack(targets) if targets else None,
        coarse_maps=coarse,
        readout=height,
    )


def _estimate_maps(
    rows: Sequence[Row], masked: Tensor, height: int, cache_folder: Path | None, estimator: str
) -> tuple[Tensor, Tensor | None]:
    """Estimate the maps of slices.

    Args:
        rows: the slices.
        masked: ``(batch, coil, y, x)`` complex64, masked k-space of the batch.
        height: number of rows of the whole field of view.
        cache_folder: folder of cached maps.
        estimator: name of the estimator.

    Returns:
        maps ``(batch, coil, y, x)`` on the rows of ``masked``, and maps on the coarse grid.
    """
    blocks = [_calibration(row) for row in rows]
    lines = torch.tensor([block.shape[-1] for block in blocks])
    (n, _, n_rows, width), maps = masked.shape, torch.empty_like(masked)
    coarse: Tensor | None = None
    # slices with blocks of the same size are estimated together
    for size in lines.unique().tolist():
        chosen = torch.stack([b for b in blocks if b.shape[-1] == size])
        part = estimate_coarse_maps(chosen, size, cache_folder, estimator=estimator)
        coarse = part.new_empty(n, *part.shape[1:]) if coarse is None else coarse
        coarse[lines == size] = part
        maps[lines == size] = interpolate_maps(part, (height, width), n_rows)
    return maps, coarse


def _calibration(row: Row) -> Tensor:
    """Return the centre of k-space ``(coil, n, n)`` from which maps are estimated."""
    if row.calibration is not None:
        return row.calibration
    n = min(calibration_square(row.columns), row.masked_kspace.shape[1])
    return center_crop(row.masked_kspace, (n, n))
