"""Fixtures that tests on every floor share."""

import importlib.util
import multiprocessing
import os
import runpy
import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from mrisem.config.compose import compose

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
VISION = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
VISION |= {"patch_size": 16, "image_size": 384, "num_image_tokens": 576, "projection_dim": 2048}
TEXT = {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632}
TEXT |= {"num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16}
TEXT |= {"vocab_size": 102400, "max_position_embeddings": 16384}
FORKED = Path(__file__).with_name("forked.py")
collect_ignore = [FORKED.name]  # it would replace the environment of the tests themselves
IMPORTED = ("torch", "pytorch_lightning", "torchmetrics", "hydra", "pydantic", "h5py", "pandas")
IMPORTED += ("fastmri.data", "fastmri.losses", "accelerate", "transformers")
IMPORTED += ("transformers.models.janus.modeling_janus",)
torch.set_num_threads(1)  # tests run side by side
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that they start, too


@pytest.fixture(autouse=True)
def _one_thread():
    """Undo what a test before has set: rounding, and so comparisons, depend on it."""
    torch.set_num_threads(1)


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


class Forked:
    """A running process of `fork`, with what tests use of `subprocess.Popen`."""

    def __init__(self, context, command, cwd, environment, folder):
        self._streams = [folder / "out", folder / "err"]
        for path in self._streams:
            path.touch()
        facts = {"command": [*map(str, command)], "cwd": str(cwd), "environment": environment}
        facts["streams"] = [*map(str, self._streams)]
        self._process = context.Process(target=runpy.run_path, args=(str(FORKED), facts))
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout=300):
        """Wait for the end -> stdout, stderr."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            self._process.join()
        return tuple(path.read_text() for path in self._streams)


@pytest.fixture(scope="session")
def fork(tmp_path_factory):
    """Start ``mrisem ...`` or a script in a process of its own, which leads its session.

    It is forked from one that has imported what mrisem imports, which takes 4 s of a core, but not
    mrisem: that is the child's, found on its ``PYTHONPATH``.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)

    def start(*command, cwd=".", **environment):
        facts = os.environ | {name: str(value) for name, value in environment.items()}
        return Forked(context, command, cwd, facts, tmp_path_factory.mktemp("forked"))

    return start


@pytest.fixture(scope="session")
def load_recipe():
    """Load a module of experiments/: ``load_recipe("pretrain_janus_mini/janus.py")``."""
    loaded = {}

    def load(path):
        name = f"recipe of {path}"
        if name not in loaded:
            spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / path)
            loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        return loaded[name]

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def import_from(monkeypatch):
    """Import modules of a folder of experiments/ by name: ``import_from("NAME")("train")``."""
    folders = []

    def start(name):
        folders.append(EXPERIMENTS / name)
        monkeypatch.syspath_prepend(str(folders[-1]))
        return importlib.import_module

    yield start
    for file in [file for folder in folders for file in folder.glob("*.py")]:
        sys.modules.pop(file.stem, None)


@pytest.fixture
def generator():
    """Seed -> generator."""
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture
def phantom():
    """Number, size -> that many equal images."""

    def make(n, size):
        axis = torch.linspace(-1, 1, size)
        radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
        image = (radius < 0.8) * (0.6 + 0.4 * torch.cos(25 * axis)[:, None])
        return (image / image.amax()).expand(n, -1, -1)

    return make


@pytest.fixture(scope="session")
def janus_pro_1b(load_recipe, tmp_path_factory):
    """A checkpoint of Janus-Pro-1B's shape with random weights: bfloat16 shards, processor."""
    import transformers as hf

    recipe = load_recipe("pretrain_janus_mini/janus.py")
    folder = tmp_path_factory.mktemp("janus_pro_1b")
    processor = recipe.make_processor(recipe.make_tokenizer(["Is it good or bad?"], 400), 384, 16)
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    with torch.device("meta"):
        config = hf.JanusConfig(vision_config=VISION, text_config=TEXT, image_token_id=image)
        model = hf.JanusForConditionalGeneration(config).to(torch.bfloat16)
    model = model.to_empty(device="cpu")
    # One block of random numbers, repeated with odd strides: two billion draws would take minutes.
    block = torch.randn(2**22 + 3, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    with torch.no_grad():
        for number, (name, weight) in enumerate(model.named_parameters()):
            size = prod(weight.shape)
            weight.copy_(block.roll(number).repeat(-(-size // len(block)))[:size].view_as(weight))
            if "norm" in name and name.endswith("weight"):
                weight += 1
    model.save_pretrained(folder, max_shard_size="1GB")
    del model, weight  # 4 GB that the processes under test need
    yield folder
    for file in folder.glob("*.safetensors"):
        file.unlink()  # 4 GB that no later run needs


def head_of(world):
    """Intensity of an invented head at places in mm, ``(..., 3)`` to the right, front and head.

    Smooth, so that sampling theory says what any grid shows; brightest at (20, 14, 8).
    """
    body = np.exp(-(np.square(world / np.array([36.0, 44.0, 40.0])).sum(-1) ** 2))
    spot = np.exp(-np.square((world - np.array([20.0, 14.0, 8.0])) / 7.0).sum(-1))
    return 400 * body + 500 * spot


def sampled(shape, affine):
    """Values of the head at the voxels of an image."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return head_of(grid @ affine[:3, :3].T + affine[:3, 3])


def affine_of(columns, shape):
    """Affine with these steps in mm a voxel, the middle of the image at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns, dtype=float).T
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


RAS = [(2.5, 0, 0), (0, 2.5, 0), (0, 0, 2.5)]


@pytest.fixture
def write_nifti():
    """A function that writes a head, or given values, as NIfTI and returns its path."""
    import nibabel

    def write(path, values=None, columns=RAS, shape=(48, 56, 52)):
        shape = shape if values is None else values.shape[:3]
        affine = affine_of(columns, shape)
        values = sampled(shape, affine).astype(np.int16) if values is None else values
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
        return path

    return write


@pytest.fixture
def write_series():
    """A function that writes a head as a sagittal DICOM series and returns its folder.

    ``change(number, dataset)`` alters what is written of each slice.
    """
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    def write(folder, n_slices=12, shape=(40, 44), change=None, **facts):
        folder.mkdir(parents=True, exist_ok=True)
        rows, columns, distance = 2.0, 3.0, 6.0  # mm
        for number in range(n_slices):
            left = distance * (number - (n_slices - 1) / 2)  # DICOM's axes: left, back, head
            back, head = -columns * (shape[1] - 1) / 2, rows * (shape[0] - 1) / 2
            j, i = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
            y, z = back + columns * j, head - rows * i
            values = head_of(np.stack([np.full_like(y, -left), -y, z], axis=-1))
            ds = pydicom.Dataset()
            ds.file_meta = pydicom.dataset.FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
            ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "P1", "1.2", "1.2.9"
            ds.Modality, ds.SeriesNumber = "MR", 3
            ds.Rows, ds.Columns = shape
            ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
            ds.BitsAllocated = ds.BitsStored = 16
            ds.HighBit, ds.PixelRepresentation = 15, 0
            ds.ImagePositionPatient = [left, back, head]
            ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            ds.PixelSpacing = [rows, columns]
            ds.RescaleSlope, ds.RescaleIntercept = 0.5, -10
            ds.PixelData = np.round((values + 10) / 0.5).astype("<u2").tobytes()
            for name, value in facts.items():
                setattr(ds, name, value)
            if change is not None:
                change(number, ds)
            # names in another order than the slices
            ds.save_as(folder / f"{(7 * number) % 100:02d}_{number}.dcm", enforce_file_format=True)
        return folder

    return write
