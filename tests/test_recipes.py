"""The paper's recipes at real size, with random weights of Janus-Pro-1B's shape: what they take."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

# Runs the command line and prints its peak memory, imports and all.
CLI = """
import resource, sys, time
from mrisem.cli import main
start = time.perf_counter()
try:
    main()
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak {peak:.1f} GiB, {time.perf_counter() - start:.0f} s", file=sys.stderr)
"""


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", CLI, *map(str, arguments)],
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(done.stderr.splitlines()[-1])
    return done.stdout


@pytest.fixture(scope="module")
def knee(tmp_path_factory):
    """Three simulated knees at the size of fastMRI's: 15 coils, 640 x 352."""
    folder = tmp_path_factory.mktemp("knee")
    sizes = ["size=320", "n_coils=15", "n_slices=1", "n_train=3", "n_val=1"]
    run("simulate", "anatomies=[knee]", *sizes, f"output_dir={folder}")
    return folder / "knee"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A U-Net of the paper's size as `mrisem train` writes it, but with random weights."""
    from mrisem.networks.unet import Unet

    path = tmp_path_factory.mktemp("start") / "last.ckpt"
    network = Unet(64, 4)
    torch.save({"state_dict": {f"network.{k}": v for k, v in network.state_dict().items()}}, path)
    return path


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("paper_unrolled", []),
        (
            "paper_language",
            ["prior.n_perturbations=2", "prior.n_auxiliary=1", "prior.gradient_checkpointing=true"],
        ),
    ],
)
def test_recipe_fits_a_slice_at_real_size(knee, start, janus_pro_1b, tmp_path, recipe, more):
    os.environ["MRISEM_CACHE"] = str(tmp_path / "cache")
    out = run(
        "reconstruct", f"experiment={recipe}", "data=knee", f"data.root={knee}",
        "data.acquisition=CORPD_FBK", "data.max_slices=1", f"model.checkpoint={start}",
        f"encoder.path={janus_pro_1b}", "fit.iterations=3", *more, f"output_dir={tmp_path}/run",
    )  # fmt: skip
    assert "1 slices reconstructed" in out
    (path,) = (tmp_path / "run" / "reconstructions").glob("*.h5")
    with h5py.File(path) as file:
        assert file["image"].shape[1:] == (320, 352)
        assert np.isfinite(file["reconstruction"][()]).all()
