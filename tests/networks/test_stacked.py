import pytest
import torch
from torch import nn
from torch.func import functional_call

from mrisem.networks.adapters import LoRA, attach
from mrisem.networks.inr import INR
from mrisem.networks.stacked import PerSlice, StackedConv, StackedLinear, stack
from mrisem.networks.unet import Unet
from mrisem.networks.unrolled import Unrolled
from mrisem.networks.unrolled_vit import UnrolledViT
from mrisem.networks.varnet import EndToEndVarNet
from mrisem.prior.image.perceptual import load_perceptual
from mrisem.types import Reconstruction

LAYERS = [
    nn.Conv2d(3, 4, 3, padding=1),
    nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), groups=2, dilation=1),
    nn.Conv2d(3, 4, 3, padding=2, dilation=2, bias=False),
    nn.ConvTranspose2d(3, 2, 2, stride=2, bias=False),
    nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
]


def differ(module):
    """Give each slice weights of its own."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape))
    return module


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("per_slice", [1, 3])
def test_stacked_convolution_is_each_slices_own(layer, per_slice):
    torch.manual_seed(0)
    stacked = differ(StackedConv(layer, 2))
    images = torch.randn(2 * per_slice, layer.in_channels, 7, 6)
    parts = []
    for i in range(2):
        own = {name: weight[i] for name, weight in stacked.named_parameters()}
        parts.append(functional_call(layer, own, images[i * per_slice : (i + 1) * per_slice]))
    torch.testing.assert_close(stacked(images), torch.cat(parts))


@pytest.mark.parametrize("shared", [True, False])
def test_stacked_linear_is_each_slices_own(shared):
    stacked = differ(StackedLinear(nn.Linear(3, 4), 2))
    points = torch.randn(5, 3) if shared else torch.randn(2, 5, 3)
    for i, result in enumerate(stacked(points)):
        mine = points if shared else points[i]
        torch.testing.assert_close(
            result, nn.functional.linear(mine, stacked.weight[i], stacked.bias[i])
        )


class Odd(nn.Module):
    """A network of which `stack` knows nothing."""

    def __init__(self):
        super().__init__()
        self.field = nn.Parameter(torch.ones(1, 1))

    def forward(self, batch, mask=None):
        image = self.field * batch.masked_kspace.sum(1)
        return Reconstruction(image, (image,))


def networks():
    torch.manual_seed(0)
    lora = Unrolled(stages=2, channels=4, levels=2)
    attach(lora, LoRA(rank=2), torch.Generator().manual_seed(0))
    encoder = load_perceptual("vgg16", (1, 2), 4, random_seed=0)
    return {
        "unet": Unet(channels=4, levels=2),
        "unrolled": Unrolled(stages=2, channels=4, levels=2),
        "unrolled, LoRA": lora,
        "unrolled_vit": UnrolledViT(encoder, 2, 4, 2, 3),
        "varnet": EndToEndVarNet(2, 4, 2, 2, 2),
        "inr": INR(2, 16, adaptor_width=8),
        "another": Odd(),
    }


@pytest.mark.parametrize("name", networks())
def test_stacked_network_gives_what_each_slices_network_gives(name, make_batch, points_held_out):
    network, batch = networks()[name], make_batch()
    mask = points_held_out(batch)
    stacked = stack(network, len(batch))
    assert isinstance(stacked, PerSlice) == (name == "another")
    trained = [p for p in stacked.parameters() if p.requires_grad]
    assert all(len(weight) == len(batch) for weight in trained)
    with torch.no_grad():
        for weight in trained:
            weight.add_(0.05 * torch.randn(weight.shape))
    result = stacked(batch, mask)
    own = {k: p for k, p in stacked.named_parameters() if p.requires_grad}
    if name == "another":
        own = dict(zip(stacked.names, stacked.weights, strict=True))
    shapes = dict(network.named_parameters())
    for i in range(len(batch)):
        weights = {k: p[i].reshape(shapes[k].shape) for k, p in own.items()}
        alone = functional_call(network, weights, (batch.select(i), mask[i : i + 1]))
        torch.testing.assert_close(result.image[i : i + 1], alone.image, rtol=1e-3, atol=1e-4)
        assert len(result.iterates) == len(alone.iterates)


def test_frozen_weights_are_shared():
    network = networks()["unrolled, LoRA"]
    names = {name: p.shape for name, p in network.named_parameters()}
    for name, weight in stack(network, 3).named_parameters():
        expected = (3, *names[name]) if weight.requires_grad else names[name]
        assert tuple(weight.shape) == tuple(expected)
