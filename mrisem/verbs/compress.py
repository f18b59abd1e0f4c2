"""`mrisem compress`: makes a cheaper encoder, a student of another or a part of its channels."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from safetensors.torch import save_file

from mrisem.adaptation.scans import hold_out
from mrisem.adaptation.scores import image_separation
from mrisem.compression.compression import Compression
from mrisem.compression.measures import agreement, seconds
from mrisem.data.auxiliary import AuxiliarySlices
from mrisem.errors import InputError
from mrisem.files import held, reading, whole, write_text
from mrisem.prior.image.builder import ImagePriorBuilder
from mrisem.prior.image.compressed import FACTS, WEIGHTS, load_pruned, load_student
from mrisem.prior.image.prior import SemanticPrior
from mrisem.tasks.estimate import encoder_cost
from mrisem.verbs.jobs import accept
from mrisem.verbs.pieces import group_options, has_prior, make_datamodule
from mrisem.verbs.priors import make_prior_builder

UNFINISHED = "unfinished"  # folder of what a stopped process continues from
_LOADERS: dict[str, Any] = {"student": load_student, "pruned": load_pruned}
_OF_THE_PRIOR = ("components", "level_weights", "temperature", "target")


def run(config: DictConfig) -> int:
    """Write ``encoder.safetensors`` and ``encoder.json``; continue what was stopped.

    It takes one device. Of several tasks of srun or torchrun the first one compresses.
    """
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))):
        print("the first process of this start compresses")
        return 0
    builder = make_prior_builder(config) if has_prior(config) else None
    if not isinstance(builder, ImagePriorBuilder):
        raise InputError(
            f"mrisem compress needs a prior of the image route, got prior={config.prior.name}; set "
            "prior=image_same"
        )
    data = make_datamodule(config, config.scale.fit.slices_at_once)
    data.setup("predict")
    slices = data.auxiliary_slices(None, builder.contrast)
    images, unseen = hold_out(slices, config.held_out, config.seed)
    encoder: Any = builder.load_encoder(
        torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    compression: Compression = instantiate(group_options(config.compression, "name"))
    compression.check(encoder)
    folder = Path(config.output_dir)
    with held(folder):
        facts = _open(folder, _facts(config, encoder, images, unseen))
        accept(config, "compress")  # the folder is not another's
        if "measures" not in facts:
            _compress(compression, builder, encoder, (images, unseen), folder, facts)
    print("\n".join(_lines(config, facts)))
    return 0


def _facts(
    config: DictConfig, encoder: Any, images: AuxiliarySlices, unseen: AuxiliarySlices
) -> dict[str, Any]:
    """Return all on which the new encoder depends, as its JSON file will have it."""
    facts = {
        "kind": config.compression.name,
        "levels": [*encoder.levels],
        "teacher": encoder.fingerprint,
        "images": images.describe(),
        "held_out": unseen.describe(),
        "prior": {name: group_options(config.prior).get(name) for name in _OF_THE_PRIOR},
        "options": group_options(config.compression, "name"),
    }
    read_back: dict[str, Any] = json.loads(json.dumps(facts))  # tuples are lists there
    return read_back


def _open(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts, or all that is known of the compression that this one continues."""
    if not (folder / FACTS).is_file():
        return facts
    with reading(folder / FACTS, "the facts of a compression", "choose another output_dir"):
        former: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if changed := [name for name, value in facts.items() if former.get(name) != value]:
        raise InputError(
            f"{folder} holds another compression, its {changed[0]} was {former.get(changed[0])}, "
            f"got {facts[changed[0]]}; choose another output_dir"
        )
    return former


def _compress(
    compression: Compression,
    builder: ImagePriorBuilder,
    encoder: Any,
    slices: tuple[AuxiliarySlices, AuxiliarySlices],
    folder: Path,
    facts: dict[str, Any],
) -> None:
    """Make, write and measure the network, and complete the facts in place and in their file."""

    def write() -> None:
        write_text(folder / FACTS, json.dumps(facts, indent=1) + "\n")

    write()
    teacher = _prior(builder, encoder, slices[0])
    if not (folder / WEIGHTS).is_file():
        network, weights = compression.compress(teacher, slices[0], folder / UNFINISHED)
        facts |= network
        write()
        with whole(folder / WEIGHTS) as partial:
            save_file({name: value.contiguous() for name, value in weights.items()}, partial)
    made = _LOADERS[facts["kind"]](str(folder), facts["levels"]).to(encoder.prepare.mean.device)
    builder.components = compression.components(teacher.bank)
    facts["measures"] = _measure(teacher, _prior(builder, made, slices[0]), builder, slices[1])
    write()
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def _prior(builder: ImagePriorBuilder, encoder: Any, images: AuxiliarySlices) -> SemanticPrior:
    """Make a prior with the encoder and its bank, without jitter, whose draws would be noise."""
    device = encoder.prepare.mean.device
    bank, _ = builder.find_bank(encoder, images, device)
    prior = builder.make_prior(encoder, bank.to(device))  # type: ignore[arg-type]
    prior.jitter = None
    return prior


def _measure(
    teacher: SemanticPrior,
    compressed: SemanticPrior,
    builder: ImagePriorBuilder,
    unseen: AuxiliarySlices,
) -> dict[str, Any]:
    """Measure agreement and separation on held-out subjects, and the costs of both encoders."""
    encoders: list[Any] = [teacher.encoder, compressed.encoder]
    image = next(iter(unseen))[0][None].to(encoders[0].prepare.mean.device)
    costs = [encoder_cost(one, (image.shape[1], image.shape[2])) for one in encoders]
    components: list[int | None] = builder.components or []
    n_kept: list[int | None] = [p.components.shape[1] for p in teacher.bank.levels.values()]
    return {
        "agreement": agreement(teacher, compressed, components, unseen),
        "separation": [
            image_separation(one, unseen, n, image.device)
            for one, n in zip(encoders, (n_kept, components), strict=True)
        ],
        "flops": [cost.flops for cost in costs],
        "bytes": [cost.saved + cost.weights for cost in costs],
        "seconds": seconds(encoders, image),
    }


def _lines(config: DictConfig, facts: dict[str, Any]) -> list[str]:
    """What is printed in the end: agreement, separation and cost, teacher -> compressed."""
    measures, kind, levels = facts["measures"], facts["kind"], facts["levels"]
    n, n_unseen = (len(facts[name]["subjects"]) for name in ("images", "held_out"))
    alike = measures["agreement"]
    lines = [
        f"{kind} of {config.encoder.name}, levels {levels}, made of images of {n} subjects; "
        f"measured on {n_unseen} others",
        f"  agreement   cosine of tokens {alike['tokens']:.3f}, of gradients "
        f"{alike['gradients']:.3f}; of gradient and error {alike['teacher']:.3f} -> "
        f"{alike['own']:.3f}",
    ]
    before, after = measures["separation"]
    for name, share in before.items():
        lines.append(f"  separation  {name}: {100 * share:.1f} % -> {100 * after[name]:.1f} %")
    for name, unit, scale in (("flops", "GFLOP", 1e9), ("bytes", "MB", 1e6), ("seconds", "s", 1)):
        old, new = measures[name]
        lines.append(
            f"  cost        {old / scale:.3g} -> {new / scale:.3g} {unit} an image with its "
            f"gradient, 1/{old / new:.1f}"
        )
    use = f"  use it with encoder={kind} encoder.path={config.output_dir}"
    return [*lines, use if levels == [4] else f"{use} 'encoder.levels={levels}'"]
