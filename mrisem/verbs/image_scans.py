"""`mrisem simulate source=...`: multi-coil scans from magnitude images, in fastMRI's file format.

Anatomy and contrast are real; phase, coils and noise are simulated. The attribute ``simulation`` of
each file says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from mrisem.data.cuts import Cut, affine_of_slices, choose_plane, choose_slices, cut_slice
from mrisem.data.images import Image, find_images, load
from mrisem.data.volumes import FROM_IMAGES
from mrisem.errors import InputError
from mrisem.physics.masks import stable_seed
from mrisem.progress import track
from mrisem.verbs.scans import (
    ScanFile,
    Slices,
    check_space,
    encoded_shape,
    facts_of,
    is_simulated,
    write_scan,
)

# Acquisitions that images of an anatomy may count as; the first one is the default.
_ACQUISITIONS = {
    "brain": ("AXT1", "AXT1PRE", "AXT1POST", "AXT2", "AXFLAIR"),
    "knee": ("CORPD_FBK", "CORPDFS_FBK"),
}
# Options that determine the content of a file.
_DECIDES = ("seed", "size", "n_slices", "n_coils", "snr_factor")
_CUTS = ("source_plane", "source_slice_step", "source_center")


def run(config: DictConfig) -> int:
    """Write ``output_dir/{source_anatomy}/multicoil_{train,val}/*.h5``, a file for each image.

    Raises:
        InputError: when there is no image, one is bad, or the acquisition has another anatomy.
    """
    images = find_images(Path(config.source))
    acquisition = _acquisition(config)
    files = [
        _file(image, split, acquisition, config)
        for image, split in zip(images, _splits(images, config.source_train), strict=True)
    ]
    planned = list(zip(images, files, strict=True))
    # the check comes first: it also refuses to replace files of other programs
    todo = [
        (image, file)
        for image, file in planned
        if not (is_simulated(file, config.skip_existing) and config.skip_existing)
    ]
    check_space(len(todo), config, "n_slices, n_coils")
    for image, file in track(todo, "simulate", unit="files"):
        _write(image, file, config)
    subjects = {image.subject for image in images}
    print(
        f"{len(todo)} files written, {len(planned) - len(todo)} kept in {config.output_dir}; "
        f"{FROM_IMAGES} of {len(subjects)} subjects"
    )
    return 0


def _acquisition(config: DictConfig) -> str:
    """Return the acquisition that the images count as."""
    acquisitions = _ACQUISITIONS[config.source_anatomy]
    acquisition: str = config.source_acquisition or acquisitions[0]
    if acquisition not in acquisitions:
        raise InputError(
            f"source_acquisition must be one of {', '.join(acquisitions)} for "
            f"{config.source_anatomy}, got {acquisition}; set one of them, or source_anatomy"
        )
    return acquisition


def _splits(images: list[Image], n_train: int) -> list[str]:
    """Return the split of each image: the first ``n_train`` subjects, by path, are for training."""
    subjects = list(dict.fromkeys(image.subject for image in images))
    return ["train" if image.subject in subjects[:n_train] else "val" for image in images]


def _file(image: Image, split: str, acquisition: str, config: DictConfig) -> ScanFile:
    """Return the file of an image's scan."""
    anatomy = config.source_anatomy
    folder = Path(config.output_dir) / anatomy / f"multicoil_{split}"
    facts = facts_of(config, *_DECIDES, *_CUTS)
    simulation = f"{FROM_IMAGES}: {image.source} content={image.digest[:12]} {facts}"
    path = folder / f"file_{anatomy}_{acquisition}_{image.label}.h5"
    return ScanFile(path, acquisition, image.subject, simulation)


def _write(image: Image, file: ScanFile, config: DictConfig) -> None:
    """Simulate the acquisition of an image and write it."""
    # seeded by the image's content: its place and name do not change the scan
    seed = stable_seed("image", image.digest, file.acquisition, config.seed)
    generator = torch.Generator().manual_seed(seed)
    write_scan(file, _slices(image, config), config, generator)


def _slices(image: Image, config: DictConfig) -> Slices:
    """Cut the slices and put them into the encoded field of view, scaled to a maximum of 1."""
    voxels, size = load(image), config.size
    plane, step, center = (config[name] for name in _CUTS)
    cut = Cut(size, plane, step, center, config.n_slices)
    plane = choose_plane(voxels, cut)
    indices = choose_slices(voxels, cut, str(image.paths[0]))
    cuts = [cut_slice(voxels, plane, index, size) for index in indices]
    pixels = np.stack([pixels for pixels, _ in cuts])
    shape = encoded_shape(size)
    # fastMRI's central crop gives the slice back; outside of it is air
    top, left = shape[0] // 2 - size // 2, shape[1] // 2 - size // 2
    encoded = torch.zeros(len(cuts), *shape)
    encoded[:, top : top + size, left : left + size] = torch.from_numpy(pixels / pixels.max())
    return Slices(encoded, cuts[0][1], affine_of_slices(voxels, plane, indices, size))
