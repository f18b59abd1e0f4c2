"""What starts at once imports nothing heavy: each command runs in a process of its own."""

import os
import shutil
import subprocess
import sys

import pytest

from mrisem.cli import VERBS
from mrisem.config.choices import CONF, complete_choice

HEAVY = {
    *("torch", "torchvision", "torchmetrics", "transformers", "peft", "pytorch_lightning"),
    *("lightning_fabric", "fastmri", "piq", "sigpy", "h5py", "numpy", "scipy", "pandas", "sklearn"),
    *(
        "skimage",
        "nibabel",
        "pydicom",
        "matplotlib",
        "PIL",
        "umap",
        "numba",
        "jinja2",
        "wandb",
        "optuna",
        "joblib",
    ),
}
CONFIGURED = {"hydra", "omegaconf", "pydantic", "yaml"}
LISTED = "modules: "
SAY_MODULES = f"""
import atexit, sys
atexit.register(lambda: sys.stderr.write("{LISTED}" + " ".join(sys.modules)))
"""
CLI = "from mrisem.__main__ import main; main()"


def imported(code, *arguments, **environment):
    """Run code in a new process; return exit code, stdout, and the packages that it imported."""
    command = [sys.executable, "-c", SAY_MODULES + code, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    _, _, names = done.stderr.rpartition(LISTED)
    return done.returncode, done.stdout, {name.split(".")[0] for name in names.split()}


def test_the_package_and_its_masks_import_no_library():
    code, out, packages = imported("import mrisem; print(mrisem.masks.gaussian(4))")
    assert code == 0
    assert "gaussian" in out
    assert not packages & (HEAVY | CONFIGURED)


def test_imported_sees_what_is_imported():
    assert "h5py" in imported("import h5py")[2] & HEAVY


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 0), (["--help"], 0), (["--version"], 0), (["reconstrukt"], 1)]
)
def test_help_version_and_a_wrong_verb_import_no_library(arguments, code):
    found, _, packages = imported(CLI, *arguments)
    assert found == code
    assert not packages & (HEAVY | CONFIGURED)


@pytest.mark.parametrize("verb", VERBS)
def test_the_configuration_is_shown_without_heavy_imports(verb):
    code, out, packages = imported(CLI, verb, "paths.cache=here", "--cfg", "job")
    assert code == 0
    assert "cache: here" in out
    assert "hydra" in packages
    assert not packages & HEAVY


def test_options_of_a_run_are_shown_without_heavy_imports():
    words = ["data=knee", "data.root=DIR", "model=unet", "prior=image_same", "mask.acceleration=8"]
    code, out, packages = imported(CLI, "reconstruct", *words, "--cfg", "job")
    assert code == 0
    assert "root: DIR" in out
    assert not packages & HEAVY


def test_help_of_a_verb_has_no_heavy_imports():
    code, out, packages = imported(CLI, "reconstruct", "--help")
    assert code == 0
    assert "Examples" in out
    assert not packages & HEAVY


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mrisem rec", {"reconstruct"}),
        ("mrisem ", set(VERBS)),
        (
            "./bin/mrisem reconstruct model=un",
            {"model=unet", "model=unrolled", "model=unrolled_vit"},
        ),
        ("mrisem report embedding_s", {"embedding_slices="}),
        ("mrisem nosuch model=", set()),
    ],
)
def test_completion_offers_verbs_and_options_without_heavy_imports(line, expected):
    code, out, packages = imported(CLI, "-sc", "query=bash", COMP_LINE=line)
    assert code == 0
    assert set(out.split()) == expected
    assert not packages & HEAVY


def test_completion_of_choices_imports_no_hydra():
    code, out, packages = imported(CLI, "-sc", "query=bash", COMP_LINE="mrisem train seed=1 data=k")
    assert code == 0
    assert out.split() == ["data=knee"]
    assert not packages & (HEAVY | CONFIGURED)


def test_completion_of_choices_is_hydras(monkeypatch, capsys):
    from hydra.core.global_hydra import GlobalHydra

    from mrisem.verbs.application import complete

    groups = [path.name for path in CONF.iterdir() if [*path.glob("*.yaml")]]
    assert {"model", "prior", "encoder", "scale"} <= {*groups}
    for typed in [*(f"{group}=" for group in groups), "model=un", "model=nosuch"]:
        GlobalHydra.instance().clear()
        monkeypatch.setenv("COMP_LINE", f"mrisem {typed}")
        complete("reconstruct", ["query=bash"])
        assert complete_choice(f" {typed}") == capsys.readouterr().out.split(), typed


@pytest.mark.parametrize(
    "line", ["mask.acc", "hydra/launcher=", "--config-dir mine model=", "model=unet,", "nosuch="]
)
def test_completion_of_what_files_do_not_say_is_left_to_hydra(line):
    assert complete_choice(line) is None


def test_completion_asks_hydra_where_a_package_brings_choices(monkeypatch):
    monkeypatch.setattr("mrisem.config.choices.installed", lambda: [("mine", "mine.conf")])
    assert complete_choice("model=") is None


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash was found; install it")
@pytest.mark.parametrize("install", ["mrisem -sc", "mrisem reconstruct --shell-completion"])
def test_completion_that_bash_has_installed_answers(tmp_path, install):
    script = tmp_path / "mrisem"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m mrisem "$@"\n')
    script.chmod(0o755)
    typed = """
        COMP_LINE="mrisem train objective=" COMP_WORDS=(mrisem train objective=) COMP_CWORD=2
        hydra_bash_completion; echo "${COMPREPLY[@]}"; complete -p mrisem
    """
    done = subprocess.run(
        ["bash", "-c", f'eval "$({install} install=bash)"; {typed}'],
        **{"capture_output": True, "text": True, "check": False},
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert "objective=supervised" in done.stdout, done.stderr
    assert "hydra_bash_completion mrisem" in done.stdout


def test_completion_for_an_unknown_shell_is_one_line(mrisem):
    code, _, err = mrisem("-sc", "install=tcsh")
    assert code == 1
    assert "bash" in err
    assert err.count("\n") == 1


def test_doctor_that_is_asked_for_nothing_imports_no_lightning(tmp_path):
    code, out, packages = imported(CLI, "doctor", f"paths.cache={tmp_path}")
    assert code == 0
    assert "janus_mini, unrolled_mini" in out
    assert packages & HEAVY <= {"torch", "numpy"}


@pytest.mark.parametrize("show", [("--cfg", "job"), ("--help",)])
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("mask.acelleration=4", "did you mean mask.acceleration?"),
        ("+prior.nosuch=1", "prior.nosuch"),
        ("model=nosuch", "Could not find 'model/nosuch'"),
        ("fit.iterations=(a", "must be key=value"),
    ],
)
def test_a_wrong_option_is_refused_where_only_the_configuration_is_shown(
    mrisem, word, expected, show
):
    code, out, err = mrisem("reconstruct", word, *show)
    assert code == 1
    assert not out
    assert expected in err
    assert err.count("\n") == 1


def test_an_option_that_the_yaml_leaves_out_is_shown(mrisem):
    words = ["encoder=vgg16", "encoder.random_seed=3"]
    code, out, err = mrisem("reconstruct", *words, "--cfg", "job", "--package", "encoder")
    assert code == 0, err
    assert "random_seed: 3" in out


def test_doctor_checks_what_every_verb_takes(mrisem):
    code, _, err = mrisem("doctor", "seed=-1")
    assert code == 1
    assert "seed must be" in err
