"""Tiny networks of diffusers with random weights."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="needs mrisem[generative]")
SIZES = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}


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
