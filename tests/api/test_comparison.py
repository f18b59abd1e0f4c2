"""Scores and figures of results."""

import matplotlib.image
import numpy as np
import pytest

import mrisem as api
from mrisem import InputError


def test_score_has_a_row_a_method_and_slice(scan, cg, guided):
    table = api.score(scan, cg, guided, metrics=["psnr", "nmse"])
    assert list(table.index.names) == ["method", "file", "slice"]
    assert len(table) == 4
    error = np.square(cg.image[1].astype(float) - scan.target[1]).sum()
    nmse = error / np.square(scan.target[1].astype(float)).sum()
    assert table["nmse"].iloc[1] == pytest.approx(nmse, rel=1e-5)
    assert "ssim" not in table


def test_a_prior_of_weight_zero_changes_nothing(scan, prior):
    common = {"scale": "smoke", "iterations": 2}
    plain = api.fit(scan, **common)
    guided = api.fit(scan, prior=prior, overrides={"prior.weight": 0}, **common)
    np.testing.assert_array_equal(plain.image, guided.image)
    assert {"data_consistency"} <= set(plain.curves["name"])


def test_curves_are_of_all_iterations_and_slices(guided):
    rows = guided.curves[guided.curves["name"] == "semantic"]
    assert set(rows["slice"]) == {0, 1}
    assert rows["iteration"].max() == 2


def test_show_draws_images_and_errors_in_one_window(scan, cg, guided):
    figure = api.show(scan, cg, guided, position=1)
    pictures = [ax.get_images()[0] for ax in figure.axes if ax.get_images()]
    windows = {picture.get_clim() for picture in pictures}
    assert len(pictures) == 5  # target, two images, two error maps
    assert len(windows) == 2
    np.testing.assert_array_equal(pictures[3].get_array(), np.abs(cg.image[1] - scan.target[1]))
    psnr = api.score(scan, cg, metrics=["psnr"])["psnr"].iloc[1]
    assert f"PSNR {psnr:.2f}" in figure.axes[1].get_title()


def test_show_is_a_picture_in_notebooks(scan, cg, tmp_path):
    png = tmp_path / "figure.png"
    png.write_bytes(api.show(scan, cg)._repr_png_())
    assert matplotlib.image.imread(png).std() > 0.1


@pytest.mark.parametrize("function", [api.score, api.show])
def test_results_must_differ_in_their_names(scan, cg, function):
    with pytest.raises(InputError, match="'cg_sense' twice"):
        function(scan, cg, cg)
    with pytest.raises(InputError, match="got none"):
        function(scan)


def test_results_must_be_of_the_scan(scan, simulated):
    (other,) = (simulated / "brain" / "multicoil_val").glob("*AXT1_*.h5")
    result = api.zero_filled(api.load(other).undersample(api.masks.gaussian(4)))
    with pytest.raises(InputError, match="results of one scan"):
        api.score(scan, result)


def test_unknown_scores_and_positions_are_refused(scan, cg):
    with pytest.raises(InputError, match="psrn"):
        api.score(scan, cg, metrics=["psrn"])
    with pytest.raises(InputError, match="from 0 to 1, got 2"):
        api.show(scan, cg, position=2)
