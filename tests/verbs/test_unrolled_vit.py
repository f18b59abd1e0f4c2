"""`model=unrolled_vit` on the command line: what `encoder` does there, and what is refused."""

import warnings

import h5py
import numpy as np
import pytest
import torch

from mrisem.config.compose import compose
from mrisem.physics.fourier import center_crop
from mrisem.verbs.pieces import make_datamodule, make_task
from mrisem.verbs.records import make_record

VIT = ("model=unrolled_vit", "encoder=janus_mini")


@pytest.fixture(scope="module")
def data(simulated):
    select = ["data.max_slices=1", "data.acquisition=AXT2"]
    return ["data=brain", f"data.root={simulated / 'brain'}", "scale=smoke", *select]


@pytest.fixture
def start(mrisem, data, tmp_path):
    """Checkpoint of a training with features of janus_mini."""
    train = ["train", *data, *VIT, "data.train_subjects=auxiliary", f"output_dir={tmp_path}/t"]
    code, _, err = mrisem(*train)
    assert code == 0, err
    assert "no effect" not in err
    return tmp_path / "t" / "checkpoints" / "last.ckpt"


def test_vit_that_was_trained_makes_the_image_of_its_checkpoint(mrisem, data, start, tmp_path):
    content = torch.load(start, weights_only=True)["state_dict"]
    names = {name.split(".")[1] for name in content}
    assert names == {"unets", "log_lambdas", "encoder_fingerprint"}
    assert {name.split(".")[3] for name in content if ".unets." in name} == {"projections", "unet"}
    run = ["reconstruct", *data, *VIT, "fit=none", f"model.checkpoint={start}"]
    code, _, err = mrisem(*run, f"output_dir={tmp_path}/r")
    assert code == 0, err
    (path,) = (tmp_path / "r" / "reconstructions").glob("*.h5")
    with h5py.File(path) as file:
        image = file["reconstruction"][()]
    config = compose("reconstruct", [*run[1:], f"output_dir={tmp_path}/r"])
    network, module = make_task(config).network, make_datamodule(config, 1)
    network.load_state_dict({k.removeprefix("network."): v for k, v in content.items()})
    module.setup("predict")
    (batch,) = module.predict_dataloader()
    with torch.no_grad():
        magnitude = center_crop(network(batch).image.abs(), batch.crop)
    expected = magnitude * batch.scale[:, None, None]
    np.testing.assert_allclose(image, expected.numpy(), rtol=1e-4, atol=1e-4 * image.max())


def test_vit_of_another_encoder_is_refused_in_one_line(mrisem, data, start, tmp_path):
    run = ["reconstruct", *data, "model=unrolled_vit", "fit=none", f"model.checkpoint={start}"]
    code, _, err = mrisem(*run, "encoder=vgg16", f"output_dir={tmp_path}/r")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "weights must be of a network with the same encoder" in err
    # a folder of another encoder, in training and in reconstruction
    train = ["train", *data, "model=unrolled_vit", "encoder=vgg16", f"output_dir={tmp_path}/t"]
    code, _, err = mrisem(*train, "data.train_subjects=auxiliary")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "a folder holds one run" in err
    fitted = ["reconstruct", *data, *VIT, f"output_dir={tmp_path}/r"]
    assert mrisem(*fitted)[0] == 0
    code, _, err = mrisem(*fitted, "encoder.levels=[1,3]")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "content of.encoder" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encoder=vgg16", "encoder.levels=[6]"], "levels must be different integers from 1 to"),
        (["encoder=janus_mini", "encoder.path=/nowhere"], "encoder.path must be"),
        (["encoder=vgg16", "encoder.weights=/nowhere"], "/nowhere"),
        (["encoder=vgg16", "encoder.levels=[]"], "levels must be different integers"),
        (["encoder=janus_mini", "model.checkpoint=unrolled_mini"], "does not fit model=unrolled_v"),
    ],
)
def test_vit_with_a_wrong_encoder_is_one_line(mrisem, data, tmp_path, words, said):
    run = ["reconstruct", *data, "model=unrolled_vit", *words, f"output_dir={tmp_path}/r"]
    code, _, err = mrisem(*run)
    assert (code, len(err.splitlines())) == (1, 1), err
    assert said in err


def test_encoder_acts_in_the_network_and_its_priors_defaults_do_not():
    with warnings.catch_warnings(action="error"):
        config = compose("reconstruct", [*VIT, "encoder.levels=[1,2]", "output_dir=x"])
    assert config.model.task.network.encoder.levels == [1, 2]
    assert not {"name", "prior_defaults"} & set(config.model.task.network.encoder)
    with pytest.warns(UserWarning, match="encoder.prior_defaults has no effect with prior=none"):
        compose("reconstruct", [*VIT, "encoder.prior_defaults.balance=1", "output_dir=x"])


def test_record_counts_the_encoder_of_a_network_and_not_its_path():
    def record(*words, **contents):
        return make_record(compose("reconstruct", [*VIT, "output_dir=x", *words]), contents)

    own = record(encoder="hash")
    assert own.encoder == "janus_mini"
    assert own.key == record("encoder.path=/elsewhere", encoder="hash").key
    assert record("encoder.path=/elsewhere").places["encoder.path"] == "/elsewhere"
    others = {record(encoder="other").key, record("encoder.levels=[2]", encoder="hash").key}
    others |= {record("encoder.path=/elsewhere").key, record().key}  # nobody tells its content
    assert len({own.key, *others}) == 5
