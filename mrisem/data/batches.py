"""From the k-space of single slices to a `mrisem.types.Batch`."""

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
        scale: ``()`` float32.
        columns: ``(x,)`` bool, sampled ones; ``(y, x)`` where single points are.
        info: where the slice comes from.
        calibration: ``(coil, n, n)`` complex64, the centre of k-space for sensitivity maps, in any
            unit; None: what ``columns`` sample around the centre.
        target: ``(Y, X)`` float32, or None.
        maps: ``(coil, y, x)`` complex64, sensitivity maps that are given; None: estimated.
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
        Masked k-space ``(coil, y, x)``, and the scale ``()``: an image times it is in units of the
        file.
    """
    exponent = exponent_of(kspace)
    masked = shift_exponent(kspace, -exponent) * columns
    scale = root_sum_of_squares(ifft2c(masked)).max()
    if not bool(scale > 0):
        raise InputError("the mask must sample some signal, every sampled column is zero")
    in_file = shift_exponent(scale, exponent)
    if not (bool(torch.isfinite(in_file)) and bool(in_file > 0)):
        raise InputError(
            f"images must lie within the range of float32, got a maximum of {float(scale):.3g} "
            f"times 2^{exponent}; write the k-space in another unit"
        )
    return masked / scale, in_file


def magnitude(kspace: Tensor) -> Tensor:
    """Root-sum-of-squares image of ``(coil, y, x)`` k-space: ``(y, x)``, in units of the file.

    Raises:
        InputError: when the image exceeds float32.
    """
    exponent = exponent_of(kspace)
    image = root_sum_of_squares(ifft2c(shift_exponent(kspace, -exponent)))
    image = shift_exponent(image, exponent)
    if not bool(torch.isfinite(image).all()):
        raise InputError("the image of k-space must be finite as float32; write another unit")
    return image


def as_batch(
    rows: Sequence[Row],
    crop: tuple[int, int],
    cache_folder: Path | None = None,
    estimator: str = "torch",
    readout: Readout = "all",
) -> Batch:
    """Put slices of one volume together and estimate their sensitivity maps.

    Args:
        rows: the slices; all have targets, or none.
        crop: ``(Y, X)`` of reconstructions.
        cache_folder: folder that keeps sensitivity maps; None: not kept.
        estimator: name of the estimator of sensitivity maps.
        readout: image rows that the batch has: those of the ``target``, or ``all``
            (`mrisem.physics.fourier.crop_readout`). Sensitivity maps come from all of k-space.
    """
    masked, scale, columns = (
        torch.stack([getattr(row, name) for row in rows])
        for name in ("masked_kspace", "scale", "columns")
    )
    height, width = masked.shape[-2:]
    points = columns.ndim == 3  # then image rows are not separate, and all are reconstructed
    n_rows = crop[0] if readout == "target" and not points else height
    mask = columns if points else repeat(columns, "b x -> b y x", y=n_rows)
    masked = crop_readout(masked, n_rows) * mask[:, None]
    given = [row.maps for row in rows if row.maps is not None]
    if given:
        full = torch.stack(given)
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
    """Maps ``(batch, coil, y, x)`` of the rows that ``masked`` has, and on the coarse grid."""
    blocks = [_calibration(row) for row in rows]
    lines = torch.tensor([block.shape[-1] for block in blocks])
    (n, _, n_rows, width), maps = masked.shape, torch.empty_like(masked)
    coarse: Tensor | None = None
    for size in lines.unique().tolist():  # slices with equally many in one go
        chosen = torch.stack([b for b in blocks if b.shape[-1] == size])
        part = estimate_coarse_maps(chosen, size, cache_folder, estimator=estimator)
        coarse = part.new_empty(n, *part.shape[1:]) if coarse is None else coarse
        coarse[lines == size] = part
        maps[lines == size] = interpolate_maps(part, (height, width), n_rows)
    return maps, coarse


def _calibration(row: Row) -> Tensor:
    """``(coil, n, n)``: the centre of k-space that maps are estimated from."""
    if row.calibration is not None:
        return row.calibration
    n = min(calibration_square(row.columns), row.masked_kspace.shape[1])
    return center_crop(row.masked_kspace, (n, n))
