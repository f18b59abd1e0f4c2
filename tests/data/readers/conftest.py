"""One simulated scan, written in each format by that format's own library or by its description."""

import h5py
import ismrmrd
import numpy as np
import pytest
import scipy.io


def read(path):
    """Arrays, header and padding of a file in fastMRI's layout."""
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file} | {"patient_id": file.attrs["patient_id"]}


def write_cfl(path, kspace):
    """BART's pair: (readout, phase encode, 1, coil, 9 times 1, slice), Fortran order."""
    array = kspace.transpose(2, 3, 1, 0)
    shape = (*array.shape[:2], 1, array.shape[2], *[1] * 9, array.shape[3], 1, 1)
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, shape)) + "\n")
    with path.open("wb") as stream:
        stream.write(array.astype("<c8").tobytes(order="F"))


def readout(line, step, number=0, *, flags=(), partition=0, average=0, position=(0, 0, 0)):
    """One ISMRMRD readout of ``(coil, sample)``."""
    made = ismrmrd.Acquisition.from_array(np.ascontiguousarray(line, dtype=np.complex64))
    made.center_sample = line.shape[1] // 2
    made.idx.kspace_encode_step_1, made.idx.kspace_encode_step_2 = step, partition
    made.idx.slice, made.idx.average = number, average
    made.position[:], made.read_dir[:] = position, (0, 1, 0)
    made.phase_dir[:], made.slice_dir[:] = (1, 0, 0), (0, 0, 1)
    for flag in flags:
        made.setFlag(flag)
    return made


def write_mrd(path, header, readouts):
    """Write an ISMRMRD file with the library's own writer."""
    with ismrmrd.Dataset(str(path), "dataset", mode="w") as file:
        file.write_xml_header(header)
        for each in readouts:
            file.append_acquisition(each)


def lines_of(kspace, padding, **options):
    """Readouts of the acquired columns of ``(slice, coil, y, x)``, step 0 at the first."""
    for number, each in enumerate(kspace):
        for step, x in enumerate(range(*padding)):
            yield readout(each[:, :, x], step, number, position=(0, 0, 5 * number), **options)


@pytest.fixture(scope="session")
def source(simulated):
    """A simulated brain's arrays."""
    return read(simulated / "brain" / "multicoil_val" / "file_brain_AXT2_5000.h5")


@pytest.fixture(scope="session")
def padding(source):
    """First acquired column and the one after the last."""
    columns = np.flatnonzero((source["kspace"] != 0).any((0, 1, 2)))
    return int(columns[0]), int(columns[-1]) + 1


@pytest.fixture(scope="session")
def write(source, padding):
    """Write the scan as a format into a folder and return the path."""
    kspace = source["kspace"]

    def write_as(kind, folder, stem="scan"):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem}.{kind.partition(' ')[0]}"
        if kind in ("h5", "mrd"):
            write_mrd(path, source["ismrmrd_header"], lines_of(kspace, padding))
        elif kind == "cfl":
            write_cfl(path, kspace)
        elif kind == "npy":
            np.save(path, kspace)
        elif kind == "npz":
            np.savez(path, kspace=kspace, target=source["reconstruction_rss"], patient_id="P")
        elif kind == "mat":
            scipy.io.savemat(path, {"kspace": kspace, "target": source["reconstruction_rss"]})
        else:  # mat 7.3: HDF5 behind a header of MATLAB, axes in reverse order
            with h5py.File(path, "w", userblock_size=512) as file:
                pairs = np.empty(kspace.T.shape, [("real", "<f4"), ("imag", "<f4")])
                pairs["real"], pairs["imag"] = kspace.T.real, kspace.T.imag
                file["kspace"], file["target"] = pairs, source["reconstruction_rss"].T
            with path.open("r+b") as stream:
                stream.write(b"MATLAB 7.3 MAT-file, made by a test".ljust(128))
        return path

    return write_as


@pytest.fixture
def converted(tmp_path):
    """Convert a file and return the arrays of fastMRI's layout."""
    from mrisem.data.readers.axes import parse_axes
    from mrisem.data.readers.conversion import Conversion
    from mrisem.data.readers.scan import ReadOptions

    def convert(path, axes=None, **options):
        told = ReadOptions(parse_axes(axes), **options)
        with h5py.File(Conversion(tmp_path / "cache", told).stored(path)) as file:
            return {name: file[name][()] for name in file} | dict(file.attrs)

    return convert
