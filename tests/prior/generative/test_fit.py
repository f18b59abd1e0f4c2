"""Fits by the command line under a generative prior."""

import json

import h5py
import pytest

pytestmark = pytest.mark.filterwarnings("default:.* has no effect with")


@pytest.fixture
def fit(mrisem, simulated, tmp_path, with_text):
    """Fit one simulated slice -> folder, image, last line of the output."""
    data = ["data=brain", f"data.root={simulated / 'brain'}", "data.acquisition=AXT2"]
    data += ["data.max_slices=1", "scale=smoke", f"generator.path={with_text}"]

    def run(name, *overrides):
        words = [*data, *overrides, f"output_dir={tmp_path / name}"]
        code, out, err = mrisem("reconstruct", *words)
        assert code == 0, err
        (path,) = (tmp_path / name / "reconstructions").glob("*.h5")
        with h5py.File(path) as file:
            return path, file["reconstruction"][()], out.splitlines()[-1] + err

    return run


def test_fit_is_guided_repeats_by_its_seed_and_continues(fit):
    path, guided, said = fit("a", "prior=generative")
    assert said.startswith("unrolled + generative: 1 slices")
    record = json.loads((path.parents[1] / "record.json").read_text())
    assert record["encoder"] == "diffusion_mini"
    assert len(record["contents"]["prior generator"]) == 64
    assert record["settings"]["generator"]["guidance_scale"] == 1  # names what a sweep compares
    changed = path.stat().st_mtime_ns
    assert (fit("a", "prior=generative")[1] == guided).all()
    assert path.stat().st_mtime_ns == changed  # what is there is kept
    of_a_bank = ["auxiliary.n_subjects=2", "encoder=janus_mini"]
    _, again, said = fit("b", "prior=generative", *of_a_bank)
    assert (again == guided).all()
    for group in ("auxiliary", "encoder"):
        assert f"{group} has no effect with prior=generative" in said
    assert not (fit("c", "prior=generative", "generator.seed=7")[1] == guided).all()
    path, plain, _ = fit("d", "prior=none")
    assert not (plain == guided).all()
    settings = json.loads((path.parents[1] / "record.json").read_text())["settings"]
    assert "generator" not in settings
