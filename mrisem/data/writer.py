"""Writing of volumes in fastMRI's multi-coil HDF5 layout."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from mrisem.errors import InputError
from mrisem.files import whole

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
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum>\
<maximum>{maximum}</maximum><center>{center}</center></kspace_encoding_step_1></encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>
"""


def ismrmrd_header(
    kspace_shape: tuple[int, ...],
    recon_size: tuple[int, ...],
    padding: tuple[int, int],
    pixel_mm: float = 1.0,
) -> str:
    """Return an ISMRMRD header with the facts that fastMRI's readers use.

    They read ``padding_left = width // 2 - center`` and ``padding_right = padding_left + maximum
    + 1``.

    Args:
        kspace_shape: ``(slice, coil, y, x)``.
        recon_size: ``(Y, X)``, the target's size.
        padding: first acquired column and the column after the last.
        pixel_mm: edge length of a pixel, mm.

    >>> "<center>88</center>" in ismrmrd_header((1, 8, 384, 208), (192, 192), (16, 192))
    True
    """
    _, coils, readout, width = kspace_shape
    (rows, columns), (left, right) = recon_size, padding
    # ISMRMRD's x is the readout (y of this package), its y the phase-encode axis (x)
    return _HEADER.format(
        coils=coils,
        readout=readout,
        width=width,
        readout_mm=readout * pixel_mm,
        width_mm=width * pixel_mm,
        rows=rows,
        columns=columns,
        rows_mm=rows * pixel_mm,
        columns_mm=columns * pixel_mm,
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
    padding: tuple[int, int],
    pixel_mm: float = 1.0,
    simulation: str | None = None,
    lesions: np.ndarray | None = None,
    affine: np.ndarray | None = None,
) -> None:
    """Write one volume; the file appears complete or not at all.

    Args:
        path: file to write; an existing file is replaced.
        kspace: ``(slice, coil, y, x)`` complex64.
        target: ``(slice, Y, X)`` float32 root-sum-of-squares; its size is the header's reconSpace.
        acquisition: fastMRI's name of the sequence.
        patient_id: name of the subject.
        padding: first acquired phase-encode column and the column after the last.
        pixel_mm: edge length of a pixel, mm.
        simulation: text on how the data were simulated, for the attribute ``simulation``.
        lesions: ``(slice, Y, X)`` uint8 on the target's pixels: number of a lesion, or 0. Other
            readers of fastMRI files ignore it.
        affine: ``(4, 4)`` float64 that maps (column, row, slice) of the target to mm (RAS+).

    Raises:
        InputError: when shapes or types do not fit together.
    """
    _check_array("kspace", kspace, "complex64", ("slice", "coil", "y", "x"))
    _check_array("target", target, "float32", (len(kspace), "Y", "X"))
    if lesions is not None:
        _check_array("lesions", lesions, "uint8", target.shape)
    if affine is not None:
        _check_array("affine", affine, "float64", (4, 4))
    if not 0 <= padding[0] < padding[1] <= kspace.shape[-1]:
        raise InputError(
            f"padding must be 0 <= left < right <= {kspace.shape[-1]} columns, got {padding}; "
            "give the first acquired column and the one after the last"
        )
    with whole(Path(path)) as partial, h5py.File(partial, "w", libver="latest") as file:
        # no time stamps: equal data give equal files, byte for byte
        header = ismrmrd_header(kspace.shape, target.shape[1:], padding, pixel_mm)
        file.create_dataset("ismrmrd_header", data=np.bytes_(header), track_times=False)
        file.create_dataset("kspace", data=kspace, track_times=False)
        file.create_dataset("reconstruction_rss", data=target, track_times=False)
        if lesions is not None:
            file.create_dataset("lesions", data=lesions, track_times=False, compression="gzip")
        file.attrs["acquisition"] = acquisition
        file.attrs["max"] = float(target.max())
        file.attrs["norm"] = float(np.linalg.norm(target))
        file.attrs["patient_id"] = patient_id
        if simulation is not None:
            file.attrs["simulation"] = simulation
        if affine is not None:
            file.attrs["affine"] = affine


def _check_array(name: str, array: np.ndarray, dtype: str, shape: tuple[int | str, ...]) -> None:
    """Raise InputError unless an array has type and shape; words in ``shape`` are any length."""
    lengths = zip(array.shape, shape, strict=False)
    fits = len(array.shape) == len(shape) and all(b in (a, str(b)) for a, b in lengths)
    if array.dtype != dtype or not fits:
        text = ", ".join(map(str, shape))
        raise InputError(
            f"{name} must be {dtype} ({text}), got {array.dtype} {array.shape}; convert it"
        )
