import pytest
import torch

from mrisem.networks.unrolled import Unrolled
from mrisem.physics.sense import SenseOperator
from mrisem.tasks.fitting import PerScanFit, apply_each, fit_to_scans
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.tasks.losses import data_consistency_loss, data_consistency_residual
from mrisem.tasks.unrolled import UnrolledTask
from mrisem.types import Batch, SliceInfo

Y, X, COILS = 72, 64, 3


def make_batch(n=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, COILS, 1, 1, dtype=torch.complex64, generator=generator)
    maps = (maps / maps.abs().square().sum(1, keepdim=True).sqrt()).expand(n, COILS, Y, X)
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, Y), torch.linspace(-1, 1, X), indexing="ij")
    image = ((yy**2 + xx**2) < 0.5).to(torch.complex64) * (1 + 0.3 * torch.cos(9 * xx))
    mask = torch.zeros(n, Y, X, dtype=torch.bool)
    mask[:, :, ::2] = True
    mask[:, :, X // 2 - 12 : X // 2 + 12] = True
    kspace = SenseOperator(maps, mask).forward(image.expand(n, Y, X))
    info = tuple(SliceInfo("a.h5", i, n, "AXT2", "s", 1.5) for i in range(n))
    return Batch(kspace, mask, maps, torch.ones(n), (36, X), info)


def make_network():
    torch.manual_seed(0)
    return Unrolled(stages=1, channels=4, levels=2)


SETTINGS = PerScanFit(iterations=4, log_every=1, progress=False)


def fit(batch, guidance=None, settings=SETTINGS):
    return fit_to_scans(make_network(), UnrolledTask.forward_one, batch, settings, guidance, seed=0)


def test_data_consistency_loss_equals_its_formula():
    batch = make_batch()
    image = torch.randn(2, Y, X, dtype=torch.complex64)
    mask = batch.mask & (torch.rand(2, Y, X) < 0.5)
    error = SenseOperator.of(batch, mask).coil_kspace(image) - batch.masked_kspace
    for i in range(2):
        entries = error[i][:, mask[i]]
        expected = (entries.real.abs().mean() + entries.imag.abs().mean()) / 2
        torch.testing.assert_close(data_consistency_loss(batch, image, mask)[i], expected)


def test_data_consistency_residual_of_zero_is_one():
    batch = make_batch()
    zero = torch.zeros(2, Y, X, dtype=torch.complex64)
    torch.testing.assert_close(data_consistency_residual(batch, zero), torch.ones(2))


def test_fit_lowers_the_held_out_loss():
    _, curves = fit(make_batch(), settings=PerScanFit(iterations=15, log_every=1, progress=False))
    for index in (0, 1):
        losses = [r[4] for r in curves.rows if r[1] == index and r[3] == "data_consistency"]
        assert losses[-1] < losses[0]


def test_fit_leaves_the_template_and_gives_each_slice_its_own_weights():
    template = make_network()
    before = {k: v.clone() for k, v in template.state_dict().items()}
    networks, _ = fit_to_scans(
        template, UnrolledTask.forward_one, make_batch(), SETTINGS, None, seed=0
    )
    for name, value in template.state_dict().items():
        assert torch.equal(value, before[name])
    first, second = (network.state_dict() for network in networks)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_fit_of_a_slice_does_not_depend_on_its_neighbours():
    batch = make_batch()
    together, _ = fit(batch)
    alone, _ = fit(batch.select(1))
    image = apply_each(together, UnrolledTask.forward_one, batch, None).image[1:]
    expected = apply_each(alone, UnrolledTask.forward_one, batch.select(1), None).image
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5)


def test_fit_never_shows_the_network_what_the_loss_counts():
    batch = make_batch()
    seen = []

    def forward(network, one, mask):
        if mask is not None:
            seen.append(mask.clone())
        return network(one, mask)

    hidden = []
    original = data_consistency_loss

    def spy(batch, image, mask):
        hidden.append(mask.clone())
        return original(batch, image, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrisem.tasks.fitting.data_consistency_loss", spy)
        fit_to_scans(make_network(), forward, batch, SETTINGS, None, seed=0)
    assert not (torch.cat(seen[:2]) & hidden[0]).any()
    assert torch.equal(torch.cat(seen[:2]) | hidden[0], batch.mask)


def test_guidance_changes_the_fit_and_is_logged(squared_magnitude):
    batch = make_batch()
    plain, _ = fit(batch)
    guidance = Guidance(squared_magnitude, batch, Steering(weight=1.0))
    guided, curves = fit(batch, guidance)
    names = {row[3] for row in curves.rows}
    assert names == {"data_consistency", "semantic", "gradient_balance"}
    a, b = (apply_each(n, UnrolledTask.forward_one, batch, None).image for n in (plain, guided))
    assert (a - b).abs().max() > 1e-5
