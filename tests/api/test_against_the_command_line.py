"""The Python interface and the command line give the same bits."""

import h5py
import numpy as np
import pandas as pd
import pytest

import mrisem as api
from mrisem.cli import VERBS


@pytest.fixture
def by_command(mrisem, simulated, tmp_path):
    """Reconstruct the scan's file by the command line; return images, samples and scores."""

    def run(*words, max_slices=2):
        data = ["data=brain", f"data.root={simulated}/brain", "data.acquisition=AXT2"]
        place = [f"output_dir={tmp_path}/run", f"data.max_slices={max_slices}"]
        code, _, err = mrisem("reconstruct", *data, "scale=smoke", *place, *words)
        assert code == 0, err
        (path,) = (tmp_path / "run" / "reconstructions").glob("*.h5")
        with h5py.File(path) as content:
            image, mask = content["reconstruction"][()], content["mask"][()]
        code, _, err = mrisem("evaluate", f"output_dir={tmp_path}/run")
        assert code == 0, err
        return image, mask, pd.read_csv(tmp_path / "run" / "metrics.csv")

    return run


def assert_same_scores(scored, table):
    """Scores of both are the same numbers, slice by slice."""
    for row in table.itertuples():
        ours = scored.loc[(row.method, row.file, row.slice)]
        for name in ("psnr", "ssim", "nmse", "haarpsi", "acceleration", "data_consistency"):
            assert ours[name] == getattr(row, name), name


def test_baseline_is_the_command_lines(scan, cg, by_command):
    image, _, table = by_command("model=cg_sense", "seed=3")
    np.testing.assert_array_equal(cg.image, image)
    assert cg.name == table["method"][0] == "cg_sense"
    assert_same_scores(api.score(scan, cg), table)


def test_guided_fit_is_the_command_lines(scan, guided, by_command):
    words = ["model=unrolled", "prior=image_same", "encoder=janus_mini", "fit.iterations=3"]
    image, _, table = by_command(*words, "seed=3")
    np.testing.assert_array_equal(guided.image, image)
    assert guided.name == table["method"][0] == "unrolled + image_same"
    assert_same_scores(api.score(scan, guided), table)


def test_mask_is_the_command_lines(file, by_command):
    mask = api.masks.equispaced(8, center_fraction=0.09, seed=5)
    scan = api.load(file, max_slices=1).undersample(mask)
    words = ["mask=equispaced", "mask.acceleration=8", "mask.center_fraction=0.09", "seed=5"]
    image, sampled, table = by_command("model=zero_filled", *words, max_slices=1)
    result = api.zero_filled(scan)
    np.testing.assert_array_equal(result.image, image)
    columns = sampled[0].any(axis=0)
    assert result.facts["acceleration"][0] == table["acceleration"][0]
    assert 0 < columns.sum() < len(columns)


def test_another_seed_gives_other_samples(file, cg):
    other = api.cg_sense(api.load(file).undersample(api.masks.gaussian(4, seed=4)))
    assert not np.array_equal(other.image, cg.image)


def test_seed_of_a_fit_leaves_the_mask(scan, guided, prior):
    other = api.fit(scan, prior=prior, scale="smoke", iterations=3, seed=4, name="seed 4")
    assert not np.array_equal(other.image, guided.image)
    table = api.score(scan, guided, other)
    assert table["acceleration"].nunique() == 1


def test_compose_is_the_command_lines(mrisem, file):
    config = api.compose("reconstruct", ["model=tv", f"data.root={file.parents[1]}"])
    code, out, _ = mrisem("reconstruct", "model=tv", f"data.root={file.parents[1]}", "--cfg", "job")
    assert code == 0
    assert config.model.name == "tv"
    assert f"root: {config.data.root}" in out


@pytest.mark.parametrize("verb", VERBS)
def test_compose_takes_every_verb(verb, tmp_path):
    assert api.compose(verb, [f"output_dir={tmp_path}"]).output_dir == str(tmp_path)


def test_fits_write_no_folder(scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api.fit(scan, scale="smoke", iterations=1)
    assert not list(tmp_path.iterdir())
