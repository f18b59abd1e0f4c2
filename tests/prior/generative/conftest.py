"""Tiny diffusion models of diffusers with random weights, and their folders."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="needs mrisem[generative]")
RECIPE = Path(__file__).parents[3] / "experiments" / "pretrain_diffusion_mini" / "networks.py"
SIZES = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
WORDS = ["high-quality", "t1", "t2", "flair", "mri", "of", "the", "brain", "knee", "aliased"]


def unet(channels=1, out=None, **options):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    options = SIZES | blocks | {"add_attention": False} | options
    made = diffusers.UNet2DModel(in_channels=channels, out_channels=out or channels, **options)
    return made.eval()


def autoencoder():
    torch.manual_seed(1)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2}
    blocks |= {"up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = SIZES | {"in_channels": 1, "out_channels": 1, "latent_channels": 2}
    return diffusers.AutoencoderKL(**blocks, **sizes, scaling_factor=0.5).eval()


def scheduler(**options):
    return diffusers.DDPMScheduler(**options)


def save(folder, **parts):
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def parts():
    """The parts of a tiny diffusion_mini, weights large enough that a text changes the output."""
    spec = importlib.util.spec_from_file_location("diffusion_recipe", RECIPE)
    recipe = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    network = {"channels": [8, 8], "groups": 4, "head": 4}
    text = {"width": 8, "heads": 2, "length": 12}
    made = recipe.make_parts({"seed": 0, "unet": network, "text": text}, WORDS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (made["unet"], made["text_encoder"]):
            for weight in part.parameters():
                if weight.ndim > 1:
                    std = 1.5 / weight[0].numel() ** 0.5
                    weight.normal_(std=std, generator=generator)
            part.eval()
    return made


@pytest.fixture(scope="session")
def with_text(parts, tmp_path_factory):
    """Folder of a model that takes text."""
    return save(tmp_path_factory.mktemp("with_text"), **parts)


@pytest.fixture(scope="session")
def without_text(tmp_path_factory):
    """Folder of a model without text: the network in the folder itself, as it is saved alone."""
    folder = tmp_path_factory.mktemp("without_text")
    unet().save_pretrained(folder)
    scheduler().save_pretrained(folder)
    return folder


@pytest.fixture
def images():
    return torch.rand(2, 16, 20, generator=torch.Generator().manual_seed(3)) * 7
