"""Wrong configurations: each ends with exit code 1 and one line that names the option.

Of values of a wrong type or out of range only the check is run: a command line takes four times
as long.
"""

import shlex
import warnings
from copy import deepcopy
from functools import cache

import pytest
from omegaconf import OmegaConf, open_dict

from mrisem.config.compose import CONF, prepare, written_keys
from mrisem.config.compose import _compose as composed_by_hydra
from mrisem.config.overrides import parse
from mrisem.errors import InputError

GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}

PRIOR, LANGUAGE = "prior=image_same", "prior=image_language"
VALUES = {
    # of the wrong type
    "seed=abc": "seed must be",
    "seed=1.5": "seed must be",
    "seed=-1": "seed must be",
    "seed=true": "seed must be",
    "seed=[1,2]": "seed must be",
    "data.max_slices=1.5": "data.max_slices must be",
    "data.max_slices=0": "data.max_slices must be",
    "data.max_slices=many": "data.max_slices must be",
    "data.max_volumes=0": "data.max_volumes must be",
    "data.n_workers=-1": "data.n_workers must be",
    "data.max_validation_slices=0": "data.max_validation_slices must be",
    "data.sensitivity_maps=espirit": "data.sensitivity_maps must be",
    "data.axes=5": "data.axes must",
    "data.prewhiten=2": "data.prewhiten must be",
    "data.train_subjects=all": "data.train_subjects must be",
    "data.root=5": "data.root must be",
    "data.split=null": "data.split must be",
    "skip_existing=maybe": "skip_existing must be",
    "on_error=perhaps": "on_error must be",
    "trainer.devices=two": "trainer.devices must be",
    "trainer.devices=0": "trainer.devices must be",
    "returns=nosuch": "returns must be",
    "metrics.psnr=5": "metrics",
    # out of range
    f"{PRIOR} prior.levels=1": "prior.levels must be",
    f"{PRIOR} prior.levels=[1.5]": "prior.levels must be",
    f"{PRIOR} prior.level_weights=[-1]": "prior.level_weights must be",
    f"{PRIOR} prior.components=[0]": "prior.components",
    f"{PRIOR} prior.weight=abc": "prior.weight must be",
    f"{PRIOR} prior.weight=nan": "prior.weight must be",
    f"{PRIOR} prior.weight=inf": "prior.weight must be",
    f"{PRIOR} prior.weight=-1": "prior.weight must be",
    f"{PRIOR} prior.weight=null": "prior.weight must be",
    f"{PRIOR} prior.balance=-1": "prior.balance must be",
    f"{PRIOR} prior.balance=nan": "prior.balance must be",
    f"{PRIOR} prior.start_iteration=-1": "prior.start_iteration must be",
    f"{PRIOR} prior.unmeasured_only=2": "prior.unmeasured_only must be",
    f"{PRIOR} prior.temperature=0": "prior.temperature must be",
    f"{PRIOR} prior.temperature=-1": "prior.temperature must be",
    f"{PRIOR} prior.contrast=other": "prior.contrast must be",
    f"{PRIOR} prior.bank_dtype=int8": "prior.bank_dtype must be",
    f"{PRIOR} auxiliary.n_subjects=0": "auxiliary.n_subjects must be",
    f"{PRIOR} auxiliary.negatives=blurred": "auxiliary.negatives must be",
    f"{PRIOR} auxiliary.negatives=both": "model.checkpoint",
    f"{PRIOR} encoder=vgg16 encoder.grid=0": "encoder.grid must be",
    f"{PRIOR} encoder._target_=no.such.Thing": "encoder._target_ must name",
    f"{PRIOR} auxiliary.plane=oblique": "auxiliary.plane must be",
    f"{PRIOR} auxiliary.slice_step=0": "auxiliary.slice_step must be",
    f"{PRIOR} auxiliary.size=0": "auxiliary.size must be",
    f"{LANGUAGE} prior.temperature_negative=0": "prior.temperature_negative must be",
    f"{LANGUAGE} prior.n_perturbations=0": "prior.n_perturbations must be",
    f"{LANGUAGE} prior.sigma=-1": "prior.sigma must be",
    f"{LANGUAGE} prompt.target=both": "prompt.target must be",
    "prior=generative generator.guidance_scale=-1": "generator.guidance_scale must be",
    "prior=generative generator.time=late": "generator.time must be",
    "fit.iterations=abc": "fit.iterations must be",
    "fit.iterations=0": "fit.iterations must be",
    "fit.learning_rate=0": "fit.learning_rate must be",
    "fit.learning_rate=nan": "fit.learning_rate must be",
    "fit.learning_rate=1e10": "fit.learning_rate must be",
    "fit.loss_share=2": "fit.loss_share must be",
    "fit.patience=0": "fit.patience must be",
    "fit.log_every=0": "fit.log_every must be",
    "fit.validation_share=1": "fit.validation_share must be",
    "regulariser=tv regulariser.weight=-1": "regulariser.weight must be",
    "scale.unrolled.levels=0": "scale.unrolled.levels must be",
    "scale.unrolled.levels=20": "scale.unrolled.levels must be",
    "scale.unrolled.stages=0": "scale.unrolled.stages must be",
    "scale.unrolled.cg_iterations=0": "scale.unrolled.cg_iterations must be",
    "scale.fit.slices_at_once=0": "scale.fit.slices_at_once must be",
    "mask.acceleration=two": "mask.acceleration must be",
    "mask.acceleration=0.5": "mask.acceleration must be",
    "mask.calibration_lines=1.5": "mask.calibration_lines must be",
}
WRONG = {
    # values that the verb itself refuses, or options that the YAML leaves out
    "data.max_validation_slices=2": "set data.validation_subjects",
    "data.axes=[y,q]": "data.axes must",
    "mask.path=points.npy": "mask.path",
    "trainer.precision=bf16-true": "trainer.precision must be",
    "+trainer.precision=bf16-true": "trainer.precision must be",
    "trainer.max_time=[]": "trainer.max_time must be",
    f"{PRIOR} prior.levels=[1,2,99]": "level",
    f"{PRIOR} prior.levels=[1,2] prior.components=[8,8] prior.level_weights=[1]": "level_weights",
    f"{PRIOR} 'prior.jitter={{copies:0}}'": "prior.jitter",
    f"{PRIOR} encoder.dtype=int8": "encoder.dtype must be",
    f"{PRIOR} encoder=janus_mini encoder.path=/nowhere": "encoder.path must be",
    f"{PRIOR} auxiliary.plane=axial": "auxiliary.plane cuts slices of images",
    f"{LANGUAGE} prompt.wording=5": "prompt.wording must be",
    f"{LANGUAGE} encoder=vgg16": "needs a language model",
    "prior=generative generator.path=/nowhere": "generator.path must be",
    "prior=generative generator=janus_vq generator.text=brain": "unknown option generator.text",
    "mask.acceleration=[]": "mask.acceleration",
    "mask.acceleration=60": "calibration",
    # unknown
    "+foo=1": "unknown option foo",
    "foo=1": "unknown option foo",
    "++foo=1": "unknown option foo",
    f"{PRIOR} +prior.wieght=5": "did you mean prior.weight?",
    f"{PRIOR} prior.wieght=5": "did you mean prior.weight?",
    "mask.acelleration=4": "did you mean mask.acceleration?",
    "balance=.5": "did you mean prior.balance?",
    "fit.learningrate=.1": "did you mean fit.learning_rate?",
    "fit.settings.iteration=5": "did you mean fit.settings.iterations?",
    "model.task.netwrk=5": "did you mean model.task.network?",
    "model.task.network.stage=3": "did you mean model.task.network.stages?",
    "model=nosuch": "Could not find 'model/nosuch'",
    "experiment=nosuch": "Could not find 'experiment/nosuch'",
    "data.acquisition=AXT9": "AXT9",
    # without effect, or against each other
    "prior=none prior.balance=.5": "prior=none guides nothing",
    "model=zero_filled prior=image_same": "guides only networks that are fitted",
    "model=tv prior=image_same": "guides only networks that are fitted",
    "model=tv fit=lora": "fit=lora adapts",
    "model=inr fit=lora": "fit=lora adapts",
    "model=tv regulariser=tv": "takes no regulariser",
    "model=inr regulariser=tv": "takes no regulariser",
    "model=tv model.checkpoint=a.ckpt": "model.checkpoint",
    "model=unrolled fit=none": "starts from trained weights",
    "model=unrolled fit=lora": "starts from trained weights",
    "model=unet fit=none": "starts from trained weights",
    "experiment=paper_unrolled": "model=unet scale=paper",
    "fit=none fit.iterations=5 model.checkpoint=unrolled_mini": "fit=none has no option iterations",
    "regulariser=none regulariser.weight=1": "regulariser=none has no option weight",
    "mask=from_file mask.acceleration=4": "mask.acceleration",
    "model.checkpoint=/nowhere.ckpt": "model.checkpoint",
    # not of Hydra's grammar
    "data.acquisition=a(b": "quote",
    "justaword": "key=value",
}


def fails(mrisem, folder, *arguments):
    """Run a wrong command; return its one line on stderr."""
    code, _, err = mrisem("reconstruct", *arguments, f"output_dir={folder}")
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 1, err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert "append" not in lines[0]  # Hydra's advice to use +
    assert not folder.exists()
    return lines[0]


def words(text):
    """Split a row as a shell does."""
    return shlex.split(text)


@cache
def composed(*choices):
    """Compose with these choices, once: what the rows add are values."""
    return composed_by_hydra("reconstruct", ["data=brain", "scale=smoke", *choices])


@pytest.mark.parametrize("row", VALUES)
def test_wrong_value_is_refused_by_the_check_of_the_configuration(row):
    """As the command line does it, but for Hydra's part, which is the same in all rows."""
    overrides = parse(words(row))
    groups = [one for one in overrides if one.key_or_group in GROUPS]
    config = deepcopy(composed(*(one.input_line for one in groups)))
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
        config.output_dir = "x"
    for one in overrides:
        if one not in groups:
            OmegaConf.update(config, one.key_or_group, one.value())
    with pytest.raises(InputError) as refused:
        prepare("reconstruct", config, written_keys(overrides), choices)
    assert VALUES[row] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("row", WRONG)
def test_wrong_configuration_is_one_line(mrisem, simulated, tmp_path, row):
    given = words(row)
    root = (
        [] if any(w.startswith("data.root=") for w in given) else [f"data.root={simulated}/brain"]
    )
    scale = [] if "experiment=" in row else ["scale=smoke"]
    assert WRONG[row] in fails(mrisem, tmp_path / "run", *scale, *root, "data=brain", *given)


def test_wrong_wandb_mode_is_one_line(mrisem, simulated, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offlin")
    root = ["scale=smoke", f"data.root={simulated}/brain", "model=zero_filled"]
    assert "WANDB_MODE must be" in fails(mrisem, tmp_path / "run", *root, "logger=wandb")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["encoder=clip"], "encoder has no effect with prior=none"),
        (["auxiliary.n_subjects=1"], "auxiliary has no effect with prior=none"),
        (["model=zero_filled", "fit.iterations=2"], "fit has no effect with model=zero_filled"),
        (["fit.patience=3"], "fit.patience has no effect without fit.validation_share"),
        (["prior=image_same", "prompt.wording=1"], "prompt has no effect with prior=image_same"),
    ],
)
def test_harmless_options_without_effect_are_warned_of(
    mrisem, simulated, tmp_path, overrides, said
):
    root = ["scale=smoke", f"data.root={simulated}/brain", "data.acquisition=AXT2"]
    with warnings.catch_warnings(action="always"):  # as outside pytest, which makes them errors
        code, _, err = mrisem("reconstruct", *root, *overrides, f"output_dir={tmp_path}/run")
    assert code == 0, err
    assert f"mrisem: warning: {said}" in err
