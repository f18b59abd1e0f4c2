"""Writing volumes in the fastMRI multi-coil HDF5 layout."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from mrisem.errors import InputError

_HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <acquisitionSystemInformation><receiverChannels>{coils}</receiverChannels>\
</acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>123200000</H1resonanceFrequency_Hz>\
</experimentalConditions>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{readout}</x><y>{width}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{readout_mm:.2f}</x><y>{width_mm:.2f}</y><z>5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{rows_mm:.2f}</x><y>{columns_mm:.2f}</y><z>5</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{maximum}</maximum>\
<center>{center}</center></kspace_encoding_step_1></encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>
"""


def ismrmrd_header(
    kspace_shape: tuple[int, ...],
    recon_size: tuple[int, int],
    padding: tuple[int, int],
    pixel_mm: float = 1.0,
) -> str:
    """The ISMRMRD header's facts that fastMRI's readers use.

    Those read ``padding_left = width // 2 - center`` and ``padding_right = padding_left + maximum
    + 1``; x of the encoded space is the readout (our y), y the phase-encode axis (our x).

    Args:
        kspace_shape: ``(slice, coil, y, x)``.
        recon_size: ``(Y, X)``, the target's size.
        padding: first acquired column and the one after the last.
        pixel_mm: edge length of a pixel.

    >>> "<center>88</center>" in ismrmrd_header((1, 8, 384, 208), (192, 192), (16, 192))
    True
    """
    _, coils, readout, width = kspace_shape
    left, right = padding
    return _HEADER.format(
        coils=coils,
        readout=readout,
        width=width,
        rows=recon_size[0],
        columns=recon_size[1],
        readout_mm=readout * pixel_mm,
        width_mm=width * pixel_mm,
        rows_mm=recon_size[0] * pixel_mm,
        columns_mm=recon_size[1] * pixel_mm,
        maximum=right - left - 1,
        center=width // 2 - left,
    )


def write_volume(
    path: str | Path,
    kspace: np.ndarray,
    target: np.ndarray,
    *,
    acquisition: str,
    patient_id: str,
    recon_size: tuple[int, int],
    padding: tuple[int, int],
    mask: np.ndarray | None = None,
    pixel_mm: float = 1.0,
    simulation: str | None = None,
    lesions: np.ndarray | None = None,
) -> None:
    """Write one volume; the file appears whole or not at all.

    Args:
        path: file to write; an existing one is replaced.
        kspace: ``(slice, coil, y, x)`` complex64.
        target: ``(slice, Y, X)`` float32 root-sum-of-squares.
        acquisition: fastMRI's name of the sequence.
        patient_id: the subject.
        recon_size: ``(Y, X)``.
        padding: first acquired phase-encode column and the one after the last.
        mask: ``(x,)`` sampled columns, for files of a test set.
        pixel_mm: edge length of a pixel.
        simulation: how the data were simulated, kept as an attribute of that name.
        lesions: ``(slice, Y, X)`` uint8 on the target's pixels: 0, or a lesion's number. Readers of
            fastMRI files pass over it.

    Raises:
        InputError: when shapes or types do not fit together.
    """
    _check(kspace, target, recon_size, padding)
    if lesions is not None and (lesions.shape != target.shape or lesions.dtype != np.uint8):
        raise InputError(
            f"lesions must be uint8 (slice, Y, X) = {target.shape}, got "
            f"{lesions.dtype} {lesions.shape}; label the target's pixels"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w", libver="latest") as file:
            header = ismrmrd_header(kspace.shape, recon_size, padding, pixel_mm)
            _dataset(file, "ismrmrd_header", np.bytes_(header))
            _dataset(file, "kspace", kspace)
            if mask is not None:
                _dataset(file, "mask", mask)
            _dataset(file, "reconstruction_rss", target)
            if lesions is not None:
                file.create_dataset("lesions", data=lesions, track_times=False, compression="gzip")
            file.attrs["acquisition"] = acquisition
            file.attrs["max"] = float(target.max())
            file.attrs["norm"] = float(np.linalg.norm(target))
            file.attrs["patient_id"] = patient_id
            if simulation is not None:
                file.attrs["simulation"] = simulation
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _dataset(file: h5py.File, name: str, data: np.ndarray | np.bytes_) -> None:
    """Store without time stamps, so that equal data give equal files."""
    file.create_dataset(name, data=data, track_times=False)


def _check(
    kspace: np.ndarray, target: np.ndarray, recon_size: tuple[int, int], padding: tuple[int, int]
) -> None:
    if kspace.ndim != 4 or kspace.dtype != np.complex64:
        raise InputError(
            "kspace must be complex64 (slice, coil, y, x), got "
            f"{kspace.dtype} {kspace.shape}; convert it first"
        )
    wanted = (kspace.shape[0], *recon_size)
    if target.shape != wanted or target.dtype != np.float32:
        raise InputError(
            f"target must be float32 (slice, Y, X) = {wanted}, got "
            f"{target.dtype} {target.shape}; crop it to the recon size"
        )
    if not 0 <= padding[0] < padding[1] <= kspace.shape[-1]:
        raise InputError(
            f"padding must be 0 <= left < right <= {kspace.shape[-1]} columns, got {padding}; "
            "give the first acquired column and the one after the last"
        )
