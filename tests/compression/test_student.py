import numpy as np
import pytest
import torch
from torch import nn

from mrisem.compression.compression import project, varied_images
from mrisem.compression.student import MAX_MOVE, Student, imitation, moved
from mrisem.errors import InputError
from mrisem.prior.image.compressed import StudentNetwork, student_preparation
from mrisem.prior.image.perceptual import load_perceptual
from mrisem.tasks.estimate import encoder_cost

SMALL = {
    "channels": 2,
    "n_batches": 4,
    "n_variants": 2,
    "rounds": 2,
    "steps": 6,
    "learning_rate": 0.01,
}


def naive_convolution(x, weight, bias, stride, dilation):
    """``(in, y, x)`` -> ``(out, y', x')``, 3 x 3 with zeros around, one output at a time."""
    padded = np.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation)))
    rows, columns = ((n - 1) // stride + 1 for n in x.shape[1:])
    out = np.empty((len(weight), rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            patch = padded[:, top : top + 2 * dilation + 1, left : left + 2 * dilation + 1]
            patch = patch[:, ::dilation, ::dilation]
            out[:, i, j] = (weight * patch).sum((1, 2, 3)) + bias
    return out


def test_student_equals_its_convolutions_written_out():
    torch.manual_seed(0)
    network = StudentNetwork([3], 2, 2)
    pixels = torch.rand(1, 1, 32, 24)
    (tokens,) = network(pixels)
    x = pixels[0].double().numpy()
    strides, dilations = (1, 2, 2, 2, 1, 1), (1, 1, 1, 1, 1, 2)
    layers = [layer for layer in network.trunk if isinstance(layer, nn.Conv2d)]
    for conv, stride, dilation in zip(layers, strides, dilations, strict=True):
        weight, bias = (p.detach().double().numpy() for p in (conv.weight, conv.bias))
        x = naive_convolution(x, weight, bias, stride, dilation)
        x = x / (1 + np.exp(-x))
    assert x.shape == (8, 4, 3)
    head = network.heads[0]
    maps = np.einsum("oi,iyx->oyx", head.weight[:, :, 0, 0].detach().numpy(), x)
    maps += head.bias.detach().numpy()[:, None, None]
    # two windows along three columns overlap in the middle one
    cells = [maps[:, i : i + 2, j : j + 2].mean((1, 2)) for i in (0, 2) for j in (0, 1)]
    expected = np.stack([cell / np.linalg.norm(cell) for cell in cells])
    np.testing.assert_allclose(tokens[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_student_costs_less_than_a_tenth_of_vgg16():
    whole = encoder_cost(load_perceptual("vgg16", [4], 24, random_seed=0), (192, 192))
    student = nn.Sequential(
        student_preparation({"image_size": None, "resized": None}),
        StudentNetwork([64], 24, Student().channels),
    )
    assert encoder_cost(student, (192, 192)).flops < whole.flops / 20


def test_varied_images_depend_on_seed_and_number_alone(slices):
    batches = dict(varied_images(slices, 5, 3, seed=0))
    assert [*batches] == [0, 1, 2, 3, 4]
    again = dict(varied_images(slices, 4, 3, seed=0))
    assert all(torch.equal(batch, batches[number]) for number, batch in again.items())
    assert not torch.equal(dict(varied_images(slices, 1, 3, seed=1))[0], batches[0])
    for batch in batches.values():
        assert batch.shape == (3, 48, 48)
        assert batch.amin() >= 0
        torch.testing.assert_close(batch.amax((1, 2)), torch.ones(3))
    stripes = [batch.diff(dim=2).abs().mean((1, 2)) for batch in batches.values()]
    assert torch.stack(stripes).mean(0)[0] < torch.stack(stripes).mean(0)[1]


def test_imitation_is_one_less_the_mean_cosine_over_levels():
    image = torch.rand(2, 4, 4)
    right, half = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.5, 0.75**0.5]]])

    def network(images):
        assert torch.equal(images, image)
        return right, right

    batch = {"tokens 1": half, "image": image, "tokens 0": right}
    assert imitation(network, batch).item() == pytest.approx(1 - 1.5 / 2)
    assert imitation(network, batch | {"tokens 1": right}).item() == pytest.approx(0, abs=1e-6)


def test_images_move_down_the_loss_by_a_share_of_their_norm(teacher, slices):
    image = torch.stack([slices[0][1], slices[1][1]])
    generator = torch.Generator().manual_seed(0)
    found = moved(teacher, image, generator)
    before, after = (teacher.losses(x)["semantic"] for x in (image, found))
    assert (after < before).all()
    change = (found - image / image.amax((1, 2), keepdim=True)).flatten(1).norm(dim=1)
    assert (change < 1.5 * MAX_MOVE * image.flatten(1).norm(dim=1)).all()
    assert found.amin() >= 0


def test_training_approaches_the_teacher(teacher, slices, tmp_path):
    def distance(steps):
        student = Student(**SMALL | {"channels": 4, "steps": steps})
        facts, weights = student.compress(teacher, slices, tmp_path / str(steps))
        assert facts["widths"] == [5]
        assert facts["frame"] == {"image_size": None, "resized": None}
        network = StudentNetwork(facts["widths"], facts["grid"], facts["channels"])
        network.load_state_dict(weights)
        whole = nn.Sequential(student_preparation(facts["frame"]), network)
        image, parts = torch.stack([slices[1][0], slices[1][1]]), [teacher.bank.levels[2]]
        return imitation(
            whole, {"image": image, "tokens 0": project(teacher.encoder, parts, image)[0]}
        ).item()

    assert distance(60) < distance(1) - 0.3


def test_training_that_was_killed_continues_with_the_same_bits(
    teacher, slices, tmp_path, monkeypatch
):
    monkeypatch.setattr("mrisem.compression.student.SAVE_EVERY", 2)
    student = Student(**SMALL)
    _, weights = student.compress(teacher, slices, tmp_path / "whole")
    n_steps, n_asked = [], []

    def dying(*arguments):
        n_steps.append(1)
        if len(n_steps) == 4:
            raise KeyboardInterrupt
        return imitation(*arguments)

    def asked(*arguments):
        n_asked.append(1)
        if len(n_asked) == 3:
            raise KeyboardInterrupt
        return project(*arguments)

    monkeypatch.setattr("mrisem.compression.student.imitation", dying)
    monkeypatch.setattr("mrisem.compression.student.project", asked)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            student.compress(teacher, slices, tmp_path / "killed")
    _, continued = student.compress(teacher, slices, tmp_path / "killed")
    # killed at the third question, after the three steps of the first round; then at the next step
    assert (len(n_asked), len(n_steps)) == (5, 7)
    assert all(torch.equal(value, continued[name]) for name, value in weights.items())


def test_a_student_needs_a_square_grid_of_tokens(teacher):
    Student().check(teacher.encoder)
    teacher.encoder.n_tokens = 12
    with pytest.raises(InputError, match="square grid of tokens, got FrozenEncoder with 12"):
        Student().check(teacher.encoder)
