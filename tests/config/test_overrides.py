"""Paths as they are typed, and options that YAML files leave to their defaults."""

import pytest

from mrisem.config.compose import CONF, compose
from mrisem.config.overrides import quote_paths, repair
from mrisem.errors import InputError


@pytest.mark.parametrize("name", ["a (b)", "a,b", "a=b", "a'b", "a{b}", "ä#b", "a [b]"])
def test_overrides_a_folder_of_any_name_is_read(mrisem, simulated, tmp_path, name):
    (tmp_path / name).symlink_to(simulated / "brain")
    code, _, err = mrisem(
        "reconstruct", f"data.root={tmp_path / name}", "data.acquisition=AXT2", "scale=smoke",
        "model=zero_filled", f"output_dir={tmp_path / ('out of ' + name)}",
    )  # fmt: skip
    assert code == 0, err
    assert any((tmp_path / f"out of {name}" / "reconstructions").glob("*.h5"))


def test_overrides_home_and_variables_are_expanded(mrisem, simulated, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    (tmp_path / "scans").symlink_to(simulated / "brain")
    code, _, err = mrisem(
        "reconstruct", "data.root=~/scans", "data.acquisition=AXT2", "scale=smoke",
        "model=zero_filled", "output_dir=$OUT/run",
    )  # fmt: skip
    assert code == 0, err
    assert any((tmp_path / "out" / "run" / "reconstructions").glob("*.h5"))


def test_overrides_a_sweep_over_paths_stays_a_sweep(tmp_path):
    given = [f"data.root={tmp_path}/a (1),{tmp_path}/b", "model=unet,unrolled"]
    quoted = quote_paths(given, multirun=True)
    assert quoted == [f"data.root='{tmp_path}/a (1)',{tmp_path}/b", "model=unet,unrolled"]
    (tmp_path / "c,d").mkdir()  # a folder of that very name
    assert quote_paths([f"data.root={tmp_path}/c,d"], True) == [f"data.root='{tmp_path}/c,d'"]


def test_overrides_an_argument_that_the_yaml_leaves_out_can_be_set():
    config = compose("reconstruct", ["encoder=vgg16", "prior=image_same", "encoder.random_seed=3"])
    assert config.encoder.random_seed == 3
    assert repair("reconstruct", ["model=inr", "model.task.network.omega=20"], CONF, ()) == [
        "model=inr",
        "++model.task.network.omega=20",
    ]


def test_overrides_a_swept_choice_may_have_options_that_another_lacks():
    swept = ["mask=from_file,gaussian", "mask.acceleration=4"]
    assert repair("reconstruct", swept, CONF, ()) == swept
    with pytest.raises(InputError, match=r"mask\.acceleration"):
        repair("reconstruct", ["mask=from_file,from_file", "mask.acceleration=4"], CONF, ())
