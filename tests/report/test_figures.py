"""Figures as pictures: windows, colours, sizes."""

import base64
import io
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mrisem.report.figures import (
    ERROR_MAP,
    GREYS,
    HEADROOM,
    View,
    as_png,
    colours,
    drawn,
    image_png,
    tissue_top,
)
from mrisem.report.panels import Panel, Tile, around_lesion, choose_slices, panel_figure
from mrisem.report.plots import fit_curves, paired_dots
from mrisem.results.rows import Column


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_image_png_shows_the_window_pixel_by_pixel():
    image = np.array([[0.0, 0.5, 1.0], [2.0, 0.25, 0.75]])
    grey = opened(image_png(image, top=1.0))
    assert grey.shape == (2, 3, 3)
    assert (grey[..., 0] == [[0, 128, 255], [255, 64, 191]]).all()
    colour = opened(image_png(image, top=1.0, cmap=ERROR_MAP))
    expected = np.array(mpl.colormaps["inferno"]([0, 128, 255], bytes=True))[:, :3]
    assert (colour[0] == expected).all()


def test_fit_curves_of_a_wide_range_are_logarithmic_and_the_mean_is_over_slices():
    curve = {"method": "unrolled", "file": "a", "name": "total"}
    points = [curve | {"slice": s, "iteration": i, "value": (s + 1) * 10.0**-i}
              for s in (0, 1) for i in range(4)]  # fmt: skip
    (axes,) = fit_curves("total", {"-": pd.DataFrame(points)}, ["unrolled"]).axes
    assert axes.get_yscale() == "log"
    (mean,) = [line for line in axes.get_lines() if line.get_linewidth() == 2]
    assert mean.get_ydata() == pytest.approx([1.5, 0.15, 0.015, 0.0015])


def test_panel_figure_has_a_row_of_errors_only_with_a_target():
    image = np.random.default_rng(0).random((20, 16))
    target, shown = (View(label, image, 1.0, GREYS) for label in ("target", "tv"))
    error = View("tv", 0 * image, 0.15, ERROR_MAP)
    tiles = (Tile(target, None, None), Tile(shown, error, {"psnr": 30.0}))
    panel = Panel("a.h5", 0, "AXT2", 1.0, 15, tiles)
    without = Panel("a.h5", 0, "AXT2", 1.0, 15, (Tile(shown, None, {"psnr": 30.0}),))
    tall, low = (opened(as_png(panel_figure(p))) for p in (panel, without))
    assert tall.shape[0] > 1.5 * low.shape[0]


def names_beside(names):
    """The methods' names as `paired_dots` lays them out."""
    rows = [{"file": "a.h5", "slice": 0, "method": name, "psnr": 30.0} for name in names]
    figure = paired_dots(rows, Column("psnr", "PSNR [dB]", "higher", 2))
    as_png(figure)  # lays it out
    return figure.axes[0].get_yticklabels()


def apart(texts):
    """No name reaches into the next one."""
    boxes = [text.get_window_extent() for text in texts]
    return all(above.y0 >= below.y1 - 1 for above, below in pairwise(boxes))


@pytest.mark.parametrize("n", [2, 3, 5, 8, 12, 13, 21])
@pytest.mark.parametrize(
    "name",
    [
        "method {}",
        "unrolled lora + image_same [prior.balance={}]",
        "unrolled + image_language [prompt=high_low_quality, prompt.target=positive] {}",
    ],
)
def test_paired_dots_names_of_methods_do_not_overlap(name, n):
    texts = names_beside([name.format(i / 10) for i in range(n)])
    assert len(texts) == n
    assert apart(texts)


def test_as_png_is_what_savefig_writes():
    rows = [
        {"file": "a.h5", "slice": s, "method": name, "psnr": 30.0 + s}
        for s in (0, 1)
        for name in ("tv", "unet")
    ]
    drawings = [paired_dots(rows, Column("psnr", "PSNR [dB]", "higher", 2)) for _ in range(2)]
    saved = io.BytesIO()
    drawings[1].savefig(saved, format="png", dpi=140)
    np.testing.assert_array_equal(opened(as_png(drawings[0])), opened(saved.getvalue()))


def test_colours_tells_21_methods_apart():
    found = colours([str(i) for i in range(21)])
    assert len(set(found.values())) == 21


def head(n=96, tissue=1.0, rim=4.0):
    """A disc of tissue in a bright rim, as fat under the skin, with a dark hole inside."""
    y, x = np.mgrid[:n, :n] - n / 2
    radius = np.hypot(y, x)
    image = np.full((n, n), 0.01) + np.where(radius < 0.42 * n, rim, 0)
    image[radius < 0.38 * n] = tissue
    image[radius < 0.1 * n] = 0.02
    return image


def test_tissue_top_is_of_the_tissue_and_not_of_the_bright_rim():
    assert tissue_top(head()) == pytest.approx(1.0)
    assert np.percentile(head(), 99.5) == pytest.approx(4.01)  # what the rim would make of it


def test_tissue_top_scales_with_the_image_and_takes_what_reaches_the_edge():
    noise = np.random.default_rng(0).uniform(0.9, 1.1, (64, 64))
    assert tissue_top(1e-4 * noise) == pytest.approx(1e-4 * tissue_top(noise))
    assert 1.0 < tissue_top(noise) < 1.1
    assert tissue_top(np.zeros((8, 8))) == 1.0


def test_grey_pictures_keep_what_is_brighter_than_the_window():
    view = View("a", np.array([[0.0, 1.0, HEADROOM, 9.0]]), 1.0, GREYS)
    png = base64.b64decode(view.uri.partition(",")[2])
    assert opened(png)[0, :, 0].tolist() == [0, round(255 / HEADROOM), 255, 255]


def test_drawn_has_the_size_of_its_inches():
    rows = [{"file": "a.h5", "slice": 0, "method": name, "psnr": 30.0} for name in ("tv", "unet")]
    figure = paired_dots(rows, Column("psnr", "PSNR [dB]", "higher", 2))
    assert drawn(as_png(figure)).width == pytest.approx(96 * figure.get_figwidth(), abs=1)


def test_around_lesion_is_a_square_about_the_largest_inside_the_image():
    labels = np.zeros((60, 50), dtype=np.uint8)
    assert around_lesion(labels) is None
    labels[30:36, 20:24] = 2
    labels[5:7, 5:7] = 1
    box = around_lesion(labels)
    assert box.top < 30 < 36 < box.bottom
    assert box.left < 20 < 24 < box.right
    assert box.bottom - box.top == box.right - box.left
    labels[30:36, 20:24] = 0
    assert (around_lesion(labels).top, around_lesion(labels).left) == (0, 0)


def test_choose_slices_prefers_those_with_a_lesion():
    rows = [
        {"file": "a.h5", "slice": s, "method": "tv", "acquisition": "AXT2", "psnr": 30.0}
        | {"lesions": float(s == 4)}
        for s in range(5)
    ]
    assert choose_slices(rows) == [("a.h5", 4)]
    assert choose_slices([row | {"lesions": 0.0} for row in rows]) == [("a.h5", 2)]
