"""Run folders as `mrisem reconstruct` writes them, with tiny random volumes."""

import csv
import json

import h5py
import numpy as np
import pytest
import yaml

ERRORS = {"zero_filled": 0.2, "unrolled": 0.1, "unrolled + image_same": 0.05}


class RunFolders:
    """Writes targets under ``data/<anatomy>`` and runs under ``runs``."""

    def __init__(self, root):
        self.root, self.runs = root, root / "runs"

    def targets(self, anatomy="brain", files=("a.h5", "b.h5"), n_slices=4, size=(24, 20)):
        folder = self.root / "data" / anatomy / "multicoil_val"
        folder.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(files):
            rng = np.random.default_rng(number)
            with h5py.File(folder / name, "w") as file:
                image = np.abs(rng.normal(size=(n_slices, *size))).astype(np.float32) * 1e-4
                file["reconstruction_rss"] = image
        return folder

    def add(
        self, name, method="zero_filled", anatomy="brain", overrides=(), mask="gaussian", **extra
    ):
        run, root = self.runs / name, self.root / "data" / anatomy
        (run / "reconstructions").mkdir(parents=True)
        for number, source in enumerate(sorted((root / "multicoil_val").glob("*.h5"))):
            with h5py.File(source) as file:
                target = file["reconstruction_rss"][()]
            noise = np.random.default_rng(100 + number).normal(size=target.shape)
            image = np.abs(target * (1 + ERRORS[method] * noise))
            self.write(run / "reconstructions" / source.name, image, method, mask)
        self.record(run, anatomy, [f"data={anatomy}", "mask=gaussian", *overrides], **extra)
        return run

    @staticmethod
    def write(path, image, method, mask="gaussian", slices=None):
        with h5py.File(path, "w") as file:
            n = len(image)
            file["reconstruction"] = image.astype(np.float32)
            file["slices"] = np.arange(n) if slices is None else np.asarray(slices)
            file["acceleration"] = np.full(n, 4.0)
            file["data_consistency"] = np.linspace(0.01, 0.02, n) * ERRORS[method]
            file["seconds"] = np.full(n, 0.5)
            file.attrs.update(method=method, acquisition="AXT2", mask=mask)

    def record(self, run, anatomy, overrides, acceleration=4):
        folder = run / ".hydra" / "reconstruct"
        folder.mkdir(parents=True)
        data = {"name": anatomy, "root": str(self.root / "data" / anatomy), "split": "val"}
        config = {"data": data, "mask": {"acceleration": acceleration}, "seed": 0}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))

    @staticmethod
    def add_curves(run):
        with (run / "fit.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "slice", "iteration", "name", "value"])
            for number in range(2):
                for iteration in range(4):
                    for loss in ("data_consistency", "semantic_low", "total"):
                        writer.writerow(["a.h5", number, iteration, loss, 1 / (iteration + 1)])


@pytest.fixture
def run_folders(tmp_path):
    return RunFolders(tmp_path)


@pytest.fixture(scope="session")
def run_folders_in():
    """Return what makes run folders below a folder, for fixtures that serve several tests."""
    return RunFolders


@pytest.fixture
def compose():
    """Compose and check a verb's configuration as the command line does."""
    from mrisem.config.compose import compose as checked

    return lambda verb, *overrides: checked(verb, overrides)


@pytest.fixture
def read_json():
    return lambda path: json.loads(path.read_text())
