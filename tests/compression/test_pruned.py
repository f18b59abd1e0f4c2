import copy

import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from mrisem.compression.pruned import Pruned, channel_scores, choose, convolutions, cut, mark
from mrisem.errors import InputError
from mrisem.imagenet.layers import ConvolutionalLayers
from mrisem.imagenet.weights import random_weights
from mrisem.prior.image import builder


def random_masks(layers):
    generator = torch.Generator().manual_seed(0)
    sizes = {name: len(conv.bias) for name, conv in convolutions(layers).items()}
    masks = {name: torch.rand(n, generator=generator) < 0.5 for name, n in sizes.items()}
    masks[[*masks][-1]][:] = True
    return masks


@pytest.mark.parametrize(("network", "n_blocks"), [("alexnet", 3), ("vgg16", 2)])
def test_a_network_without_channels_equals_the_whole_one_with_these_at_zero(network, n_blocks):
    layers = ConvolutionalLayers(network, random_weights(network, 0), n_blocks)
    masks = random_masks(layers)
    zeroed = {name: weight.clone() for name, weight in random_weights(network, 0).items()}
    for name, mask in masks.items():  # without torch's pruning
        zeroed[f"{name}.weight"][~mask] = 0
        zeroed[f"{name}.bias"][~mask] = 0
    pixels = torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    expected = ConvolutionalLayers(network, zeroed, n_blocks)(pixels)[-1]
    mark(layers, masks)
    torch.testing.assert_close(layers(pixels)[-1], expected, rtol=1e-5, atol=1e-6)
    small = ConvolutionalLayers(network, cut(layers, masks), n_blocks)
    torch.testing.assert_close(small(pixels)[-1], expected, rtol=1e-5, atol=1e-6)
    for name, conv in convolutions(small).items():
        assert conv.out_channels == int(masks[name].sum()) == len(conv.weight)


def test_scores_are_changes_of_the_margin_when_a_channel_shrinks(teacher, slices):
    """Central differences of the similarities, with the first layers written out."""
    weights = random_weights("alexnet", 0)
    del slices[1:]
    scores, areas = channel_scores(teacher, teacher.encoder.network.layers, slices)
    (good, bad, _) = slices[0]
    pixels = teacher.encoder.prepare(torch.stack([good, bad]))
    first = conv2d(pixels, weights["0.weight"], weights["0.bias"], 4, 2).relu()
    assert areas["0"] == first.shape[2] * first.shape[3]
    level, channel = teacher.bank.levels[2], int(scores["0"].argmax())

    def margins(factor):
        scaled = first.clone()
        scaled[:, channel] *= factor
        second = conv2d(max_pool2d(scaled, 3, 2), weights["3.weight"], weights["3.bias"], 1, 2)
        cells = torch.nn.functional.adaptive_avg_pool2d(second.relu(), 4).flatten(2).mT
        z = level.project(cells).flatten(1)
        n = level.n_positives
        s = z @ level.entries.T / 16
        return (s[:, :n].mean(1) - s[:, n:].mean(1)) * torch.tensor([1.0, -1.0])

    expected = ((margins(1.02) - margins(0.98)) / 0.04).abs().mean()
    torch.testing.assert_close(scores["0"][channel], expected, rtol=0.03, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in teacher.encoder.parameters())


def multiplications(masks, areas):
    """Of AlexNet's first three convolutions, counted by hand."""
    n = [3, *(int(mask.sum()) for mask in masks.values())]
    kernels = (121, 25, 9)
    return sum(
        a * k * i * o for a, k, i, o in zip(areas.values(), kernels, n[:-1], n[1:], strict=True)
    )


def test_choose_leaves_the_share_and_drops_what_counts_least_for_its_cost():
    convs = convolutions(ConvolutionalLayers("alexnet", random_weights("alexnet", 0), 3))
    areas = {"0": 100, "3": 50, "6": 20}
    everything = {n: torch.ones(len(c.bias), dtype=torch.bool) for n, c in convs.items()}
    generator = torch.Generator().manual_seed(0)
    scores = {n: torch.rand(len(c.bias), generator=generator) for n, c in convs.items()}
    scores["3"][7] = 0.0
    masks = choose(convs, everything, scores, areas, {"6"}, 0.4)
    limit = 0.4 * multiplications(everything, areas)
    assert multiplications(masks, areas) <= limit
    assert all(mask.all() for mask in everything.values())  # as they were
    assert masks["6"].all()
    assert not masks["3"][7]
    for name in ("0", "3"):
        gone, kept = scores[name][~masks[name]], scores[name][masks[name]]
        assert gone.max() < kept.min()
    back = {name: mask.clone() for name, mask in masks.items()}
    back["3"][(scores["3"] * ~masks["3"]).argmax()] = True
    back["0"][(scores["0"] * ~masks["0"]).argmax()] = True
    assert multiplications(back, areas) > limit
    with pytest.raises(InputError, match=r"compression\.cost must be at least"):
        choose(convs, everything, scores, areas, {"0", "3", "6"}, 0.4)


def test_pruning_that_was_stopped_continues_with_the_same_bits(
    teacher, slices, tmp_path, monkeypatch
):
    before = copy.deepcopy(teacher.encoder.state_dict())
    facts, weights = Pruned(0.4, 2).compress(teacher, slices, tmp_path / "whole")
    assert facts == {"network": "alexnet", "grid": 4}
    after = teacher.encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    n_rounds = []

    def scored(*arguments):
        n_rounds.append(1)
        if len(n_rounds) == 2:
            raise KeyboardInterrupt
        return channel_scores(*arguments)

    monkeypatch.setattr("mrisem.compression.pruned.channel_scores", scored)
    with pytest.raises(KeyboardInterrupt):
        Pruned(0.4, 2).compress(teacher, slices, tmp_path / "stopped")
    _, continued = Pruned(0.4, 2).compress(teacher, slices, tmp_path / "stopped")
    assert len(n_rounds) == 3
    assert weights.keys() == continued.keys()
    assert all(torch.equal(value, continued[name]) for name, value in weights.items())


def test_only_vgg16_and_alexnet_are_pruned(teacher):
    Pruned().check(teacher.encoder)
    with pytest.raises(InputError, match="set encoder=vgg16 or alexnet"):
        Pruned().check(builder.SomeLevels(teacher.encoder, (2,)))
