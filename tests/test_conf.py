"""Every YAML composes, is held to the schema, and what it names can be made."""

from inspect import signature

import pytest
import torch
import yaml
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from mrisem.cli import VERBS
from mrisem.config.compose import CONF, compose
from mrisem.config.schema import VERBS as SCHEMAS
from mrisem.errors import InputError
from mrisem.verbs.pieces import group_options, make_datamodule, new_task
from mrisem.verbs.priors import make_encoder, make_generator, make_prior_builder

START = "model.checkpoint=unused"  # a fit of a trained network names one


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(verb, *overrides):
    return compose(verb, [*overrides, "output_dir=x"])


def test_conf_every_verb_has_a_schema():
    assert VERBS.keys() == SCHEMAS.keys()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("scale", options("scale"))
def test_conf_every_verb_composes_and_is_checked(verb, scale):
    scaled = [] if verb in ("adapt", "report", "export") else [f"scale={scale}"]
    config = composed(verb, *scaled)
    assert "${" not in OmegaConf.to_yaml(config)


def test_conf_has_no_group_that_these_tests_leave_out():
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    tested = {"scale", "model", "mask", "data", "encoder", "prior", "trainer", "metrics", "prompt"}
    tested |= {"fit", "regulariser", "objective", "logger", "steering", "experiment"}
    tested |= {"compression"}
    tested |= {"hydra", "generator"}  # tests/test_ray.py
    assert groups == tested


@pytest.mark.parametrize("name", options("model"))
def test_conf_every_model_can_be_made(name):
    config = composed("reconstruct", f"model={name}", "scale=smoke")
    assert config.model.name == name
    assert new_task(config) is not None


@pytest.mark.parametrize(("place", "fit"), [*enumerate(options("fit"))])
@pytest.mark.parametrize(("shift", "regulariser"), [*enumerate(options("regulariser"))])
def test_conf_every_way_of_fitting_can_be_made(place, fit, shift, regulariser):
    """Each pair of model, fit and regulariser in one of the ways."""
    model = ("unet", "unrolled", "varnet")[(place + shift) % 3]
    overrides = [f"model={model}", f"fit={fit}", f"regulariser={regulariser}", "scale=smoke", START]
    task = new_task(composed("reconstruct", *overrides))
    assert (task.fit is None) == (fit == "none")
    assert fit == "none" or (task.fit.lora is not None) == (fit == "lora")
    assert getattr(task.regulariser, "name", "none") == regulariser


def test_conf_the_network_that_ships_fits_its_scale():
    from mrisem.verbs.pieces import make_task

    plain = make_task(composed("reconstruct", "scale=demo")).network.state_dict()
    start = "model.checkpoint=unrolled_mini"
    shipped = make_task(composed("reconstruct", "scale=demo", start)).network.state_dict()
    assert all(value.dtype == torch.float32 for value in shipped.values())
    assert not any(torch.equal(value, shipped[name]) for name, value in plain.items())


@pytest.mark.parametrize("name", options("objective"))
def test_conf_every_objective_can_be_made(name):
    task = new_task(composed("train", f"objective={name}", "scale=smoke"))
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
    config = composed("reconstruct", f"encoder={name}", "prior=image_same")
    make = make_encoder(config)
    signature(make.func).bind(*make.args, **make.keywords)
    defaults = config.encoder.prior_defaults
    for key in ("components", "level_weights"):
        assert defaults.get(key) is None or len(defaults[key]) == len(config.encoder.levels)


@pytest.mark.parametrize("name", options("generator"))
def test_conf_every_generator_names_arguments_that_exist(name):
    config = composed("reconstruct", f"generator={name}", "prior=generative")
    make = make_generator(config)
    signature(make.func).bind(*make.args, **make.keywords)
    assert config.prior.generator.name == name


@pytest.mark.parametrize("name", options("compression"))
def test_conf_every_compression_can_be_made(name):
    config = composed("compress", f"compression={name}")
    assert config.compression.name == name
    assert callable(instantiate(group_options(config.compression, "name")).compress)


@pytest.mark.parametrize("name", options("prompt"))
def test_conf_every_prompt_has_five_wordings_and_two_targets(name):
    questions = set()
    for wording in range(5):
        target = ("positive", "negative")[wording % 2]
        overrides = [f"prompt={name}", f"prompt.wording={wording}", f"prompt.target={target}"]
        config = composed("reconstruct", "prior=image_language", *overrides)
        prompt = instantiate(group_options(config.prompt))
        assert prompt.target == target
        questions.add(prompt.question)
    assert len(questions) == 5


@pytest.mark.parametrize("name", [n for n in options("prior") if n != "none"])
def test_conf_every_prior_can_be_built_and_steers(name):
    config = composed("reconstruct", f"prior={name}", "scale=smoke")
    assert callable(make_prior_builder(config))
    assert new_task(config).steering.weight > 0


@pytest.mark.parametrize("encoder", options("encoder"))
def test_conf_image_priors_agree_with_every_encoder(encoder):
    config = composed("reconstruct", "prior=image_same", f"encoder={encoder}")
    assert list(make_prior_builder(config).levels) == list(config.encoder.levels)


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
            make = group_options(logger.make, "_target_")
            signature(get_object(logger.make._target_)).bind(**make, save_dir=0, version=0)


# key -> the paper's value (Feng et al., arXiv:2511.19641); lambdas in our scale, for 320 x 368
IMAGE_ROUTE = {
    "mask.acceleration": 4,
    "mask.calibration_lines": 24,
    "mask.std_fraction": 0.25,
    "encoder.path": "deepseek-community/Janus-Pro-1B",
    "prior.levels": [1, 13, 24],
    "prior.level_weights": [0.005, 0.5, 1.0],
    "prior.components": [64, 128, 256],
    "prior.temperature": 0.07,
    "prior.contrast": "same",
    "prior.balance": None,
    "prior.jitter": None,
    "prior.start_iteration": 0,
    "prior.unmeasured_only": False,
}
FIT = {
    "fit.name": "lora",
    "fit.settings.iterations": 1500,
    "fit.settings.learning_rate": 1e-3,
    "fit.settings.halve_every": 1000,
    "fit.settings.validation_share": None,
}
UNROLLED = {
    "model.task.network.stages": 4,
    "model.task.network.channels": 64,
    "model.task.network.levels": 4,
    "model.task.network.cg_iterations": 20,
    "model.task.loss_on": "stages",
    "fit.settings.loss_share": 0.4,
    "fit.settings.calibration": "lines",
}
RECIPES = {
    "paper_unet": IMAGE_ROUTE
    | FIT
    | {
        "model.task.network.channels": 64,
        "model.task.network.levels": 4,
        "model.task.final_lambda": 0.5,
        "fit.settings.loss_share": None,
        "prior.weight": 0.1 / ((320 * 368) ** 0.5 / 4),
    },
    "paper_unrolled": IMAGE_ROUTE
    | FIT
    | UNROLLED
    | {"model.task.prior_on": "network", "prior.weight": 1 / ((320 * 368) ** 0.5 * 0.4 / 4)},
    "paper_inr": IMAGE_ROUTE
    | {
        "model.task.network.layers": 8,
        "model.task.network.width": 256,
        "model.task.network.omega": 15,
        "model.task.network.adaptor_layers": 3,
        "model.task.network.adaptor_width": 256,
        "model.task.first.iterations": 1600,
        "model.task.second.iterations": 1600,
        "model.task.first_regulariser.name": "tv",
        "model.task.first_regulariser.weight": 3 / (320 * 368) ** 0.5,
        "model.task.rates.siren": 1e-4,
        "model.task.rates.adaptor": 1e-3,
        "model.task.first.halve_every": 1600,
        "model.task.second.halve_every": 1600,
        "model.task.final_lambda": 0.05,
        "prior.weight": 5 / (320 * 368) ** 0.5,
    },
    "paper_language": FIT
    | UNROLLED
    | {
        "model.task.network.stages": 8,
        "fit.settings.iterations": 200,
        "model.task.prior_on": "stages",
        "encoder.path": "deepseek-community/Janus-Pro-1B",
        "prompt.name": "high_low_quality",
        "prior.temperature_positive": 0.1,
        "prior.temperature_negative": 0.7,
        "prior.n_perturbations": 100,
        "prior.sigma": 0.03,
        "prior.center": False,
        "prior.balance": None,
        "prior.weight": 500 / ((320 * 368) ** 0.5 * 0.4 / 4),
    },
}
SUBJECTS = {"knee": 20, "brain": 50}


@pytest.mark.parametrize("data", SUBJECTS)
@pytest.mark.parametrize("name", RECIPES)
def test_conf_recipes_hold_the_papers_numbers(name, data):
    start = [] if name == "paper_inr" else [START]
    config = composed("reconstruct", f"experiment={name}", f"data={data}", *start)
    wanted = RECIPES[name]
    for key, value in wanted.items():
        held = OmegaConf.select(config, key)
        if isinstance(value, float) and key.endswith("weight"):
            assert held == pytest.approx(value, rel=0.06), key  # stated to one or two digits
        else:
            assert held == value, key
    assert config.auxiliary.n_subjects == (3 if "language" in name else SUBJECTS[data])


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"paper_inr"}))
def test_conf_a_recipe_without_its_start_names_the_command(name):
    command = r"mrisem train data=brain .*model=unet scale=paper .*auxiliary.n_subjects=50 "
    with pytest.raises(InputError, match=command):
        composed("reconstruct", f"experiment={name}", "data=brain")


def test_conf_every_experiment_is_tested():
    assert set(options("experiment")) == {*RECIPES, "demo"}
    assert composed("reconstruct", "experiment=demo").data.max_slices == 1


def test_conf_leaves_hydras_mode_to_the_words():
    """`mrisem.verbs.application` then need not compose everything to look for it."""
    for path in CONF.rglob("*.yaml"):
        hydra = yaml.safe_load(path.read_text(encoding="utf-8")).get("hydra", {})
        assert path.parts[-2] == "hydra" or "mode" not in hydra, path


def test_conf_paths_expand(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCANS", "/scans")
    roots = ["data.root=~/a (b),c=d", "auxiliary.root=$SCANS/e"]
    config = composed("reconstruct", "prior=image_same", *roots)
    assert config.data.root == "/home/me/a (b),c=d"
    assert config.auxiliary.root == "/scans/e"
