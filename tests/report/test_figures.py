"""Figures as pictures: windows, colours, sizes."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from mrisem.report.figures import DARK, LIGHT, as_png, image_png, loss_curves, panel_figure
from mrisem.report.panels import Panel, Tile


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
