"""The page on extending, block by block, outside the tree and with the built wheel."""

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r'```\w+ title="([^"]+)"\n(.*?)```', re.DOTALL)
RUNS = {
    "encoder": ["prior=image_same", "encoder=edges"],
    "prior": ["prior=sharpness"],
    "backbone": ["model=smoother", "fit.iterations=10"],
    "mask": ["model=zero_filled", "mask=every_third"],
}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stranger")
    for name, text in BLOCK.findall(PAGE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the installed wheel."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ROOT]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


@pytest.fixture(scope="module")
def stranger_run(fork, stranger, installed, simulated, tmp_path_factory):
    """Run `mrisem reconstruct` of the wheel in another process -> exit code, stderr."""
    cache = tmp_path_factory.mktemp("cache")
    code = "import mrisem, mrisem.cli; print(mrisem.__file__); mrisem.cli.main()"
    script = tmp_path_factory.mktemp("script") / "run.py"
    script.write_text(code)

    def reconstruct(*overrides, conf=("--config-dir", "conf"), path=()):
        data = ["data=brain", f"data.root={simulated / 'brain'}", "data.max_slices=1"]
        data += ["data.max_volumes=1", "scale=smoke"]
        folders = os.pathsep.join(map(str, [installed, stranger, *path]))
        more = {"PYTHONPATH": folders, "MRISEM_CACHE": cache}
        process = fork(script, "reconstruct", *conf, *data, *overrides, cwd=stranger, **more)
        out, err = process.communicate()
        assert out.startswith(str(installed)), err
        return process.returncode, err

    return reconstruct


def image(folder):
    (path,) = (folder / "reconstructions").glob("*.h5")
    with h5py.File(path) as file:
        return file["reconstruction"][()], file.attrs["method"]


@pytest.mark.parametrize("kind", RUNS)
def test_extending_each_block_of_the_page_runs(stranger_run, tmp_path, kind):
    code, err = stranger_run(*RUNS[kind], f"output_dir={tmp_path}/mine")
    assert code == 0, err
    assert np.isfinite(image(tmp_path / "mine")[0]).all()


def test_extending_a_strangers_prior_guides(stranger_run, tmp_path):
    for name, prior in (("with", "sharpness"), ("without", "none")):
        code, err = stranger_run(f"prior={prior}", f"output_dir={tmp_path / name}")
        assert code == 0, err
    (guided, label), (plain, _) = image(tmp_path / "with"), image(tmp_path / "without")
    assert label == "unrolled + sharpness"
    assert np.abs(guided - plain).max() > 1e-4 * plain.max()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["encoder=edges", "prior=image_same", "encoder.exponnent=2"], "did you mean encoder.expo"),
        (["encoder=edges", "prior=image_same", "encoder.exponent=two"], "encoder.exponent must be"),
        (["encoder=edges", "prior=image_same", "prior.levels=[2]"], "prior.levels must be among"),
        (["mask=every_third", "mask.calibration_lines=1.5"], "mask.calibration_lines must be"),
        (["prior=sharpness", "+prior.factr=2"], "did you mean prior.factor?"),
        (["model=smoother", "model.task.network.size=big"], "model.task.network.size must be"),
    ],
)
def test_extending_a_strangers_options_are_checked(stranger_run, tmp_path, overrides, said):
    code, err = stranger_run(*overrides, f"output_dir={tmp_path}/bad")
    assert code == 1
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


def test_extending_an_installed_package_needs_no_config_dir(stranger_run, stranger, tmp_path):
    info = tmp_path / "site" / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mrisem.conf]\nstranger = conf\n")
    (stranger / "conf" / "__init__.py").touch()
    code, err = stranger_run(
        *RUNS["mask"], f"output_dir={tmp_path}/mine", conf=(), path=[tmp_path / "site"]
    )
    assert code == 0, err


def test_extending_an_installed_reader_reads_a_strangers_format(stranger_run, simulated, tmp_path):
    info = tmp_path / "site" / "raw-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: raw\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mrisem.readers]\nraw = my_reader:RawReader\n")
    (tmp_path / "data" / "multicoil_val").mkdir(parents=True)
    (source,) = (simulated / "brain" / "multicoil_val").glob("*AXT2*.h5")
    with (
        h5py.File(source) as file,
        (tmp_path / "data" / "multicoil_val" / "scan.raw").open("wb") as raw,
    ):
        raw.write(np.array(file["kspace"].shape, "<i4").tobytes())
        raw.write(file["kspace"][()].tobytes())
    code, err = stranger_run(
        *("model=zero_filled", f"data.root={tmp_path / 'data'}", f"output_dir={tmp_path}/mine"),
        path=[tmp_path / "site"],
    )
    assert code == 0, err
    assert np.isfinite(image(tmp_path / "mine")[0]).all()


def test_extending_the_example_encoder_is_short():
    blocks = dict(BLOCK.findall(PAGE))
    assert len(blocks["my_encoder.py"].splitlines()) <= 20
