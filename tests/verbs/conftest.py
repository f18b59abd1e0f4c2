"""Run folders as `mrisem reconstruct` writes them, with tiny random volumes."""

import csv
import json

import h5py
import numpy as np
import pytest
import yaml

from mrisem.results.record import Record, Scan

ERRORS = {"zero_filled": 0.2, "unrolled": 0.1, "unrolled + image_same": 0.05}


def make_record(method, anatomy="brain", overrides=(), mask="gaussian", rate=4):
    """The record of a run; overrides of one setting each, such as ``prior.weight=0.1``."""
    model, _, prior = method.partition(" + ")
    settings = {"data": {"name": anatomy}, "mask": {"name": mask, "acceleration": float(rate)}}
    settings |= {"model": {"name": model}, "prior": {"name": prior or "none"}, "seed": 0}
    for text in overrides:
        key, _, value = text.partition("=")
        if key in ("output_dir", "data.root"):
            continue
        *above, last = key.split(".")
        place = settings
        for part in above:
            place = place.setdefault(part, {})
        place[last] = yaml.safe_load(value)
    return Record(
        **{"model": model, "prior": prior or None, "anatomy": anatomy, "mask": mask},
        **{"acceleration": (rate,), "seed": 0, "settings": settings},
        overrides=(f"data={anatomy}", f"mask={mask}", *overrides),
    )


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
                file.attrs["patient_id"] = f"of {name.partition('.')[0]}"
        return folder

    def add(
        self, name, method="zero_filled", anatomy="brain", overrides=(), mask="gaussian", rate=4
    ):
        run, root = self.runs / name, self.root / "data" / anatomy
        record = make_record(method, anatomy, overrides, mask, rate)
        run.mkdir(parents=True)
        record.save(run / "record.json")
        for number, source in enumerate(sorted((root / "multicoil_val").glob("*.h5"))):
            with h5py.File(source) as file:
                target = file["reconstruction_rss"][()]
            noise = np.random.default_rng(100 + number).normal(size=target.shape)
            image = np.abs(target * (1 + ERRORS[method] * noise))
            path = run / "reconstructions" / source.name
            self.write(path, image, method, record=record)
        recorded = run / ".hydra" / "reconstruct"
        recorded.mkdir(parents=True)
        config = {"data": {"name": anatomy, "root": str(root), "split": "val"}}
        (recorded / "config.yaml").write_text(yaml.safe_dump(config))
        return run

    @staticmethod
    def write(path, image, method, slices=None, record=None, failed=(), file=None, subject=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        n, name = len(image), file or path.name
        with h5py.File(path, "w") as content:
            content["reconstruction"] = image.astype(np.float32)
            content["slices"] = np.arange(n) if slices is None else np.asarray(slices)
            content["acceleration"] = np.full(n, 4.0)
            content["data_consistency"] = np.linspace(0.01, 0.02, n) * ERRORS[method]
            content["seconds"] = np.full(n, 0.5)
            content.attrs.update(method=method, acquisition="AXT2", mask="gaussian")
            content.attrs["failed"] = json.dumps(list(failed))
            if record is not None:
                subject = subject or f"of {path.stem}"
                scan = Scan(file=name, subject=subject, shape=(n, 1, 24, 20), header="", kspace="")
                content.attrs["scan"] = scan.model_dump_json()
                content.attrs["record"] = record.model_dump_json()

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
