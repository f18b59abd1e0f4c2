import copy

import pytest
import torch
from fastmri.models import Unet
from torch import nn

from mrisem.errors import InputError
from mrisem.networks.adapters import LoRA, attach
from mrisem.networks.unrolled import Unrolled
from mrisem.physics.sense import SenseOperator
from mrisem.types import Batch, SliceInfo


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_batch(y=32, x=24):
    generator = seeded()
    maps = torch.randn(1, 3, y, x, dtype=torch.complex64, generator=generator)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = (torch.rand(1, 1, x, generator=generator) < 0.5).expand(1, y, x)
    image = torch.randn(1, y, x, dtype=torch.complex64, generator=generator)
    kspace = SenseOperator(maps, mask).forward(image)
    return Batch(
        kspace, mask, maps, torch.ones(1), (y, x), (SliceInfo("a.h5", 0, 1, "AXT2", "s", 2.0),)
    )


def make_unet():
    return Unet(2, 2, chans=4, num_pool_layers=2), torch.randn(1, 2, 16, 16, generator=seeded())


def make_unrolled():
    network = Unrolled(stages=2, channels=4, levels=2)
    for unet in network.unets:  # away from the zero start
        nn.init.normal_(unet.unet.up_conv[-1][-1].weight, std=0.1, generator=seeded())
    return network, make_batch()


def make_siren():
    network = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 16), nn.Linear(16, 2))
    return network, torch.randn(10, 2, generator=seeded())


CASES = pytest.mark.parametrize("make", [make_unet, make_unrolled, make_siren])


def adapted(network):
    """Names of the layers that carry factors."""
    names = (name.partition(".lora_A") for name, _ in network.named_parameters())
    return {layer for layer, factor, _ in names if factor}


def output(network, given):
    result = network(given)
    return result if isinstance(result, torch.Tensor) else result.image


def train(network, given, steps=4):
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        (output(network, given) - 1).abs().square().sum().backward()
        optimiser.step()


@CASES
def test_attach_starts_as_the_same_network(make):
    network, given = make()
    before = output(network, given)
    attach(network, LoRA(rank=2), seeded())
    assert torch.equal(output(network, given), before)


@CASES
def test_attach_trains_factors_and_nothing_else(make):
    network, given = make()
    originals = {name: value.clone() for name, value in network.state_dict().items()}
    attach(network, LoRA(rank=2), seeded())
    train(network, given)
    for name, value in network.state_dict().items():
        plain = name.replace("base_layer.", "")
        if plain in originals and not plain.startswith("log_lambdas"):
            assert torch.equal(value, originals[plain]), name
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name


def test_attach_counts_alpha_over_rank_and_no_more_than_the_rank():
    network, _ = make_siren()
    start = network[0].weight.detach().clone()
    attach(network, LoRA(rank=1, alpha=3.0), seeded())
    layer = network[0]
    nn.init.normal_(layer.lora_B.default.weight, generator=seeded())
    change = 3.0 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    points = torch.randn(10, 2, generator=seeded())
    expected = nn.functional.linear(points, start + change, layer.base_layer.bias)
    torch.testing.assert_close(layer(points), expected)


def test_attach_adapts_every_convolution_of_the_unrolled_network_and_says_its_share(caplog):
    network, _ = make_unrolled()
    plain = sum(p.numel() for p in network.parameters())
    convolutions = {n: m for n, m in network.named_modules() if type(m) is nn.Conv2d}
    with caplog.at_level("INFO"):
        attach(network, LoRA(rank=3), seeded())
    assert adapted(network) == set(convolutions)
    factors = sum(
        3 * (m.in_channels * m.kernel_size[0] * m.kernel_size[1] + m.out_channels)
        for m in convolutions.values()
    )
    trained = {n for n, p in network.named_parameters() if p.requires_grad and "lora" not in n}
    assert trained == {"log_lambdas.0", "log_lambdas.1"}
    assert f"{factors + 2} of {plain + factors}" in caplog.text


def test_peft_refuses_transposed_convolutions():
    # the reason why `attach` leaves them out; when this fails, adapt them
    from peft import LoraConfig, inject_adapter_in_model

    with pytest.raises(ValueError, match="ConvTranspose2d"):
        inject_adapter_in_model(
            LoraConfig(target_modules=["0"]), nn.Sequential(nn.ConvTranspose2d(2, 2, 2))
        )


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (r"conv\..*", ["conv.layers.0", "conv.layers.4"]),
        (("conv.layers.0",), ["conv.layers.0"]),
        (["up_conv.1.1", "up_conv.0.layers.4"], ["up_conv.0.layers.4", "up_conv.1.1"]),
    ],
)
def test_attach_adapts_only_the_targets(targets, expected):
    network, _ = make_unet()
    attach(network, LoRA(rank=1, targets=targets), seeded())
    assert sorted(adapted(network)) == expected


def test_attach_draws_from_its_generator_alone():
    states = []
    for seed in (0, 0, 1):
        network, _ = make_siren()
        before = torch.get_rng_state()
        attach(network, LoRA(rank=2), seeded(seed))
        assert torch.equal(torch.get_rng_state(), before)
        states.append(network.state_dict()["0.lora_A.default.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_attach_deep_copies_are_independent():
    template, given = make_unrolled()
    attach(template, LoRA(rank=2), seeded())
    frozen = {name: value.clone() for name, value in template.state_dict().items()}
    one, two = copy.deepcopy(template), copy.deepcopy(template)
    train(one, given)
    for name, value in frozen.items():
        assert torch.equal(template.state_dict()[name], value)
        assert torch.equal(two.state_dict()[name], value)
    assert not torch.allclose(output(one, given), output(two, given), atol=1e-3)


def test_attach_state_dict_round_trip(tmp_path):
    network, given = make_unet()
    attach(network, LoRA(rank=2), seeded())
    train(network, given)
    torch.save(network.state_dict(), tmp_path / "factors.pt")
    other, _ = make_unet()
    attach(other, LoRA(rank=2), seeded(7))
    other.load_state_dict(torch.load(tmp_path / "factors.pt", weights_only=True))
    assert torch.equal(output(other, given), output(network, given))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 2),
        nn.Identity(),
    ],
)
def test_attach_to_nothing_is_an_error(layer):
    with pytest.raises(InputError, match=r"^LoRA needs nn\.Conv2d .* got none in .*$"):
        attach(nn.Sequential(layer, nn.ReLU()), LoRA(), seeded())


@pytest.mark.parametrize("targets", ["encoder.*", ["layers.0", "query"], r".*up_transpose_conv.*"])
def test_attach_target_that_matches_nothing_is_an_error(targets):
    network, _ = make_unet()
    with pytest.raises(
        InputError, match=r"names none; name some of 'down_sample_layers\.0"
    ) as error:
        attach(network, LoRA(targets=targets), seeded())
    assert "\n" not in str(error.value)
    assert not adapted(network)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"targets": ()}, "targets must not be empty"),
        ({"targets": "("}, "targets must be a regular expression"),
    ],
)
def test_lora_bad_settings_are_errors(settings, rule):
    network, _ = make_unet()
    with pytest.raises(InputError, match=rule):
        attach(network, LoRA(**settings), seeded())


def test_attach_shared_layers_are_an_error():
    layer = nn.Conv2d(2, 2, 1)
    with pytest.raises(InputError, match="shared"):
        attach(nn.Sequential(layer, nn.ReLU(), layer), LoRA(rank=1), seeded())
