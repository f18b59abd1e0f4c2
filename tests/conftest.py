"""Fixtures that tests on every floor share."""

import pytest
import torch

from mrisem.config.compose import compose

torch.set_num_threads(1)  # tests run side by side


def compose_verb(verb, *overrides):
    """Compose and check a verb's configuration as the command line does."""
    return compose(verb, map(str, overrides))


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """A folder with brain and knee subjects of scale=smoke."""
    from mrisem.verbs.simulate import run

    folder = tmp_path_factory.mktemp("simulated")
    assert run(compose_verb("simulate", "scale=smoke", f"output_dir={folder}")) == 0
    return folder


@pytest.fixture
def mrisem(monkeypatch, capfd, tmp_path):
    """Run the command line in this process: ``mrisem("bank", "data=brain")`` -> code, out, err."""
    from hydra.core.global_hydra import GlobalHydra

    from mrisem.cli import main

    monkeypatch.setenv("MRISEM_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        GlobalHydra.instance().clear()
        monkeypatch.setattr("sys.argv", ["mrisem", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run
