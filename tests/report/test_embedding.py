"""Pictures of embeddings: what is read, how it is laid out, what is drawn and said."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from mrisem.errors import InputError
from mrisem.report.embedding import (
    draw,
    make_pictures,
    missing_pictures,
    place,
    principal_plane,
    umap,
)
from mrisem.report.figures import as_png
from mrisem.report.page import TEMPLATES
from mrisem.report.plots import fit_curves
from mrisem.results import curves as curves_of_fits
from mrisem.results.embedding_files import Points
from mrisem.results.record import Record
from mrisem.results.run import Run

LEVELS = ("1", "13", "5")


def made_up(n_bank=20, n_steps=9, feature=8, seed=0, bank_seed=1):
    """A slice whose path leads from the negatives' cluster to the positives'."""
    bank, own = np.random.default_rng(bank_seed), np.random.default_rng(seed)
    arrays = {"iterations": np.arange(n_steps) * 5}
    for level in LEVELS:
        good, bad = np.eye(2, feature)
        sides = [c + 0.1 * bank.normal(size=(n_bank, feature)) for c in (good, bad)]
        share = np.linspace(0, 1, n_steps)[:, None]
        path = bad + share * (good - bad) + 0.03 * own.normal(size=(n_steps, feature))
        arrays |= {f"positives_{level}": sides[0], f"negatives_{level}": sides[1]}
        arrays |= {f"path_{level}": path, f"zero_filled_{level}": bad + 0.05}
    return {key: np.asarray(a, dtype=int if a.ndim == 1 and key == "iterations" else "f4")
            for key, a in arrays.items()}  # fmt: skip


def caption_of(picture):
    return TEMPLATES.get_template("caption.txt.j2").render(embedded=picture)


@pytest.fixture
def make_run(tmp_path):
    def made(slices, name="run", acquisition="AXT2"):
        """``slices``: slice -> arrays."""
        folder = tmp_path / name
        (folder / "reconstructions").mkdir(parents=True)
        file = folder / "reconstructions/a.h5"
        with h5py.File(file, "w") as content:
            content.attrs.update(acquisition=acquisition)
        for number, arrays in slices.items():
            (folder / "embeddings/a.h5").mkdir(parents=True, exist_ok=True)
            np.savez(folder / f"embeddings/a.h5/{number}.npz", **arrays)
        record = Record(model="unrolled", prior="image_same")
        return Run(Path(folder), (file,), record, record.method)

    return made


@pytest.mark.parametrize(
    "method",
    ["pca", pytest.param("umap", marks=pytest.mark.slow)],  # umap compiles itself: a minute
)
def test_make_pictures_lays_the_path_from_the_negatives_to_the_positives(make_run, method):
    run = make_run({number: made_up(seed=number) for number in (2, 10)})
    (picture,) = make_pictures([run], 8, method)
    assert (picture.label, picture.acquisition) == ("unrolled + image_same", "AXT2")
    assert [panel.title for panel in picture.panels] == ["level 1", "level 5", "level 13"]
    for panel in picture.panels:
        assert panel.method == method.upper()
        centre = panel.points.positives.mean(0)
        assert len(panel.points.paths) == 2
        for path in panel.points.paths:
            start, end = np.linalg.norm(path[[0, -1]] - centre, axis=1)
            assert end < 0.5 * start
    caption = caption_of(picture)
    assert "iteration 0 to 40" in caption
    assert ("not metric" in caption) == (method == "umap")
    assert ("Laid out by PCA" in caption) == (method == "pca")
    assert "level 13 2 of 2" in caption
    repeated = make_pictures([run], 8, method)[0].panels[0].points.parts
    for array, same in zip(repeated, picture.panels[0].points.parts, strict=True):
        np.testing.assert_array_equal(array, same)


def test_principal_plane_is_the_pca_of_all_directions():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(0).normal(size=(9, 7)).astype("f4")
    points = Points(vectors[:2], vectors[2:4], vectors[4:5], (vectors[5:],))
    flat, variance = principal_plane(points.moved_to(3 * vectors))
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pca = PCA(2, svd_solver="full")
    expected = np.abs(pca.fit_transform(directions))
    np.testing.assert_allclose(np.abs(np.concatenate(flat.parts)), expected, atol=1e-5)
    assert variance == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-5)


def test_principal_plane_of_equal_points_is_one_place():
    same = np.ones((2, 5), dtype="f4")
    flat, variance = principal_plane(Points(same[:1], same[:1], same[:0], ()))
    np.testing.assert_allclose(np.concatenate(flat.parts), 0, atol=1e-6)
    assert variance == pytest.approx(0, abs=1e-6)


def test_umap_of_a_small_bank_is_refused_with_the_option_that_helps():
    vectors = np.random.default_rng(0).normal(size=(9, 7)).astype("f4")
    with pytest.raises(InputError, match="got 4; set embedding=pca"):
        umap(Points(vectors[:2], vectors[2:4], vectors[4:5], (vectors[5:],)))


def test_umap_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(InputError, match=r"mrisem\[umap\]"):
        umap(Points(vectors[:9], vectors[9:18], vectors[18:19], (vectors[19:],)))


def test_place_puts_a_point_between_two_entries_the_nearer_to_the_likelier():
    bank = np.eye(2, dtype="f4")
    flat = np.array([[0, 0], [10, 4]], dtype="f4")
    middle = np.full((1, 2), 0.5**0.5, dtype="f4")
    np.testing.assert_allclose(place(middle, bank, flat), [[5, 2]], atol=1e-3)
    leaning = place(np.array([[0.8, 0.6]], dtype="f4"), bank, flat)
    assert 0 < leaning[0, 0] < 5


def test_embedding_figure_grows_with_the_levels_and_says_pca_on_equal_axes(make_run):
    run = make_run({0: made_up(n_bank=1, n_steps=1)})
    (picture,) = make_pictures([run], most_scans=8)
    axes = draw(picture).axes[0]
    assert axes.get_title() == "level 1 (PCA)"
    assert axes.get_aspect() == 1
    share = float(caption_of(picture).split("variance (level 1 ")[1].split(" %")[0])
    assert share == pytest.approx(100 * picture.panels[0].variance, abs=0.5)
    image = Image.open(io.BytesIO(as_png(draw(picture)))).convert("RGB")
    assert image.width > 2 * image.height


def test_make_pictures_spreads_over_slices_and_leaves_diverged_steps_out(make_run):
    slices = {number: made_up(n_steps=40, seed=number) for number in range(5)}
    slices[4]["path_5"][30:] = np.nan
    (picture,) = make_pictures([make_run(slices)], most_scans=3)
    assert "3 of 5 slices" in caption_of(picture)
    points = picture.panels[1].points
    assert [len(path) for path in points.paths] == [16, 16, 16]
    assert np.isfinite(np.concatenate(points.parts)).all()
    assert as_png(draw(picture))


def test_make_pictures_is_empty_without_embeddings_or_when_switched_off(make_run):
    assert make_pictures([make_run({})], most_scans=3) == []
    assert make_pictures([make_run({0: made_up()}, name="other")], most_scans=0) == []


def test_make_pictures_refuses_a_damaged_file_and_slices_of_two_banks(make_run):
    run = make_run({0: made_up(), 1: made_up(bank_seed=2)})
    with pytest.raises(InputError, match="of one bank"):
        make_pictures([run], most_scans=3)
    file = run.folder / "embeddings/a.h5/0.npz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"complete \.npz"):
        make_pictures([run], most_scans=3)
    np.savez(file, iterations=np.arange(3))
    with pytest.raises(InputError, match="path_<level>"):
        make_pictures([run], most_scans=3)


def test_similarities_of_a_level_share_a_figure_and_levels_come_by_number(make_run):
    run = make_run({})
    names = ("positives_13", "negatives_13", "semantic_13", "semantic_2", "gradient_balance")
    rows = [f"a.h5,0,{i},{name},{i + 0.5}" for name in (*names, "positives_2") for i in range(3)]
    (run.folder / "fit.csv").write_text("\n".join(["file,slice,iteration,name,value", *rows]))
    curves = curves_of_fits.read_curves([run])
    logged = curves["name"].unique().tolist()
    losses = curves_of_fits.loss_names(logged)
    assert losses == ["gradient_balance", "semantic_2", "semantic_13"]
    assert curves_of_fits.levels_of(logged) == ["13"]
    sides = {"-": curves[curves["name"] == "positives_13"]}
    sides["--"] = curves[curves["name"] == "negatives_13"]
    figure = fit_curves("similarity", sides, [run.label])
    bold = [line for line in figure.axes[0].get_lines() if line.get_linewidth() == 2]
    assert [line.get_linestyle() for line in bold] == ["-", "--"]


def test_missing_pictures_says_which_runs_have_none_and_why(make_run):
    run = make_run({})
    plain = replace(run, record=Record(model="unrolled"), label="unrolled")
    assert "no prior in these runs" in missing_pictures([plain], set(), 12)
    assert "kept in unrolled + image_same, though" in missing_pictures([plain, run], set(), 12)
    assert missing_pictures([plain, run], {run.label}, 12) == ""
    assert "embedding_slices=0" in missing_pictures([plain, run], set(), 0)
