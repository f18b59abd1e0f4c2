"""Compilation of networks with torch.compile."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from mrisem.errors import InputError
from mrisem.networks.inr import ConvAdaptor

Mode = Literal["default", "reduce-overhead", "max-autotune"]


def compile_network(network: nn.Module, mode: Mode) -> None:
    """Compile the convolutional parts of a network, in place: U-Nets and the adaptor of an INR.

    The operations between these parts are complex, and torch.compile does not compile those.
    Compilation happens at the first use; every later step runs the compiled code.

    Args:
        network: unet, unrolled, varnet or inr, also with weights for each slice.
        mode: mode of torch.compile; ``reduce-overhead`` uses CUDA graphs.

    Raises:
        InputError: when the network has no such part.
    """
    from fastmri.models import Unet  # slow to import, unless the network has already done so

    parts = [module for module in network.modules() if isinstance(module, Unet | ConvAdaptor)]
    if not parts:
        raise InputError(
            "model.compile needs a network with a U-Net or the adaptor of an INR, got "
            f"{type(network).__name__}; set model.compile=null"
        )
    # each block of a U-Net is compiled for each image size: torch's default of 8 is too few
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for part in parts:
        part.compile(mode=mode)
