"""Files as people have them, made by fastMRI, Lightning's layout and plain torch.save."""

import argparse
import shutil
import zipfile
from pathlib import Path

import fastmri.models
import pytest
import torch
from omegaconf import OmegaConf

from mrisem.errors import InputError
from mrisem.networks.starts import load_start
from mrisem.networks.unet import Unet
from mrisem.networks.unrolled import Unrolled
from mrisem.networks.varnet import EndToEndVarNet


def noisy(network):
    """Weights that tell one network from another; an untrained U-Net ends in zeros."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return network


def fastmri_unet(channels=2):
    return noisy(fastmri.models.Unet(channels, channels, chans=4, num_pool_layers=2)).state_dict()


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refusal(network, path, name="unet"):
    """The message of the refusal; the network is left as it was."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_start(network, Path(path), name)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    message = str(caught.value)
    assert "\n" not in message
    return message


WRAPPINGS = {
    "bare": lambda state: state,
    "lightning": lambda state: {
        "state_dict": {**under("network.", state), "loss.w": torch.ones(1)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}},
    },
    "omegaconf": lambda state: {
        "state_dict": under("model.unet.", state),
        "hyper_parameters": OmegaConf.create({"lr": 1e-3, "sizes": [4, {"levels": "${lr}"}]}),
        "more": [argparse.Namespace(a=1), Path("a")],
    },
    "classy": lambda state: {
        "classy_state_dict": {"base_model": {"model": {"trunk": under("module.", state)}}}
    },
}


@pytest.mark.parametrize(
    ("wrapping", "old_format"),
    [*((name, False) for name in WRAPPINGS), ("bare", True), ("classy", True)],
)
def test_start_is_found_under_any_prefix(tmp_path, wrapping, old_format):
    state = fastmri_unet()
    path = tmp_path / "epoch=3-step=40.ckpt"
    saved(path, WRAPPINGS[wrapping](state), _use_new_zipfile_serialization=not old_format)
    network = Unet(channels=4, levels=2)
    load_start(network, path, "unet")
    loaded = network.unet.unet.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@pytest.mark.parametrize("make", [lambda: Unet(4, 2), lambda: Unrolled(2, 4, 2)])
def test_start_of_ours_returns_every_weight(tmp_path, make):
    network = noisy(make())
    path = saved(tmp_path / "last.ckpt", {"state_dict": under("network.", network.state_dict())})
    other = make()
    load_start(other, path, "model")
    expected = network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize("ours", [True, False])
def test_start_from_a_unet_enters_every_stage(tmp_path, ours):
    state = fastmri_unet()
    path = saved(tmp_path / "unet.pt", under("network.unet.unet.", state) if ours else state)
    network = Unrolled(stages=3, channels=4, levels=2)
    load_start(network, path, "unrolled")
    for stage in network.unets:
        loaded = stage.unet.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in state.items())
    torch.testing.assert_close(network.log_lambdas[2].exp(), torch.tensor(0.01))


def test_start_takes_fastmris_varnet_with_its_loss_beside_it(tmp_path):
    make = lambda: EndToEndVarNet(2, 4, 2, 2, 2)  # noqa: E731
    published = noisy(make()).varnet.state_dict()
    content = {"state_dict": {**under("varnet.", published), "loss.w": torch.ones(1)}}
    for index, held in enumerate((published, content)):
        network = make()
        load_start(network, saved(tmp_path / f"{index}.pt", held), "varnet")
        loaded = network.varnet.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in published.items())


def test_start_by_the_name_of_the_shipped_weights():
    network = Unrolled(stages=3, channels=8, levels=4)
    load_start(network, Path("unrolled_mini"), "unrolled")
    assert all(unet.unet.up_conv[-1][-1].weight.any() for unet in network.unets)


def test_start_of_other_precision_is_rounded(tmp_path):
    state = {key: value.bfloat16() for key, value in fastmri_unet().items()}
    network = Unet(4, 2)
    load_start(network, saved(tmp_path / "half.pt", state), "unet")
    first = network.unet.unet.down_sample_layers[0].layers[0].weight
    assert first.dtype == torch.float32
    assert torch.equal(first.data, state["down_sample_layers.0.layers.0.weight"].float())


def test_start_of_other_sizes_names_the_first_mismatch_and_counts_the_others(tmp_path):
    path = saved(tmp_path / "unet.pt", fastmri_unet())
    wide = refusal(Unet(channels=8, levels=2), path)
    assert "model=unet (unet.unet.down_sample_layers.0.layers.0.weight is (4, 2, 3, 3)" in wide
    pairs = zip(Unet(8, 2).parameters(), Unet(4, 2).parameters(), strict=True)
    n_others = sum(a.shape != b.shape for a, b in pairs) - 1
    assert f"expected (8, 2, 3, 3), and {n_others} others); set the sizes" in wide
    assert "scale.unet.*" in wide
    assert "down_sample_layers.2.layers.0.weight is missing" in refusal(Unet(4, 3), path)


def test_start_of_other_stages_is_refused(tmp_path):
    path = saved(tmp_path / "unrolled.pt", Unrolled(2, 4, 2).state_dict())
    more = refusal(Unrolled(3, 4, 2), path, "unrolled")
    assert "unets.2.unet.down_sample_layers.0.layers.0.weight is missing, and 14 others" in more
    fewer = refusal(Unrolled(1, 4, 2), path, "unrolled")
    assert "unets.1.unet.down_sample_layers.0.layers.0.weight is unexpected" in fewer
    assert "got 2, under 'unets.0.unet.' and 1 others" in refusal(Unet(4, 2), path)


def test_start_from_fastmris_published_unet_says_that_it_takes_magnitudes(tmp_path):
    path = saved(tmp_path / "knee.pt", {"classy_state_dict": fastmri_unet(channels=1)})
    for network, name in ((Unet(4, 2), "unet"), (Unrolled(2, 4, 2), "unrolled")):
        message = refusal(network, path, name)
        assert "is (4, 1, 3, 3), expected (4, 2, 3, 3), and 2 others" in message
        assert "magnitude images in 1 channel, as fastMRI's published U-Net does" in message


def test_start_of_another_model_is_refused(tmp_path):
    path = saved(tmp_path / "unet.pt", fastmri_unet())
    message = refusal(EndToEndVarNet(2, 4, 2, 2, 2), path, "varnet")
    assert "must hold weights of model=varnet, such as varnet." in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_start_that_is_not_finite_names_the_weight(tmp_path, value):
    state = fastmri_unet()
    state["up_conv.0.layers.0.weight"][1, 2, 0, 0] = value
    message = refusal(Unet(4, 2), saved(tmp_path / "nan.pt", state))
    assert "unet.unet.up_conv.0.layers.0.weight holds NaN or infinity" in message


def test_start_never_runs_what_a_file_names(tmp_path):
    class Trap:
        def __reduce__(self):
            return shutil.copyfile, (__file__, str(tmp_path / "sprung"))

    path = saved(tmp_path / "trap.pt", {"state_dict": fastmri_unet(), "hyper_parameters": Trap()})
    load_start(Unet(4, 2), path, "unet")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("old_format", [False, True])
def test_start_that_is_a_pickled_module_says_how_to_save_weights(tmp_path, old_format):
    module = fastmri.models.Unet(2, 2, 4, 2)
    path = saved(tmp_path / "module.pt", module, _use_new_zipfile_serialization=not old_format)
    assert "torch.save(network.state_dict(), FILE)" in refusal(Unet(4, 2), path)
    if not old_format:
        assert "objects of 'fastmri.models.unet.ConvBlock'" in refusal(Unet(4, 2), path)


@pytest.mark.parametrize("old_format", [False, True])
def test_start_that_is_cut_off_anywhere_is_refused(tmp_path, old_format):
    path = tmp_path / "cut.ckpt"
    saved(path, fastmri_unet(), _use_new_zipfile_serialization=not old_format)
    whole = path.read_bytes()
    for share in (0, 0.01, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "cannot be read" in refusal(Unet(4, 2), path)


def test_start_that_is_no_file_of_torch_is_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    contents = {
        "text.ckpt": b"not a checkpoint",
        "page.ckpt": b"<!DOCTYPE html>\n<html></html>",
        "pointer.ckpt": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "noise.ckpt": torch.randint(256, (999,), generator=generator).byte().numpy().tobytes(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert "cannot be read" in refusal(Unet(4, 2), tmp_path / name)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("a.txt", "a")
    assert "cannot be read" in refusal(Unet(4, 2), tmp_path / "other.zip")


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [torch.ones(2)], torch.ones(2), 3])
def test_start_without_named_tensors_is_refused(tmp_path, content):
    message = refusal(Unet(4, 2), saved(tmp_path / "empty.ckpt", content))
    assert "it holds no tensor under a name" in message


def test_start_that_is_missing_or_a_folder_is_refused(tmp_path):
    assert "does not exist" in refusal(Unet(4, 2), tmp_path / "nothing.ckpt")
    assert "is a folder" in refusal(Unet(4, 2), tmp_path)
