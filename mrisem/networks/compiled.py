"""Compiling networks with torch.compile."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from mrisem.errors import InputError
from mrisem.networks.inr import ConvAdaptor

Mode = Literal["default", "reduce-overhead", "max-autotune"]


def compile_network(network: nn.Module, mode: Mode) -> None:
    """Compile the convolutional parts of a network, in place; they are compiled at the first use.

    These are fastMRI's U-Nets and the INR's adaptor: what is between them is complex, which
    torch.compile leaves as it is. Every later step runs what the first one compiled.

    Args:
        network: unet, unrolled, varnet or inr, also with weights for each slice.
        mode: mode of torch.compile; ``reduce-overhead`` takes CUDA graphs.

    Raises:
        InputError: when the network has no such part.
    """
    from fastmri.models import Unet  # slow to import; a network that has one has done so

    parts = [module for module in network.modules() if isinstance(module, Unet | ConvAdaptor)]
    if not parts:
        raise InputError(
            f"model.compile needs a network with a U-Net or an INR's adaptor, got "
            f"{type(network).__name__}; set model.compile=null"
        )
    # a U-Net's blocks are compiled for each of their sizes
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for part in parts:
        part.compile(mode=mode)
