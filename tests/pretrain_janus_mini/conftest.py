"""The recipe's modules, a training of seconds, and images."""

from pathlib import Path

import h5py
import pytest
import torch

RECIPE = Path(__file__).parents[2] / "experiments" / "pretrain_janus_mini"


def write_material(folder, size=48):
    """Write what ``run.sh`` leaves of a brain on each side: targets and reconstructions."""
    generator = torch.Generator().manual_seed(0)
    for number in range(2):
        name = f"file_brain_AXT2_{number:04d}.h5"
        ideal = torch.rand(2, size, size, generator=generator)
        noise, damage = 0.05 * torch.randn(2, 2, size, size, generator=generator)
        for side, image in (("noise_free", ideal), ("simulated", ideal + noise)):
            target = folder / side / "brain" / "multicoil_val" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(target, "w") as file:
                file["reconstruction_rss"] = image.abs().numpy()
                file.attrs["acquisition"] = "AXT2"
        for kind in ("aliasing", "reconstruction"):
            made = folder / "material" / kind / "some_run" / "reconstructions" / name
            made.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(made, "w") as file:
                file["reconstruction"] = 7 * (ideal + noise + damage).abs()[1:].numpy()
                file["slices"] = [1]


@pytest.fixture(scope="session")
def train(fork):
    """Run ``train.py --smoke`` in a folder with material; gives what it printed."""

    def run(output, *arguments):
        if not (output / "material").is_dir():
            write_material(output)
        process = fork(RECIPE / "train.py", "--smoke", "--output", output, *arguments)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return out

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, train):
    """Output folder of a whole training."""
    output = tmp_path_factory.mktemp("whole")
    train(output)
    return output


@pytest.fixture
def recipe(import_from):
    """Import one of the recipe's modules by its name."""
    return import_from("pretrain_janus_mini")
