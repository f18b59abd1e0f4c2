"""Loading of diffusion models through diffusers, an optional extra: `mrisem[generative]`.

A folder holds ``unet``, ``scheduler`` and, where the model has them, ``vae`` (or ``vqvae``),
``text_encoder`` and ``tokenizer``, as diffusers saves a pipeline; a network saved alone lies in the
folder itself. Only JSON and safetensors files are read: no code from a checkpoint runs.
"""

from __future__ import annotations

from inspect import isclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_json, resolve_checkpoint
from mrisem.prior.generative.diffusion import DiffusionGenerator, Distillation
from mrisem.prior.generative.embedding import load_text
from mrisem.prior.weights import refuse_missing, weight_files

_NETWORKS = ("UNet2DModel", "UNet2DConditionModel")
_AUTOENCODERS = ("AutoencoderKL", "VQModel")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_WEIGHTS = "diffusion_pytorch_model"


def load_diffusion(
    path: str,
    revision: str | None = None,
    text: str | None = None,
    negative_text: str = "",
    guidance_scale: Annotated[float, Ge(0)] = 1.0,
    time: Literal["uniform", "annealed"] = "uniform",
    time_range: list[float] | None = None,
    anneal_iterations: Annotated[int, Ge(1)] | None = None,
    time_weight: Literal["noise_to_signal", "variance", "one"] = "noise_to_signal",
    size: Annotated[int, Ge(8)] | Literal["model", "image"] = "model",
    seed: int = 0,
) -> DiffusionGenerator:
    """Load a diffusion model that predicts noise, v or the image.

    Args:
        path: ``diffusion_mini``, a folder, or a hub name.
        revision: commit, tag or branch of a hub name; None: its main branch.
        text: see `Distillation`, as all up to ``time_weight``.
        negative_text: text from which guidance leads away.
        guidance_scale: s of classifier-free guidance.
        time: how the time is chosen.
        time_range: lowest and highest time; None: the default of `Distillation`.
        anneal_iterations: iterations over which an annealed time falls.
        time_weight: w(t).
        size: side of the square to which images are cropped or padded, pixels; ``model``: the one
            that the model states, if it does; ``image``: the image's own.
        seed: seed of times and noise.

    Returns:
        generator on the CPU.

    Raises:
        InputError: when diffusers is not installed, or the folder or an option cannot be used.
    """
    _diffusers()
    given = {} if time_range is None else {"time_range": tuple(time_range)}
    settings = Distillation(
        text=text,
        negative_text=negative_text,
        guidance_scale=guidance_scale,
        time=time,
        anneal_iterations=anneal_iterations,
        time_weight=time_weight,
        seed=seed,
        **given,  # type: ignore[arg-type]
    )
    folder = resolve_checkpoint(path, revision, "generator")
    if not folder.is_dir():
        raise InputError(
            f"generator.path must be a trained model, got {path}, whose weights do not ship yet; "
            f"set generator.path=OUT/{path} after experiments/pretrain_diffusion_mini/run.sh OUT, "
            "or generator=diffusers generator.path=DIR"
        )
    unet = _network(folder / "unet" if (folder / "unet").is_dir() else folder, _NETWORKS)
    latent = [folder / name for name in ("vae", "vqvae") if (folder / name).is_dir()]
    vae = _network(latent[0], _AUTOENCODERS) if latent else None
    _check_channels(unet, vae, folder)
    side = None if size == "image" else size if size != "model" else _stated_side(unet, vae)
    scheduler = _scheduler(folder)
    return DiffusionGenerator(unet, scheduler, settings, load_text(unet, folder), vae, side)


def _diffusers() -> Any:
    """Import diffusers when it is needed.

    Raises:
        InputError: when it is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise InputError(
            f"this generator needs the package diffusers, got {error}; run "
            "`pip install 'mrisem[generative]'`"
        ) from error
    diffusers.utils.logging.set_verbosity_error()
    return diffusers


def _class(folder: Path, file: str, allowed: tuple[str, ...]) -> Any:
    """Return the class of diffusers that a folder's configuration names."""
    name = read_json(folder / file).get("_class_name")
    if name not in allowed:
        raise InputError(
            f"{file} must name one of {', '.join(allowed)}, got {name} in {folder}; save the model "
            "with one of these classes of diffusers"
        )
    return getattr(_diffusers(), name)


def _network(folder: Path, allowed: tuple[str, ...]) -> Any:
    """Load a network: safetensors only, all weights, without the network of the machine."""
    model_class = _class(folder, "config.json", allowed)
    weight_files(folder, _WEIGHTS)
    try:
        model, report = model_class.from_pretrained(
            folder,
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,  # missing weights then are in the report
            output_loading_info=True,
        )
    except Exception as error:  # diffusers raises many classes for shapes and damaged files
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"weights must be whole and fit config.json, got {folder} ({type(error).__name__}: "
            f"{reason}); save the model again"
        ) from error
    refuse_missing(sorted(report["missing_keys"]), folder)
    return model


def _scheduler(folder: Path) -> Any:
    """Make the scheduler that a folder names: any of diffusers with the alphas of DDPM."""
    place = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    facts = read_json(place / "scheduler_config.json")
    diffusers, name = _diffusers(), facts.get("_class_name")
    scheduler_class: Any = getattr(diffusers, str(name), None)
    known = isclass(scheduler_class) and issubclass(scheduler_class, diffusers.SchedulerMixin)
    if known:
        scheduler: Any = scheduler_class.from_config(facts)
        predicts = scheduler.config.get("prediction_type") in _PREDICTIONS
        if hasattr(scheduler, "alphas_cumprod") and predicts:
            return scheduler
    raise InputError(
        "scheduler_config.json must name a scheduler of diffusers with alphas_cumprod, such as "
        f"DDPMScheduler, that predicts noise, v or image, got {name} in {place}; save the one that "
        "the model was trained with"
    )


def _check_channels(unet: Any, vae: Any, folder: Path) -> None:
    """Refuse networks whose channels are not those of grey or colour images, or do not fit."""
    seen = unet.config.in_channels if vae is None else vae.config.in_channels
    if seen not in (1, 3):
        raise InputError(
            f"a generator's images must have 1 or 3 channels, got {seen} in {folder}; name another "
            "model (one that acts on latents has a folder vae beside unet)"
        )
    wanted = unet.config.in_channels if vae is None else vae.config.latent_channels
    if unet.config.in_channels != wanted or unet.config.out_channels not in (wanted, 2 * wanted):
        raise InputError(
            f"a diffusion network must take and give {wanted} channels, as its images or latents "
            f"have, got {unet.config.in_channels} and {unet.config.out_channels} in {folder}; name "
            "another model (inpainting and super-resolution take further images)"
        )
    for option in ("class_embed_type", "num_class_embeds", "addition_embed_type"):
        if (value := unet.config.get(option)) not in (None, "text"):
            raise InputError(
                f"a diffusion network may take image, time and text alone, got {option}={value} in "
                f"{folder}; name another model"
            )


def _stated_side(unet: Any, vae: Any) -> int | None:
    """Return the side of the images for which a model was trained, pixels; None: not stated."""
    if not isinstance(size := unet.config.sample_size, int):
        return None
    return size if vae is None else size * 2 ** (len(vae.config.block_out_channels) - 1)
