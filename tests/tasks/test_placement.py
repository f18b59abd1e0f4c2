"""Gradients of every composition of losses, against a plain sum and a dense solve."""

import math

import pytest
import torch

from mrisem.errors import InputError
from mrisem.networks.stacked import stack
from mrisem.networks.unet import Unet
from mrisem.networks.unrolled import Unrolled
from mrisem.physics.sense import Measurement, SenseOperator
from mrisem.tasks.fitting import PerScanFit, ScanFit
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.tasks.network import NetworkTask
from mrisem.tasks.objectives import Placement, SelfSupervised, gradients_at
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.samples import data_consistency_loss
from mrisem.tasks.weights import SliceWeights
from mrisem.types import Batch, SliceInfo

STAGES = 2
COMPOSITIONS = [(d, p) for d in ("image", "stages") for p in ("image", "network", "stages")]
TV = Regulariser("tv", 0.1)


@pytest.fixture
def batch():
    """Two slices of 8 x 6 pixels in double precision: small enough for dense solves."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, dtype=torch.complex128, generator=generator)

    maps = noise(2, 3, 8, 6)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = torch.rand(2, 8, 6, generator=generator) < 0.6
    kspace = SenseOperator(maps, mask).forward(noise(2, 8, 6))
    info = tuple(SliceInfo("a.h5", i, 2, "AXT2", "s", 2.0) for i in range(2))
    return Batch(kspace, mask, maps, torch.ones(2), (6, 6), info)


@pytest.fixture
def network():
    network = Unrolled(
        STAGES,
        4,
        1,
        initial_lambda=0.3,
        cg_iterations=300,
        cg_tolerance=1e-13,
        gradient_tolerance=1e-13,
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.startswith("unets"):
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network.double()


def stages(network, batch):
    """Network outputs and images of each stage, each solved as one dense system."""
    n, y, x = batch.mask.shape
    sense = Measurement.of(batch)
    pixels = torch.eye(y * x, dtype=torch.complex128).reshape(y * x, 1, y, x)
    columns = [sense.normal(pixel.expand(n, y, x)).flatten(1) for pixel in pixels]
    normal = torch.stack(columns, dim=2)
    image = adjoint = sense.adjoint(batch.masked_kspace)
    outputs, images = [], []
    for unet, log_lambda in zip(network.unets, network.log_lambdas, strict=True):
        outputs.append(unet(image))
        weight = log_lambda.exp()
        right = (adjoint + weight * outputs[-1]).flatten(1)
        matrix = normal + weight * torch.eye(y * x)
        image = torch.linalg.solve(matrix, right).reshape(n, y, x)
        images.append(image)
    return outputs, images


def acting(outputs, images, loss_on, prior_on):
    """Images of the data loss and of the prior, said once more in other words."""
    data = [images[-1]] if loss_on == "image" else [*outputs, *images]
    prior = {"image": [images[-1]], "network": [outputs[-1]], "stages": images}[prior_on]
    return data, prior


def data_loss(batch, images):
    return sum(data_consistency_loss(batch, image, batch.mask) for image in images)


def semantic_loss(batch, images):
    return sum(image[:, 1:7].abs().square().sum((1, 2)) for image in images)  # the central 6 rows


def guided(batch, squared_magnitude, **steering):
    return Guidance(squared_magnitude, batch, Steering(**steering))


@pytest.mark.parametrize(("loss_on", "prior_on"), COMPOSITIONS)
def test_gradients_are_those_of_the_plain_sum(batch, network, squared_magnitude, loss_on, prior_on):
    guidance = guided(batch, squared_magnitude, weight=0.02)
    terms = lambda image: {"data": data_consistency_loss(batch, image, batch.mask)}  # noqa: E731
    _, images, gradients = gradients_at(
        network(batch), terms, TV, guidance, 0, Placement(loss_on, prior_on)
    )
    torch.autograd.backward(images, gradients)
    outputs, plain = stages(network, batch)
    data, prior = acting(outputs, plain, loss_on, prior_on)
    total = data_loss(batch, data) + TV(plain[-1]) + 0.02 * semantic_loss(batch, prior)
    parameters = [*network.parameters()]
    for parameter, expected in zip(
        parameters, torch.autograd.grad(total.sum(), parameters), strict=True
    ):
        error = (parameter.grad - expected).norm() / expected.norm().clamp_min(1e-6)
        assert error < 1e-5


@pytest.mark.parametrize("loss_on", ["image", "stages"])
def test_balance_at_the_network_output_counts_what_passes_through_the_solve(
    batch, network, squared_magnitude, loss_on
):
    guidance = guided(batch, squared_magnitude, weight=0.02)
    terms = lambda image: {"data": data_consistency_loss(batch, image, batch.mask)}  # noqa: E731
    values, *_ = gradients_at(network(batch), terms, TV, guidance, 0, Placement(loss_on, "network"))
    outputs, plain = stages(network, batch)
    data, (last,) = acting(outputs, plain, loss_on, "network")
    total = data_loss(batch, data) + TV(plain[-1])
    (expected,) = torch.autograd.grad(total.sum(), last)
    (semantic,) = torch.autograd.grad(semantic_loss(batch, [last]).sum(), last)
    ratio = 0.02 * semantic.flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    torch.testing.assert_close(values["gradient_balance"], ratio, rtol=1e-6, atol=0)


def test_balance_at_all_stages_compares_the_stacked_gradients(batch, network, squared_magnitude):
    guidance = guided(batch, squared_magnitude, weight=math.inf, balance=0.3)
    terms = lambda image: {"data": data_consistency_loss(batch, image, batch.mask)}  # noqa: E731
    values, *_ = gradients_at(
        network(batch), terms, None, guidance, 0, Placement("stages", "stages")
    )
    expected = torch.full((2,), 0.3, dtype=torch.float64)
    torch.testing.assert_close(values["gradient_balance"], expected)


def test_values_are_those_of_the_last_image_in_every_composition(batch, network, squared_magnitude):
    terms = lambda image: {"data": data_consistency_loss(batch, image, batch.mask)}  # noqa: E731
    result = network(batch)
    for loss_on, prior_on in COMPOSITIONS:
        guidance = guided(batch, squared_magnitude)
        values, *_ = gradients_at(result, terms, TV, guidance, 0, Placement(loss_on, prior_on))
        torch.testing.assert_close(values["data"], terms(result.image)["data"])
        guided_image = result.network_outputs[-1] if prior_on == "network" else result.image
        torch.testing.assert_close(values["semantic"], semantic_loss(batch, [guided_image]))


@pytest.mark.parametrize(("loss_on", "prior_on"), COMPOSITIONS)
def test_fit_of_each_slice_takes_the_step_of_the_plain_sum(
    make_batch, squared_magnitude, monkeypatch, loss_on, prior_on
):
    batch, taken = make_batch(), []
    monkeypatch.setattr(SliceWeights, "step", lambda _, gradient: taken.append(gradient))
    torch.manual_seed(0)
    template = Unrolled(STAGES, 4, 2, cg_iterations=40, cg_tolerance=1e-7, gradient_tolerance=1e-7)
    settings = PerScanFit(1, progress=False)
    guidance = guided(batch, squared_magnitude, weight=1e-3)
    fit = ScanFit(stack(template, 2), batch, 0, guidance, Placement(loss_on, prior_on))
    mask_dc, mask_loss, _ = fit.split(settings)
    fit.run(settings)
    for i, gradients in enumerate(*taken):
        scan = batch.select(i)
        result = template(scan, mask_dc[i : i + 1])
        data, prior = acting(result.network_outputs, result.iterates[1:], loss_on, prior_on)
        loss = sum(data_consistency_loss(scan, image, mask_loss[i : i + 1]) for image in data)
        rows = slice(18, 54)
        loss = loss + 1e-3 * sum(image[:, rows].abs().square().sum((1, 2)) for image in prior)
        expected = torch.autograd.grad(loss.sum(), [*template.parameters()])
        parts = gradients.split([gradient.numel() for gradient in expected])
        for part, gradient in zip(parts, expected, strict=True):
            error = (part - gradient.flatten()).norm() / gradient.norm().clamp_min(1e-4)
            assert error < 1e-3


def test_training_step_takes_the_composition(make_batch, squared_magnitude):
    batch, objective = make_batch(), SelfSupervised()
    torch.manual_seed(0)
    network = Unrolled(STAGES, 4, 2, cg_iterations=40, cg_tolerance=1e-7, gradient_tolerance=1e-7)
    task = NetworkTask(
        network, objective=objective, steering=Steering(1e-3), loss_on="stages", prior_on="stages"
    )
    task.priors = {"AXT2": squared_magnitude}
    _, scalar = task._evaluate(batch)
    result, terms = objective(network, batch, 0, 0)
    images = result.iterates[1:]
    data = sum(terms(image)["data_consistency"] for image in (*result.network_outputs, *images))
    prior = sum(image[:, 18:54].abs().square().sum((1, 2)) for image in images)
    parameters = [*network.parameters()]
    plain = torch.autograd.grad((data + 1e-3 * prior).mean(), parameters)
    for ours, expected in zip(torch.autograd.grad(scalar, parameters), plain, strict=True):
        assert (ours - expected).norm() / expected.norm().clamp_min(1e-4) < 1e-3


def test_network_without_stages_is_refused_where_stages_are_asked_for(make_batch):
    for options in ({"loss_on": "stages"}, {"prior_on": "network"}, {"prior_on": "stages"}):
        task = NetworkTask(Unet(4, 2), PerScanFit(1, progress=False), **options)
        with pytest.raises(InputError, match=r"need a network with stages.*set both to image"):
            task.solve(make_batch(1))


def test_frozen_stages_take_no_gradient(batch, network):
    network.unets[0].requires_grad_(False)
    network.log_lambdas.requires_grad_(False)
    terms = lambda image: {"data": data_consistency_loss(batch, image, batch.mask)}  # noqa: E731
    placement = Placement(loss_on="stages")
    _, images, gradients = gradients_at(network(batch), terms, None, None, 0, placement)
    torch.autograd.backward(images, gradients)
    assert len(images) == 2
    assert all(parameter.grad is None for parameter in network.unets[0].parameters())
    assert all(parameter.grad is not None for parameter in network.unets[1].parameters())


def test_final_solve_keeps_the_stages(make_batch):
    task = NetworkTask(Unrolled(STAGES, 4, 2), None, final_lambda=0.5)
    result, _ = task.solve(make_batch())
    assert len(result.network_outputs) == STAGES
    assert result.iterates[-1] is result.image
