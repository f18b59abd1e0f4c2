"""Reading of scanners' raw data in ISMRMRD files: readouts are sorted into Cartesian k-space."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from mrisem.data.contents import dataset, open_scan
from mrisem.data.readers.arrays import begins
from mrisem.data.readers.axes import partitions_to_slices
from mrisem.data.readers.mrd_header import MrdHeader, affine_of, parse_header
from mrisem.data.readers.scan import ReadOptions, Scan, check_size
from mrisem.errors import InputError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_BLOCK = 512  # readouts read at once
_SINGLE = ("contrast", "phase", "repetition", "set")  # counters that may have one value only
# Readouts that adjust the scanner or correct others: they belong to no image.
_UNUSED = (
    *("IS_NAVIGATION_DATA", "IS_PHASECORR_DATA", "IS_HPFEEDBACK_DATA", "IS_DUMMYSCAN_DATA"),
    *("IS_RTFEEDBACK_DATA", "IS_SURFACECOILCORRECTIONSCAN_DATA"),
    *("IS_PHASE_STABILIZATION_REFERENCE", "IS_PHASE_STABILIZATION"),
)


def _flags(*names: str) -> int:
    """Return the bits of ISMRMRD's flags with these names."""
    import ismrmrd

    return sum(1 << (getattr(ismrmrd, f"ACQ_{name}") - 1) for name in names)


class MrdReader:
    """Reader of Cartesian 2-D multi-slice and 3-D acquisitions in HDF5.

    Encoding counters give the column and partition of a readout, shifted so that the centre of the
    header's encoding limits lies at ``n // 2``. Its ``center_sample`` lies at row ``n // 2``.
    Reversed readouts are flipped, and readouts of the same position are averaged. Partitions of a
    3-D scan are transformed to slices.
    """

    suffixes = (".h5", ".hdf5", ".mrd")

    def accepts(self, path: Path) -> bool:
        """Return whether the file ends in ``.mrd``, or is HDF5 with a dataset of readouts."""
        if path.suffix.lower() == ".mrd":  # no other reader reads them: `read` says what is wrong
            return True
        if not begins(path, _HDF5):
            return False
        with open_scan(path) as file:
            return dataset(file, "dataset/data") is not None

    def files(self, path: Path) -> Sequence[Path]:
        """Return the file itself."""
        return [path]

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """Sort the readouts into k-space."""
        if options.axes is not None:
            raise InputError(
                f"data.axes has no effect on ISMRMRD, which names its axes, got "
                f"{','.join(options.axes)} for {path}; leave it out"
            )
        with open_scan(path) as file:
            readouts, text = dataset(file, "dataset/data"), dataset(file, "dataset/xml")
            if readouts is None or text is None or text.size != 1:
                raise InputError(
                    f"an ISMRMRD file must hold dataset/xml and dataset/data as HDF5, got {path}; "
                    "convert a stream of MRD version 2 to HDF5"
                )
            header = parse_header(text[()].reshape(-1)[0], path)
            heads = readouts.fields("head")[()].reshape(-1)
            imaging, noise = _choose(heads, path)
            scan = _sort(readouts, heads, imaging, header, path)
            if noise.size:
                parts = [_samples(readouts[int(n)], heads[int(n)], path) for n in noise]
                scan = replace(scan, noise=np.concatenate(parts, axis=1))
        return scan


def _choose(heads: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the readouts of the image, and of the noise scan."""
    is_noise = heads["flags"] & _flags("IS_NOISE_MEASUREMENT") != 0
    left_out = (heads["flags"] & _flags(*_UNUSED) != 0) & ~is_noise
    if left_out.any():
        warnings.warn(
            f"{path.name}: {int(left_out.sum())} readouts of navigators, phase correction or other "
            "adjustments are left out: the image is not corrected by them",
            stacklevel=2,
        )
    imaging = np.flatnonzero(~is_noise & ~left_out)
    if not imaging.size:
        raise InputError(
            f"an ISMRMRD file must hold readouts of an image, got none in {path}; convert the raw "
            "data again"
        )
    _check_single(heads[imaging], path)
    return imaging, np.flatnonzero(is_noise)


def _check_single(heads: np.ndarray, path: Path) -> None:
    """Raise InputError if the readouts belong to several images."""
    for name in _SINGLE:
        if (values := np.unique(heads["idx"][name])).size > 1:
            raise InputError(
                f"an ISMRMRD file must hold one {name}, got {values.size} in {path}; split it into "
                f"one file for each {name}"
            )
    for name in ("active_channels", "number_of_samples", "encoding_space_ref"):
        values = np.unique(heads[name])
        # only the first encoding of the header is read
        if values.size > 1 or (name == "encoding_space_ref" and values[0] != 0):
            raise InputError(
                f"readouts of an image must have one {name} (encoding space 0), got "
                f"{values.tolist()[:5]} in {path}; split the file"
            )


def _samples(item: np.void, head: np.void, path: Path) -> np.ndarray:
    """Return the samples ``(coil, sample)`` complex64 of one readout."""
    coils, n = int(head["active_channels"]), int(head["number_of_samples"])
    values = np.asarray(item["data"], dtype=np.float32)
    if values.size != 2 * coils * n or not values.size:
        raise InputError(
            f"a readout must hold channels x samples complex numbers, {coils} x {n}, got "
            f"{values.size} floats in {path}; convert the raw data again"
        )
    return values.view(np.complex64).reshape(coils, n)


def _sort(
    readouts: h5py.Dataset, heads: np.ndarray, imaging: np.ndarray, header: MrdHeader, path: Path
) -> Scan:
    """Sort the readouts of the image into k-space.

    Args:
        readouts: all readouts of the file.
        heads: their headers.
        imaging: indices of the readouts of the image.
        header: header of the file.
        path: the file, for messages.
    """
    rows, width, depth = header.encoded
    index = heads["idx"][imaging]
    # slice counters need not begin at 0, nor follow each other
    slices, position = np.unique(index["slice"], return_inverse=True)
    if depth > 1 and slices.size > 1:
        raise InputError(f"a 3-D scan must have one slab, got {slices.size} in {path}; split it")
    # the centre of the encoding limits is the zero frequency, which lies at n // 2
    column = index["kspace_encode_step_1"].astype(int) - header.center[0] + width // 2
    partition = index["kspace_encode_step_2"].astype(int) - header.center[1] + depth // 2
    for name, values, n in (("1", column, width), ("2", partition, depth)):
        if values.min() < 0 or values.max() >= n:
            raise InputError(
                f"kspace_encode_step_{name} must lie within the encoded matrix of {n}, got steps "
                f"at {values.min()} to {values.max()} in {path}; correct the encoding limits"
            )
    kspace, n_readouts = _average(
        *(readouts, heads, imaging, np.stack([position, partition, column], axis=1)),
        *((slices.size, depth, rows, width), path),
    )
    mask = _acquired_columns(n_readouts, header, path)
    kspace = partitions_to_slices(kspace[0]) if depth > 1 else kspace[:, 0]
    affine = affine_of(heads[imaging], slices, header)
    return Scan(
        kspace, mask, header=header.text, patient_id=header.patient_id, matrix_affine=affine
    )


def _average(
    readouts: h5py.Dataset,
    heads: np.ndarray,
    imaging: np.ndarray,
    places: np.ndarray,
    size: tuple[int, int, int, int],
    path: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Average the readouts of each position.

    Args:
        readouts: all readouts of the file.
        heads: their headers.
        imaging: indices of the readouts of the image.
        places: ``(readout, 3)`` int, indices of slice, partition and column of each of those.
        size: numbers of slices, partitions, rows and columns.
        path: the file, for messages.

    Returns:
        k-space ``(slice, partition, coil, y, x)`` complex64, zero without readouts, and number of
        readouts ``(slice, partition, x)``.
    """
    n_slices, depth, rows, width = size
    shape = n_slices, depth, int(heads["active_channels"][imaging[0]]), rows, width
    check_size(shape, path)
    kspace = np.zeros(shape, dtype=np.complex64)
    n_readouts = np.zeros((n_slices, depth, width), dtype=np.int64)
    # one access to the file for each block: single readouts would take minutes
    for start in range(0, imaging.size, _BLOCK):
        indices = imaging[start : start + _BLOCK]
        for k, item in enumerate(readouts[indices], start):
            head = heads[indices[k - start]]
            first, line = _aligned(_samples(item, head, path), head, rows, path)
            position, partition, column = places[k]
            kspace[position, partition, :, first : first + line.shape[1], column] += line
            n_readouts[position, partition, column] += 1
    kspace /= np.maximum(n_readouts, 1)[:, :, None, None].astype(np.float32)
    return kspace, n_readouts


def _aligned(line: np.ndarray, head: np.void, rows: int, path: Path) -> tuple[int, np.ndarray]:
    """Return the row of the first sample, and the samples ``(coil, n)`` in forward order.

    Args:
        line: ``(coil, n)`` complex64, samples in the order of their acquisition.
        head: header of the readout, which states discarded samples at both ends.
        rows: number of rows of the matrix.
        path: the file, for messages.
    """
    n, before, after = line.shape[1], int(head["discard_pre"]), int(head["discard_post"])
    kept = line[:, before : n - after]
    if head["flags"] & _flags("IS_REVERSE"):
        # center_sample counts along the forward readout, so the discarded ends change sides
        kept, before = line[:, ::-1][:, after : n - before], after
    first = rows // 2 - int(head["center_sample"]) + before
    if first < 0 or first + kept.shape[1] > rows or not kept.shape[1]:
        raise InputError(
            f"a readout must fit into the encoded matrix of {rows} samples with center_sample in "
            f"its middle, got samples at {first} to {first + kept.shape[1]} in {path}; correct the "
            "header, or convert the raw data again"
        )
    return first, kept


def _acquired_columns(n_readouts: np.ndarray, header: MrdHeader, path: Path) -> np.ndarray | None:
    """Return the acquired columns ``(x,)`` bool; None: all within the encoding limits are."""
    acquired = n_readouts > 0  # (slice, partition, x)
    columns: np.ndarray = np.any(acquired, axis=(0, 1))
    outside: np.ndarray = ~np.any(acquired, axis=(0, 2))  # partitions without any readout
    if not (acquired[:, ~outside] == columns).all():
        raise InputError(
            f"each slice and partition must have the same acquired columns, got others in {path}; "
            "reconstruct data that are undersampled along partitions with another program"
        )
    width = n_readouts.shape[2]
    # columns outside the encoding limits (partial Fourier, padding) do not count as undersampled
    first = width // 2 - header.center[0]
    inside = columns[max(0, first) : max(0, first + header.last + 1)]
    return None if inside.all() else columns
