"""Options without effect in a configuration: an error, or a warning if they do no harm."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from mrisem.config.schema import Pictures, Source, Steering
from mrisem.errors import InputError


def check_effects(raw: Mapping[str, Any], values: Mapping[str, Any], written: set[str]) -> None:
    """Refuse, or warn of, options that the user wrote and no code reads.

    Args:
        raw: composed configuration with unresolved references such as ``${fit.settings}``.
        values: the same, resolved.
        written: keys and groups of the user's own overrides.

    Raises:
        InputError: when an option contradicts the rest of the configuration.
    """
    if "source" in values:
        _check_source(values, written)
    if "pairs" in values:
        _check_pairs(values, written)
    if "prior" in values:
        _check_prior(raw, values, written)
    if values.get("returns") is not None and values["returns"] not in values["metrics"]:
        raise InputError(
            f"returns must be one of {', '.join(values['metrics'])}, got {values['returns']}; set "
            "one of them"
        )
    if "fit" in values:
        _check_fit(raw, values, written)
    # classical baselines have terms of their own, which the group does not change
    term = values.get("regulariser", {}).get("term")
    if term and not _reads(raw["model"], "regulariser"):
        raise InputError(
            f"{_name(values, 'model')} takes no regulariser, got {_name(values, 'regulariser')}; "
            "set regulariser=none, or a network that is fitted, such as model=unrolled"
        )


def _check_source(values: Mapping[str, Any], written: set[str]) -> None:
    """Refuse options of images for simulated subjects, and the reverse."""
    if values["source"] is None:
        if others := sorted(written & {*Source.names()} - {"source"}):
            raise InputError(
                f"{others[0]} is an option of scans from images, got no images; set source=FOLDER"
            )
        return
    for key in ("anatomies", "lesions", "n_train", "n_val"):
        if _wrote(written, key) or _wrote(written, f"scale.simulate.{key}"):
            raise InputError(
                f"{key} is an option of simulated subjects, got source={values['source']}; leave "
                "it out (images have source_anatomy and source_train)"
            )


def _check_pairs(values: Mapping[str, Any], written: set[str]) -> None:
    """Questions are made of scans or images, or written by the user."""
    if values["pairs"] and (others := sorted(written & {*Pictures.names()})):
        raise InputError(
            f"{others[0]} says how scans or images are used, got pairs={values['pairs']}; leave it "
            "out"
        )


def _check_prior(raw: Mapping[str, Any], values: Mapping[str, Any], written: set[str]) -> None:
    """Check options of the prior, and of the groups that only a prior reads."""
    prior, name = values["prior"], _name(values, "prior")
    # options of the builder; steering is read by the task
    builder = {key: value for key, value in raw["prior"].items() if key not in Steering.names()}
    if not prior.get("_target_"):
        for key in sorted(written):
            if key.startswith("prior.") and key.removeprefix("prior.") in Steering.names():
                raise InputError(
                    f"{name} guides nothing, got {key}; set prior=image_same or another prior"
                )
    elif prior["weight"] is None and values["model"].get("prior_weight") is not None:
        raise InputError(f"prior.weight must be a number for {name}, got null; leave it out")
    for group in ("encoder", "generator", "prompt", "auxiliary"):
        # without a prior, `train` still leaves the auxiliary subjects out of training
        is_training = group == "auxiliary" and "fit" not in values
        acts = prior.get("uses_auxiliary", True) if group == "auxiliary" else _reads(builder, group)
        is_read = prior.get("_target_") and acts
        # a network with the encoder inside takes all of it but the defaults of priors
        unread = f"{group}.prior_defaults" if _reads(raw["model"], group) else group
        if _wrote(written, unread) and not is_read and not is_training:
            warnings.warn(f"{unread} has no effect with {name}", stacklevel=2)
    negatives = values["auxiliary"]["negatives"]
    if negatives != "zero_filled" and _reads(builder, "prompt"):
        raise InputError(
            f"{name} takes its images from the prompt, got auxiliary.negatives={negatives}; set "
            "auxiliary.negatives=zero_filled"
        )
    if negatives != "zero_filled" and not values["model"].get("checkpoint"):
        raise InputError(
            f"auxiliary.negatives={negatives} needs a trained network that makes them, got no "
            "model.checkpoint; set it, or auxiliary.negatives=zero_filled"
        )


def _check_fit(raw: Mapping[str, Any], values: Mapping[str, Any], written: set[str]) -> None:
    """Check options of the fit to each scan."""
    fit = values["fit"]
    # only tasks of networks refer to the group ``fit`` in their YAML
    if not _reads(raw["model"], "fit"):
        if fit["name"] == "lora":
            raise InputError(
                f"fit=lora adapts the layers of a trained network, got {_name(values, 'model')}, "
                "which has none to adapt; set model=unet, unrolled or varnet"
            )
        if _wrote(written, "fit"):
            warnings.warn(f"fit has no effect with {_name(values, 'model')}", stacklevel=2)
        return
    if message := missing_start(values):
        raise InputError(message)
    if "fit.patience" in written and fit.get("validation_share") is None:
        warnings.warn("fit.patience has no effect without fit.validation_share", stacklevel=2)


def missing_start(values: Mapping[str, Any]) -> str | None:
    """Return the message on missing starting weights of a fit; None: none are missing."""
    fit, model = values["fit"]["name"], values["model"]
    if model.get("checkpoint") or fit not in ("lora", "none"):
        return None
    command = model.get("trained_by") or f"mrisem train model={model['name']} output_dir=START"
    return (
        f"fit={fit} starts from trained weights, got none for {_name(values, 'model')}; set "
        f"model.checkpoint=START/checkpoints/last.ckpt, made by `{command}`"
    )


def _name(values: Mapping[str, Any], group: str) -> str:
    """Return the choice of a group as on the command line, such as ``model=unet``."""
    return f"{group}={values[group]['name']}"


def _wrote(written: set[str], group: str) -> bool:
    """Return whether an override names a group or a key of it."""
    return any(key == group or key.startswith(f"{group}.") for key in written)


def _reads(node: Any, group: str) -> bool:
    """Return whether a node with unresolved references refers to a group."""
    if isinstance(node, Mapping):
        return any(_reads(value, group) for value in node.values())
    if isinstance(node, list):
        return any(_reads(value, group) for value in node)
    return isinstance(node, str) and any(
        f"{mark}{group}{end}" in node for mark in ("${", "${oc.select:") for end in (".", "}", ",")
    )
