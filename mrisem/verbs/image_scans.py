"""`mrisem simulate source=...`: multi-coil scans of magnitude images, in the fastMRI file format.

Real are the anatomy and the contrast; phase, coils and noise are simulated. Each file says so in
its attribute ``simulation``.
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
    is_there,
    write_scan,
)

# The first is what an image of the anatomy counts as where nothing else is said.
_ACQUISITIONS = {
    "brain": ("AXT1", "AXT1PRE", "AXT1POST", "AXT2", "AXFLAIR"),
    "knee": ("CORPD_FBK", "CORPDFS_FBK"),
}
_DECIDES = ("seed", "size", "n_slices", "n_coils", "snr_factor")
_CUTS = ("source_plane", "source_slice_step", "source_center")


def run(config: DictConfig) -> int:
    """Write ``output_dir/{source_anatomy}/multicoil_{train,val}/*.h5``, a file an image.

    Raises:
        InputError: when there are no images, one is bad, or the acquisition is of another anatomy.
    """
    images = find_images(Path(config.source))
    acquisition = _acquisition(config)
    files = [
        _file(image, split, acquisition, config)
        for image, split in zip(images, _splits(images, config.source_train), strict=True)
    ]
    planned = list(zip(images, files, strict=True))
    # also of files that are replaced it is asked whose they are
    todo = [
        (image, file)
        for image, file in planned
        if not (is_there(file, config.skip_existing) and config.skip_existing)
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
    known = _ACQUISITIONS[config.source_anatomy]
    acquisition: str = config.source_acquisition or known[0]
    if acquisition not in known:
        raise InputError(
            f"source_acquisition must be one of {', '.join(known)} for {config.source_anatomy}, "
            f"got {acquisition}; set it and source_anatomy alike"
        )
    return acquisition


def _splits(images: list[Image], n_train: int) -> list[str]:
    """Split of each image: the first ``n_train`` subjects, by path, are for training and banks."""
    subjects = list(dict.fromkeys(image.subject for image in images))
    return ["train" if image.subject in subjects[:n_train] else "val" for image in images]


def _file(image: Image, split: str, acquisition: str, config: DictConfig) -> ScanFile:
    anatomy = config.source_anatomy
    folder = Path(config.output_dir) / anatomy / f"multicoil_{split}"
    facts = facts_of(config, *_DECIDES, *_CUTS)
    simulation = f"{FROM_IMAGES}: {image.source} content={image.digest[:12]} {facts}"
    path = folder / f"file_{anatomy}_{acquisition}_{image.label}.h5"
    return ScanFile(path, acquisition, image.subject, simulation)


def _write(image: Image, file: ScanFile, config: DictConfig) -> None:
    """Simulate the acquisition of an image; the draws depend on its content and the seed only."""
    seed = stable_seed("image", image.digest, file.acquisition, config.seed)
    generator = torch.Generator().manual_seed(seed)
    write_scan(file, _slices(image, config), config, generator)


def _slices(image: Image, config: DictConfig) -> Slices:
    """Cut the slices, on the encoded field of view, with a maximum of 1; around them is air."""
    voxels, size = load(image), config.size
    plane, step, center = (config[name] for name in _CUTS)
    cut = Cut(size, plane, step, center, config.n_slices)
    plane = choose_plane(voxels, cut)
    indices = choose_slices(voxels, cut, str(image.paths[0]))
    made = [cut_slice(voxels, plane, index, size) for index in indices]
    pixels = np.stack([pixels for pixels, _ in made])
    shape = encoded_shape(size)
    top, left = shape[0] // 2 - size // 2, shape[1] // 2 - size // 2  # as fastMRI's crop
    encoded = torch.zeros(len(made), *shape)
    encoded[:, top : top + size, left : left + size] = torch.from_numpy(pixels / pixels.max())
    return Slices(encoded, made[0][1], affine_of_slices(voxels, plane, indices, size))
