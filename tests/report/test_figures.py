"""Figures as pictures: windows, colours, sizes."""

import io
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from mrisem.report.curve_figure import loss_curves
from mrisem.report.figures import (
    DARK,
    LIGHT,
    as_png,
    as_webp,
    colours,
    image_png,
    paired_dots,
    panel_figure,
)
from mrisem.report.panels import Panel, Tile
from mrisem.report.summary import Column


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_image_png_shows_the_window_pixel_by_pixel():
    image = np.array([[0.0, 0.5, 1.0], [2.0, 0.25, 0.75]])
    grey = opened(image_png(image, top=1.0))
    assert grey.shape == (2, 3, 3)
    assert (grey[..., 0] == [[0, 128, 255], [255, 64, 191]]).all()
    colour = opened(image_png(image, top=1.0, cmap="inferno"))
    expected = np.array(mpl.colormaps["inferno"]([0, 128, 255], bytes=True))[:, :3]
    assert (colour[0] == expected).all()


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_loss_curves_draws_on_the_palettes_paper(palette):
    its = np.arange(5)
    series = {"unrolled": {"a 0": (its, 1.0 / (its + 1)), "a 1": (its[:3], its[:3] + 1.0)}}
    picture = opened(as_png(loss_curves("total", series, ["unrolled"], palette)))
    corner = "#{:02x}{:02x}{:02x}".format(*picture[0, 0])
    assert corner == palette.paper


def test_panel_figure_has_a_row_of_errors_only_with_a_target():
    image = np.random.default_rng(0).random((20, 16))
    with_target = (Tile("target", image, None, None), Tile("tv", image, 0 * image, {"psnr": 30.0}))
    panel = Panel("a.h5", 0, "AXT2", 1.0, 0.15, with_target)
    without = Panel("a.h5", 0, "AXT2", 1.0, 0.15, (Tile("tv", image, None, {"psnr": 30.0}),))
    tall, low = (opened(as_png(panel_figure(p))) for p in (panel, without))
    assert tall.shape[0] > 1.5 * low.shape[0]


def names_below(names):
    """The methods' names as `paired_dots` lays them out."""
    rows = [{"file": "a.h5", "slice": 0, "method": name, "psnr": 30.0} for name in names]
    figure = paired_dots(rows, Column("psnr", "PSNR [dB]", "higher", 2), LIGHT)
    as_png(figure)  # lays it out
    return figure.axes[0].get_xticklabels()


def apart(texts):
    """No name reaches into the next one."""
    boxes = [text.get_window_extent() for text in texts]
    return all(left.x1 <= right.x0 + 1 for left, right in pairwise(boxes))


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
    texts = names_below([name.format(i / 10) for i in range(n)])
    assert len(texts) == n
    assert apart(texts)


def test_paired_dots_names_of_the_demo_are_level_and_do_not_overlap():
    texts = names_below(["zero_filled", "l1_wavelet", "unrolled", "unrolled + image_same"])
    assert all(text.get_rotation() == 0 for text in texts)
    assert apart(texts)


def test_colours_tells_21_methods_apart():
    found = colours([str(i) for i in range(21)])
    assert len(set(found.values())) == 21


def test_as_webp_keeps_every_pixel_in_half_the_bytes():
    its = np.arange(50)
    series = {"tv": {str(i): (its, np.exp(-its / (i + 5))) for i in range(9)}}
    png = as_png(loss_curves("total", series, ["tv"], DARK))
    webp = as_webp(png)
    assert Image.open(io.BytesIO(webp)).format == "WEBP"
    assert (opened(webp) == opened(png)).all()
    assert len(webp) < 0.6 * len(png)
