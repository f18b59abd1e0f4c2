"""Write what commands of the pages take beside simulated scans: `commands_data.py DATA CLONE`."""

import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np


def write_arrays(scan, folder):
    """Write one slice as an array with the axes x, y, coil."""
    folder.mkdir(parents=True)
    with h5py.File(scan) as file:
        np.save(folder / "array.npy", file["kspace"][0].transpose(2, 1, 0))


def write_undersampled(scan, path, mask):
    """Write a scan without the columns that were not sampled; return nothing."""
    path.parent.mkdir(parents=True)
    path.write_bytes(scan.read_bytes())
    with h5py.File(path, "r+") as file:
        file["kspace"][...] *= mask
        file["mask"] = mask


def write_heads(folder, n_images=5):
    """Write invented heads as NIfTI."""
    grid = np.stack(np.meshgrid(*3 * [np.linspace(-1, 1, 56)], indexing="ij"))
    folder.mkdir()
    for number in range(n_images):
        size = np.array([0.6, 0.7 + 0.02 * number, 0.65]).reshape(3, 1, 1, 1)
        head = 400 * np.exp(-((np.square(grid / size).sum(0)) ** 2))
        image = nibabel.Nifti1Image(head.astype(np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
        nibabel.save(image, folder / f"head_{number}.nii.gz")


def main(data, clone):
    """Write arrays, an undersampled scan, a mask of points, images."""
    scan = next((data / "brain" / "multicoil_val").glob("*AXT2*.h5"))
    with h5py.File(scan) as file:
        n_rows, n_columns = file["kspace"].shape[-2:]
    columns = np.abs(np.arange(n_columns) - n_columns // 2) < n_columns // 8
    columns |= np.arange(n_columns) % 3 == 0
    write_arrays(scan, data / "arrays" / "multicoil_val")
    write_undersampled(scan, data / "undersampled" / "multicoil_val" / scan.name, columns)
    points = np.random.default_rng(0).random((n_rows, n_columns)) < 0.4
    points[tuple(slice(n // 2 - 12, n // 2 + 12) for n in points.shape)] = True  # calibration
    np.save(clone / "points.npy", points)
    write_heads(data / "images")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
