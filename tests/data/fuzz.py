"""Make damaged and odd files from small valid ones, and read each: a child of `test_fuzz`.

usage: fuzz.py SEED FIRST LAST FOLDER; prints a line for each file: number, kind, outcome.
The same seed and number always make the same file.
"""

import io
import re
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import torch
from h5py import h5l

from mrisem.data.auxiliary import AuxiliarySettings, AuxiliarySlices
from mrisem.data.dataset import SliceGroups, central_slices
from mrisem.data.folders import find_volumes
from mrisem.data.writer import ismrmrd_header
from mrisem.errors import InputError
from mrisem.physics.fourier import fft2c
from mrisem.physics.masks import FileMask, GaussianMask
from mrisem.types import Batch

SHAPE, CROP, PADDING = (2, 2, 24, 20), (16, 16), (0, 20)
NUMBERS = [0, -1, 1, np.nan, np.inf, -np.inf, 1e300, 1e-300, 3e38, 2**31, 7]
TYPES = ["c8", "c16", "f2", "f4", "f8", "i1", "u8", "S3", "?", ">c8", "c32"]


def valid_file(libver="earliest", **options):
    """Bytes of a small valid file."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:24j, -1:1:20j]
    disc = (x**2 + y**2 < 0.7) * (1 + 0.5 * np.cos(7 * x))
    coils = np.stack([np.exp(x + 1j * y), np.exp(-x - 0.5j * y)])
    images = disc * coils * np.arange(1, 3)[:, None, None, None]
    images = images + 0.01 * rng.standard_normal(SHAPE)
    kspace = fft2c(torch.from_numpy(images.astype(np.complex64))).numpy()
    target = np.sqrt((np.abs(images) ** 2).sum(1))[:, 4:20, 2:18].astype(np.float32)
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver=libver) as file:
        file.create_dataset("kspace", data=kspace, **options)
        file.create_dataset("reconstruction_rss", data=target, **options)
        file["ismrmrd_header"] = ismrmrd_header(SHAPE, CROP, PADDING)
        file["mask"] = np.ones(20, np.float32)
        file.attrs["acquisition"], file.attrs["patient_id"] = "AXT2", "somebody"
    return stream.getvalue()


BASES = [
    valid_file(),
    valid_file("latest"),
    valid_file(chunks=True, compression="gzip"),
    valid_file("latest", chunks=True, shuffle=True, fletcher32=True),
]


def damaged(rng, folder):
    """A valid file with some bytes changed."""
    data = bytearray(BASES[rng.integers(len(BASES))])
    end = len(data) if rng.random() < 0.3 else min(len(data), 4096)  # where HDF5's facts mostly are
    start = int(rng.integers(end))
    kind = rng.choice(["flip", "cut", "zero", "copy", "grow", "ones"])
    length = int(rng.choice([1, 2, 4, 8, 64, 512]))
    if kind == "flip":
        for place in rng.integers(end, size=length):
            data[place] ^= int(rng.integers(1, 256))
    elif kind == "cut":
        del data[int(rng.integers(len(data))) :]
    elif kind in ("zero", "ones"):
        data[start : start + length] = (b"\xff" if kind == "ones" else b"\0") * length
    elif kind == "copy":
        source = int(rng.integers(len(data) - length))
        data[start : start + length] = data[source : source + length]
    else:
        data[start:start] = rng.bytes(length)
    (folder / "a.h5").write_bytes(data)
    return f"bytes-{kind}"


def odd(rng, folder):
    """A whole file with something in it that does not belong there."""
    path = folder / "a.h5"
    path.write_bytes(BASES[0])
    change = CHANGES[rng.integers(len(CHANGES))]
    with h5py.File(path, "a") as file:
        change(rng, file)
        if rng.random() < 0.3:
            CHANGES[rng.integers(len(CHANGES))](rng, file)
    return change.__name__


def drop(file, name):
    """Remove a link without following it."""
    if file.id.links.exists(name.encode()):
        del file[name]


def put(file, name, values):
    drop(file, name)
    file[name] = values


def pick_name(rng):
    return str(rng.choice(["kspace", "reconstruction_rss", "mask", "ismrmrd_header"]))


def spoil_values(rng, file):
    name = str(rng.choice(["kspace", "reconstruction_rss", "mask"]))
    links = file.id.links
    if not links.exists(name.encode()) or links.get_info(name.encode()).type != h5l.TYPE_HARD:
        return
    item = file[name]
    plain = isinstance(item, h5py.Dataset) and item.dtype.kind in "cf" and not item.is_virtual
    if plain and 0 < item.size < 10**6:
        values = item[()].reshape(-1)
        with np.errstate(all="ignore"):
            number = np.array(rng.choice(NUMBERS)).astype(values.dtype)
        values[rng.integers(values.size, size=rng.choice([1, 5, values.size]))] = number
        if rng.random() < 0.3:
            values[:] = number
        item[...] = values.reshape(item.shape)


def change_type(rng, file):
    name, dtype = pick_name(rng), np.dtype(str(rng.choice(TYPES)))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape = SHAPE if name == "kspace" else (2, *CROP)
        values = rng.standard_normal(shape) * rng.choice([1, 1e30, 1e-30])
        put(file, name, values.astype(dtype))


def change_shape(rng, file):
    shape = tuple(int(n) for n in rng.choice([0, 1, 2, 3, 16, 20, 24, 25], size=rng.integers(6)))
    name = pick_name(rng)
    put(file, name, np.ones(shape, np.complex64 if name == "kspace" else np.float32))


def declare_huge(rng, file):
    name = pick_name(rng)
    drop(file, name)
    shape = tuple(int(n) for n in rng.choice([1, 2, 20, 24, 10**3, 10**5, 2**40], size=4))
    if np.prod([float(n) for n in shape]) < 2**60:
        chunks = tuple(min(n, 4) for n in shape)
        file.create_dataset(name, shape, np.complex64, chunks=chunks)


def change_header(rng, file):
    text = ismrmrd_header(SHAPE, CROP, PADDING)
    tags = re.findall(r"<(\w+)>", text)
    tag = str(rng.choice(tags))
    value = str(rng.choice(["", "abc", "-1", "1e9", "nan", "0", "7", "<x>", "&a;", "2.5", "٣"]))
    if rng.random() < 0.3:
        value, tag = (
            "",
            str(rng.choice(["encodingLimits", "encoding", "reconSpace", "encodedSpace"])),
        )
    text = re.sub(rf"(<{tag}>).*?(</{tag}>)", rf"\g<1>{value}\g<2>", text, flags=re.DOTALL)
    put(file, "ismrmrd_header", text if rng.random() < 0.8 else text.encode()[: rng.integers(900)])


def change_attributes(rng, file):
    values = ["", "AXT1", b"\xff\xfe", 3, np.arange(3), "a\nb", h5py.Empty("f4"), 1e300, "x" * 9999]
    for name in ("acquisition", "patient_id", "max"):
        file.attrs[name] = values[rng.integers(len(values))]


def link_elsewhere(rng, file):
    name = pick_name(rng)
    drop(file, name)
    targets = ["/dev/zero", "/etc/passwd", "a.h5", "missing.h5", "."]
    where = str(rng.choice(targets))
    if rng.random() < 0.5:
        file[name] = h5py.ExternalLink(where, str(rng.choice(["/", "/kspace", name])))
    else:
        file[name] = h5py.SoftLink(str(rng.choice([name, "/kspace", "/", "..", "a/b", "/mask/x"])))


def make_virtual(rng, file):
    drop(file, "kspace")
    source = str(rng.choice(["/etc/passwd", "/dev/zero", ".", "a.h5", "../a.h5", "b.h5"]))
    layout = h5py.VirtualLayout(SHAPE, np.complex64)
    name = str(rng.choice(["kspace", "mask", "other"]))
    layout[:] = h5py.VirtualSource(source, name, shape=SHAPE)
    file.create_virtual_dataset("kspace", layout)


def make_groups(rng, file):
    name = pick_name(rng)
    drop(file, name)
    file.create_group(name)


CHANGES = [
    spoil_values,
    change_type,
    change_shape,
    declare_huge,
    change_header,
    change_attributes,
    link_elsewhere,
    make_virtual,
    make_groups,
]


def check_line(message):
    assert message, "a message must say something"
    assert len(message.splitlines()) == 1, f"more than one line: {message!r}"


def check_batch(batch):
    for name in ("masked_kspace", "sensitivity_maps", "scale", "coarse_maps", "target"):
        values = getattr(batch, name)
        assert values is None or torch.isfinite(values.abs()).all(), f"{name} is not finite"
    assert (batch.scale > 0).all()
    assert batch.mask.flatten(1).any(1).all()
    assert batch.target is None or batch.target.shape[1:] == batch.crop


def read(root):
    """Read a data root through every entry; return what came of it."""
    outcomes = set()
    try:
        volumes, failed = find_volumes(root, "val", "skip")
        for mask in (GaussianMask(2, 8), FileMask()):
            options = {"on_error": "skip", "failed": failed}
            groups = SliceGroups(central_slices(volumes, 3), mask, **options)
            for index in range(len(groups)):
                item = groups[index]
                scans = item.failed if isinstance(item, Batch) else (item,)
                outcomes.add("batch" if isinstance(item, Batch) else "failed")
                if isinstance(item, Batch):
                    check_batch(item)
                for scan in scans:
                    check_line(scan.message)
        if volumes:
            _ = volumes[0].content
            settings = AuxiliarySettings(calibration_lines=8, max_slices=3)
            images = AuxiliarySlices(volumes, settings, on_error="skip")
            images.describe()
            for positive, negative, _ in images:
                assert torch.isfinite(positive).all(), "a positive is not finite"
                assert torch.isfinite(negative).all(), "a negative is not finite"
    except InputError as error:
        check_line(str(error))
        outcomes.add("refused")
    return "+".join(sorted(outcomes))


def main(seed, first, last, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    split = folder / "multicoil_val"
    split.mkdir(parents=True, exist_ok=True)
    for number in range(first, last):
        rng = np.random.default_rng([seed, number])
        kind = (damaged if number % 2 else odd)(rng, split)
        print(number, kind, end=" ", flush=True)
        print(read(folder), flush=True)


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:4]), Path(sys.argv[4]))
