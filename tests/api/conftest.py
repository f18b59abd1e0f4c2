"""One simulated scan and its results, shared: fits take seconds."""

import pytest

import mrisem as api

FILE = "brain/multicoil_val/file_brain_AXT2_5000.h5"
UNDERSAMPLED = {"scale": "smoke", "iterations": 3}


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """A cache folder for banks and maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRISEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def file(simulated):
    return simulated / FILE


@pytest.fixture(scope="session")
def scan(file):
    return api.load(file).undersample(api.masks.gaussian(4, seed=3))


@pytest.fixture(scope="session")
def prior(simulated):
    return api.semantic_prior("janus_mini", images=simulated / "brain", acquisition="AXT2")


@pytest.fixture(scope="session")
def cg(scan):
    return api.cg_sense(scan)


@pytest.fixture(scope="session")
def guided(scan, prior):
    return api.fit(scan, "unrolled", prior=prior, scale="smoke", iterations=3)
