"""Every YAML composes, and what it names can be made."""

from inspect import signature
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from mrisem.cli import VERBS
from mrisem.verbs.pieces import make_datamodule, without
from mrisem.verbs.priors import PRIOR_DEFAULTS
from mrisem.verbs.reconstruct import make_task

CONF = Path(__file__).parents[1] / "conf"


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(verb, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(verb, overrides=[*overrides, "output_dir=x"])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("scale", options("scale"))
def test_conf_every_verb_composes_and_resolves(verb, scale):
    scaled = [] if verb in ("doctor", "report") else [f"scale={scale}"]
    OmegaConf.to_container(composed(verb, *scaled), resolve=True)


def test_conf_has_no_group_that_these_tests_leave_out():
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    tested = {"scale", "model", "mask", "data", "encoder", "prior", "trainer", "metrics", "prompt"}
    assert groups == tested | {"fit", "regulariser", "objective", "logger"}


@pytest.mark.parametrize("name", options("model"))
def test_conf_every_model_can_be_made(name):
    config = composed("reconstruct", f"model={name}", "scale=smoke")
    assert config.model.name == name
    assert make_task(config) is not None


@pytest.mark.parametrize("model", ["unet", "unrolled", "varnet"])
@pytest.mark.parametrize("fit", options("fit"))
@pytest.mark.parametrize("regulariser", options("regulariser"))
def test_conf_every_way_of_fitting_can_be_made(model, fit, regulariser):
    overrides = [f"model={model}", f"fit={fit}", f"regulariser={regulariser}", "scale=smoke"]
    task = make_task(composed("reconstruct", *overrides))
    assert (task.fit is None) == (fit == "none")
    assert fit == "none" or (task.fit.lora is not None) == (fit == "lora")
    assert getattr(task.regulariser, "name", "none") == regulariser


def test_conf_the_network_that_ships_fits_its_scale():
    plain = make_task(composed("reconstruct", "scale=demo")).network.state_dict()
    start = "model.checkpoint=unrolled_mini"
    shipped = make_task(composed("reconstruct", "scale=demo", start)).network.state_dict()
    assert all(value.dtype == torch.float32 for value in shipped.values())
    assert not any(torch.equal(value, shipped[name]) for name, value in plain.items())


@pytest.mark.parametrize("name", options("objective"))
def test_conf_every_objective_can_be_made(name):
    task = make_task(composed("train", f"objective={name}", "scale=smoke"))
    assert task.objective.monitor


@pytest.mark.parametrize("data", options("data"))
@pytest.mark.parametrize("mask", options("mask"))
def test_conf_every_data_set_and_mask_can_be_made(data, mask):
    config = composed("reconstruct", f"data={data}", f"mask={mask}", "data.root=somewhere")
    module = make_datamodule(config, 1)
    assert module.anatomy == config.data.name == data
    assert config.mask.name == mask


@pytest.mark.parametrize("name", options("encoder"))
def test_conf_every_encoder_names_arguments_that_exist(name):
    config = composed("reconstruct", f"encoder={name}", "prior=image_same").encoder
    arguments = without(config, "_target_", *PRIOR_DEFAULTS)
    signature(get_object(config._target_)).bind(**arguments)
    assert len(config.levels) == len(config.components)


@pytest.mark.parametrize("name", options("prompt"))
def test_conf_every_prompt_has_five_wordings_and_two_targets(name):
    questions = set()
    for wording in range(5):
        for target in ("positive", "negative"):
            overrides = [f"prompt={name}", f"prompt.wording={wording}", f"prompt.target={target}"]
            prompt = instantiate(composed("reconstruct", *overrides).prompt)
            assert prompt.target == target
            questions.add(prompt.question)
    assert len(questions) == 5


@pytest.mark.parametrize("name", [n for n in options("prior") if n.startswith("image_")])
def test_conf_every_prior_can_steer(name):
    task = make_task(composed("reconstruct", f"prior={name}", "scale=smoke"))
    assert task.steering.weight > 0


@pytest.mark.parametrize("name", ["image_same", "image_cross"])
def test_conf_every_prior_agrees_with_every_encoder(name):
    for encoder in options("encoder"):
        prior = composed("reconstruct", f"prior={name}", f"encoder={encoder}").prior
        assert prior.name == name
        assert len(prior.levels) == len(prior.components) == len(prior.level_weights)
        assert prior.weight > 0


@pytest.mark.parametrize("name", options("trainer"))
def test_conf_every_trainer_can_be_made(name, tmp_path):
    verb = "train" if name == "train" else "reconstruct"
    instantiate(composed(verb).trainer, default_root_dir=tmp_path, logger=False)


@pytest.mark.parametrize("name", options("logger"))
def test_conf_every_logger_names_arguments_that_exist(name):
    for verb in ("train", "reconstruct", "evaluate"):
        logger = composed(verb, f"logger={name}").logger
        assert logger.name == name
        if name != "none":
            make = without(logger.make, "_target_")
            place = {"wandb": {"folder": 0, "verb": 0}}.get(name, {"save_dir": 0, "version": 0})
            signature(get_object(logger.make._target_)).bind(**make, **place)
