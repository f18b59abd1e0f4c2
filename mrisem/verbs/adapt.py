"""`mrisem adapt`: low-rank adaptation of a vision-language model to images of one's own."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from mrisem.adaptation.factors import Factors
from mrisem.adaptation.material import MadePairs, Material, WrittenPairs, read_rows
from mrisem.adaptation.model import load_adaptable
from mrisem.adaptation.pool import ANATOMIES, simulate
from mrisem.adaptation.questions import tokenise
from mrisem.adaptation.scans import anatomy_of, find_slices, held_out, hold_out, make_pool
from mrisem.adaptation.scores import image_separation, language_separation, score
from mrisem.adaptation.training import Steps, Training
from mrisem.data.auxiliary import AuxiliarySettings
from mrisem.data.readers.conversion import CONVERTED
from mrisem.errors import InputError
from mrisem.files import held, write_text
from mrisem.prior.adapters import PARTS, part_fingerprints
from mrisem.prior.image.builder import COMPONENTS
from mrisem.prior.image.levels import torch_dtype
from mrisem.prior.language.conversation import load_processor
from mrisem.prior.language.loading import find_janus, load_language_model
from mrisem.verbs.jobs import accept
from mrisem.verbs.pieces import group_options
from mrisem.verbs.priors import make_encoder

ADAPTER, STATE, LOG = "adapter", "training.pt", "adapt.json"
_FACTS = ("parts", "rank", "alpha", "dropout", "steps", "batch_size", "learning_rate", "seed")
_N_EARLIER = 4  # simulated subjects of each anatomy whose questions may be forgotten


@dataclass(frozen=True)
class Materials:
    """What is trained on, and what is counted on.

    Args:
        train: questions on subjects that are adapted to.
        held_out: questions on the other subjects.
        earlier: questions that the model could answer before, and may forget.
        slices: good and bad images of held-out subjects, as a bank has them; empty for pairs.
        facts: content of all, by which an adaptation is continued.
    """

    train: Material
    held_out: Material
    earlier: Material
    slices: list[Any]
    facts: dict[str, Any]


def run(config: DictConfig) -> int:
    """Write ``adapter/`` in peft's format and ``adapt.json``; continue from ``training.pt``.

    It takes one device. Of several tasks of srun or torchrun the first one adapts.
    """
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))):
        print("the first process of this start adapts")
        return 0
    encoder = config.encoder
    if not encoder.get("path") or encoder.get("adapter"):
        raise InputError(
            "mrisem adapt starts from a vision-language model as it is, got "
            f"encoder={encoder.name} encoder.adapter={encoder.get('adapter')}; set "
            "encoder=janus_mini, janus_pro_1b or janus_pro_7b without an adapter"
        )
    if config.pairs is None and config.root is None:
        raise InputError(
            "questions are made of scans or images, or written by you, got neither; set root=DIR "
            "or pairs=FILE"
        )
    checkpoint = find_janus(encoder.path, encoder.get("revision"))
    materials = _materials(config, load_processor(checkpoint))
    folder = Path(config.output_dir)
    with held(folder):
        log = _adapt(config, checkpoint, materials)
        log["separation"] = {
            when: _separation(config, materials.slices, adapter)
            for when, adapter in (("before", None), ("after", str(folder / ADAPTER)))
        }
        write_text(folder / LOG, json.dumps(log, indent=1) + "\n")
    print("\n".join(_lines(config, log)))
    return 0


def _adapt(config: DictConfig, checkpoint: Path, materials: Materials) -> dict[str, Any]:
    """Train and save the factors; return losses, and answers before and after."""
    folder, encoder = Path(config.output_dir), config.encoder
    base = {"base": encoder.path, "fingerprints": part_fingerprints(checkpoint, PARTS)}
    model = load_adaptable(
        checkpoint,
        torch_dtype(encoder.dtype),
        encoder.get("pad_value"),
        config.gradient_checkpointing,
    )
    factors = Factors(tuple(config.parts), config.rank, config.alpha, config.dropout)
    generator = torch.Generator().manual_seed(config.seed)
    trained = factors.attach(model.model, generator)
    model.model.to(_device())
    how = Steps(*(config[name] for name in Steps.__dataclass_fields__))
    facts = {name: group_options(config)[name] for name in _FACTS} | base | materials.facts
    training = Training(model, trained, how, facts, folder / STATE)
    accept(config, "adapt")  # the folder is not another's

    def count() -> dict[str, Any]:
        sets = {"held_out": materials.held_out, "earlier": materials.earlier}
        return {name: score(model, part.fixed(config.n_images)) for name, part in sets.items()}

    if not training.before:
        training.before = count()
        training.save()
    training.run(materials.train)
    factors.save(folder / ADAPTER, trained, base)
    return {
        **base,
        "n_layers": len(trained) // 2,
        "n_weights": sum(factor.numel() for factor in trained.values()),
        "losses": training.losses,
        "answers": {"before": training.before, "after": count()},
    }


def _materials(config: DictConfig, processor: Any) -> Materials:
    """Read pairs, or make them of slices; nothing is written."""
    make = _made if config.pairs is None else _written
    train, rest, slices, unseen, facts = make(config, processor)
    if config.earlier is not None:
        earlier: Material = WrittenPairs(read_rows(Path(config.earlier)), processor)
    else:  # simulated scans of the anatomies that are not adapted to
        entries = {"sizes": [192], "n_slices": 1}
        entries["held_out"] = {name: _N_EARLIER * (name in unseen) for name in ANATOMIES}
        earlier = MadePairs(simulate(entries, "held_out", 0), tokenise(processor))
    return Materials(train, rest, earlier, slices, facts)


def _written(config: DictConfig, processor: Any) -> tuple[Any, ...]:
    """Split the user's own pairs by subject."""
    rows = read_rows(Path(config.pairs))
    chosen = held_out({row["subject"] for row in rows}, config.held_out, config.seed)
    sides = [[row for row in rows if (row["subject"] in chosen) == side] for side in (False, True)]
    train, rest = (WrittenPairs(side, processor) for side in sides)
    digest = hashlib.sha256(config.pairs.encode())
    for row in rows:
        digest.update(repr(sorted(map(str, row.values()))).encode() + row["image"].read_bytes())
    return train, rest, [], set(ANATOMIES), {"pairs": digest.hexdigest()}


def _made(config: DictConfig, processor: Any) -> tuple[Any, ...]:
    """Make pairs of the slices of a folder, split by subject."""
    cut = {name: config[name] for name in ("plane", "slice_step", "size")}
    settings = AuxiliarySettings(
        config.n_subjects, str(config.root), max_slices=config.max_slices, seed=config.seed, **cut
    )
    cache = Path(config.paths.cache)
    folders = {"index_folder": cache / "index", "conversion_folder": cache / CONVERTED}
    slices = find_slices(Path(config.root), config.acquisition, settings, config.on_error, folders)
    adapted, unseen_slices = hold_out(slices, config.held_out, config.seed)
    train, rest = (
        MadePairs(make_pool(side), tokenise(processor)) for side in (adapted, unseen_slices)
    )
    seen = {anatomy_of(volume.acquisition) for volume in adapted.volumes}
    facts = {"scans": adapted.fingerprint, "held-out scans": unseen_slices.fingerprint}
    good_and_bad = [*islice(unseen_slices, config.n_images)]
    return train, rest, good_and_bad, set(ANATOMIES) - seen or set(ANATOMIES), facts


def _separation(config: DictConfig, slices: list[Any], adapter: str | None) -> dict[str, float]:
    """How far banks of held-out slices tell good from bad; empty for pairs of one's own.

    A part that the adapter leaves alone is measured without it.
    """
    if not slices:
        return {}
    encoder, device = config.encoder, _device()
    tower = adapter if "vision" in config.parts else None
    levels: Any = make_encoder(config)(adapter=tower).to(device)  # type: ignore[attr-defined]
    components = encoder.prior_defaults.components or [min(COMPONENTS, w) for w in levels.widths]
    shares = image_separation(levels, slices, components, device)
    if len(slices) > 1:
        prompt = instantiate(group_options(config.prompt))
        dtype: Any = "bfloat16" if torch_dtype(encoder.dtype) == torch.bfloat16 else "float32"
        place = encoder.path, dtype, encoder.get("revision"), encoder.get("pad_value")
        model = load_language_model(*place, adapter=adapter)
        shares |= language_separation(model, slices, prompt, device)
    return shares


def _lines(config: DictConfig, log: dict[str, Any]) -> list[str]:
    """What is printed in the end: each measure before and after."""
    lines = [
        f"adapted {log['base']}: {config.steps} steps, {log['n_weights']} weights beside "
        f"{log['n_layers']} layers ({', '.join(config.parts)})"
    ]
    for name, title in (("held_out", "held out"), ("earlier", "earlier")):
        before, after = (log["answers"][when][name] for when in ("before", "after"))
        for kind, score_before in before.items():
            score_after = after[kind]
            lines.append(
                f"  {title:<11} {kind + ':':<10} {100 * score_before['accuracy']:5.1f} % -> "
                f"{100 * score_after['accuracy']:5.1f} % right of {score_before['n']} answers, "
                f"log-likelihood {score_before['log_likelihood']:.2f} -> "
                f"{score_after['log_likelihood']:.2f}"
            )
    before, after = (log["separation"][when] for when in ("before", "after"))
    for name, share in before.items():
        lines.append(f"  separation  {name}: {100 * share:.1f} % -> {100 * after[name]:.1f} %")
    if not before:
        lines.append("  separation  not measured: pairs do not say which images are good")
    place = Path(config.output_dir) / ADAPTER
    return [*lines, f"  use it with encoder={config.encoder.name} encoder.adapter={place}"]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
