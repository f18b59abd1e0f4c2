import shutil

import pytest
import torch
from torch import nn

from mrisem.errors import InputError
from mrisem.networks.compiled import compile_network
from mrisem.networks.stacked import stack
from mrisem.networks.unet import Unet


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_network_gives_the_same_and_is_compiled_once(make_batch):
    from torch._dynamo.utils import counters

    torch.manual_seed(0)
    batch = make_batch()
    network = stack(Unet(channels=4, levels=1), len(batch))
    for weight in network.parameters():  # untrained, it is the identity
        torch.nn.init.normal_(weight, std=0.3)
    expected = network(batch).image
    compile_network(network, "default")
    counters.clear()
    torch.testing.assert_close(network(batch).image, expected, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] > 0
    for _ in range(3):
        network(batch).image.abs().sum().backward()
    after = counters["stats"]["unique_graphs"]
    network(batch).image.abs().sum().backward()
    assert counters["stats"]["unique_graphs"] == after


def test_a_network_without_anything_to_compile_is_refused():
    with pytest.raises(InputError, match=r"model\.compile needs a network with a U-Net"):
        compile_network(nn.Linear(2, 2), "default")
