"""Compare the texture of simulated tissue with that of real images.

python experiments/anatomy_texture/measure.py IMAGES [IMAGES ...]

IMAGES are folders or files of magnitude images (docs/images.md). Writes ``texture.json`` and
``texture.webp`` beside this file: numbers alone, no image of a person.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pywt
from matplotlib import pyplot as plt
from scipy import ndimage

from mrisem.data.cuts import Cut, choose_plane, choose_slices, cut_slice
from mrisem.data.images import find_images, load

HERE = Path(__file__).parent
SIZE, N_SUBJECTS = 192, 4
SEED = 900  # of subjects that nothing else uses
Pictures = dict[str, list[np.ndarray]]  # name to (y, x) magnitudes


def simulated(texture: bool) -> Pictures:
    """Central slices of simulated subjects, each contrast a set; smooth tissue as the control."""
    pictures: Pictures = {}
    name = "simulated" if texture else "smooth"
    for anatomy in ("brain", "knee"):
        make = import_module(f"mrisem.anatomy.{anatomy}").Subject
        subjects = [make(SEED + number, SIZE) for number in range(N_SUBJECTS)]
        for subject in () if texture else subjects:
            subject.tissues = {k: replace(t, texture=0.0) for k, t in subject.tissues.items()}
        for acquisition in make.acquisitions:
            slices = [s.images(acquisition, (-0.3, 0.0, 0.3)).numpy() for s in subjects]
            pictures[f"{name} {acquisition}"] = [*np.concatenate(slices)]
    return pictures


def real(roots: Iterable[Path]) -> Pictures:
    """Slices of real images, each image a set, resampled to the same number of pixels."""
    pictures: Pictures = {}
    for image in [image for root in roots for image in find_images(root)]:
        voxels = load(image)
        cut = Cut(size=SIZE, n_slices=6)
        plane, slices = choose_plane(voxels, cut), choose_slices(voxels, cut, image.source)
        pictures[f"real {image.label}"] = [cut_slice(voxels, plane, i, SIZE)[0] for i in slices]
    return pictures


def spectrum(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radial mean of the power over frequency, in cycles a pixel, as a share of the whole."""
    n = len(image)
    power = np.abs(np.fft.fftshift(np.fft.fft2(image))) ** 2
    radius = np.hypot(*(np.mgrid[:n, :n] - n // 2))
    edges = np.geomspace(4, n / 2, 17)
    rings = [power[(radius >= a) & (radius < b)].mean() for a, b in itertools.pairwise(edges)]
    return np.sqrt(edges[1:] * edges[:-1]) / n, np.array(rings) / power.sum()


def facts(image: np.ndarray) -> dict[str, float]:
    """Measures of texture.

    Returns:
        ``slope``: exponent of the power spectrum from 1/24 to .4 cycles a pixel; ``outside``: % of
        the wavelet details' energy (db4, 4 scales) outside the largest 5 % of the coefficients, 0
        for a sparse image; ``gradient``: median step to the next pixel inside the object, % of the
        median magnitude; ``kurtosis`` of these steps, 3 for a Gaussian, high where few edges stand
        among flat areas.
    """
    frequency, power = spectrum(image)
    band = (frequency > 1 / 24) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    details = pywt.wavedec2(image, "db4", level=4, mode="periodization")[1:]
    energy = np.sort(np.concatenate([d.ravel() for level in details for d in level]) ** 2)
    inside = ndimage.binary_fill_holes(image > 0.06 * image.max())
    inside = ndimage.binary_erosion(inside, iterations=4)[:, 1:]
    steps = np.diff(image, axis=1)[inside]
    return {
        "slope": float(slope),
        "outside": float(100 * energy[: -round(0.05 * image.size)].sum() / energy.sum()),
        "gradient": float(100 * np.median(np.abs(steps)) / np.median(image[:, 1:][inside])),
        "kurtosis": float(((steps - steps.mean()) ** 4).mean() / steps.var() ** 2),
    }


def draw(pictures: Pictures, path: Path) -> None:
    """Draw the spectra of all sets."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name, images in pictures.items():
        if name.startswith("smooth"):
            continue
        frequency, _ = spectrum(images[0])
        power = np.mean([spectrum(image)[1] for image in images], 0)
        style = {"ls": "-", "lw": 1.6} if name.startswith("simulated") else {"ls": ":", "lw": 1.4}
        axes.loglog(frequency, power, label=name, **style)
    axes.set_xlabel("cycles a pixel")
    axes.set_ylabel("share of the power")
    axes.legend(fontsize=6, ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 80})
    plt.close(figure)


def main() -> None:
    """Measure, print, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, nargs="+")
    roots = parser.parse_args().images
    pictures = simulated(texture=False) | simulated(texture=True) | real(roots)
    means = {}
    for name, images in pictures.items():
        rows = [facts(image) for image in images]
        means[name] = {key: round(float(np.mean([r[key] for r in rows])), 3) for key in rows[0]}
        print(f"{name:40}", means[name])
    (HERE / "texture.json").write_text(json.dumps(means, indent=1) + "\n", encoding="utf-8")
    draw(pictures, HERE / "texture.webp")


if __name__ == "__main__":
    main()
