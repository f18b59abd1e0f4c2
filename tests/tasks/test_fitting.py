from dataclasses import replace

import pytest
import torch

from mrisem.networks.adapters import LoRA, attach
from mrisem.networks.inr import INR
from mrisem.networks.stacked import stack
from mrisem.networks.unet import Unet
from mrisem.networks.unrolled import Unrolled
from mrisem.networks.unrolled_vit import UnrolledViT
from mrisem.networks.varnet import EndToEndVarNet
from mrisem.physics.sense import Measurement
from mrisem.prior.image.perceptual import load_perceptual
from mrisem.tasks.fitting import PerScanFit, ScanFit
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.tasks.network import NetworkTask
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.samples import data_consistency_loss, data_consistency_residual
from mrisem.types import Reconstruction

SETTINGS = PerScanFit(iterations=4, log_every=1, progress=False)


def make_network():
    torch.manual_seed(0)
    return Unrolled(stages=1, channels=4, levels=2)


def fit(batch, settings=SETTINGS, network=None, guidance=None, **terms):
    run = ScanFit(stack(network or make_network(), len(batch)), batch, 0, guidance)
    run.run(settings, **terms)
    return run


def final(run):
    return run.finish(None)[0].image


def curve(run, name, index=0):
    return [row[4] for row in run.curves.rows if row[1] == index and row[3] == name]


class Gain(torch.nn.Module):
    """A network of which nobody has said how it is stacked."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1, 1))

    def forward(self, batch, mask=None):
        return Reconstruction(self.gain * Measurement.of(batch, mask).zero_filled)


class Recorder(torch.nn.Module):
    """A network that notes which samples it was shown, and copies them."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, batch, mask=None):
        self.seen.append(batch.mask if mask is None else mask)
        sense = Measurement.of(batch, mask)
        return Reconstruction(self.gain * sense.adjoint(batch.masked_kspace))


def test_data_consistency_loss_equals_its_formula(make_batch):
    batch = make_batch()
    image = torch.randn(2, 72, 64, dtype=torch.complex64)
    mask = batch.mask & (torch.rand(2, 72, 64) < 0.5)
    error = Measurement.of(batch, mask).coil_kspace(image) - batch.masked_kspace
    for i in range(2):
        entries = error[i][:, mask[i]]
        expected = (entries.real.abs().mean() + entries.imag.abs().mean()) / 2
        torch.testing.assert_close(data_consistency_loss(batch, image, mask)[i], expected)


def test_data_consistency_residual_of_zero_is_one(make_batch):
    zero = torch.zeros(2, 72, 64, dtype=torch.complex64)
    torch.testing.assert_close(data_consistency_residual(make_batch(), zero), torch.ones(2))


def test_fit_lowers_the_held_out_loss(make_batch):
    run = fit(make_batch(), PerScanFit(iterations=15, log_every=1, progress=False))
    for index in (0, 1):
        losses = curve(run, "data_consistency", index)
        assert losses[-1] < losses[0]


def test_stacked_weights_are_apart_from_the_template_and_each_other(make_batch):
    template = make_network()
    before = {k: v.clone() for k, v in template.state_dict().items()}
    run = fit(make_batch(), network=template)
    for name, value in template.state_dict().items():
        assert torch.equal(value, before[name])
    fitted = dict(run.network.named_parameters())
    assert any(not torch.equal(weight[0], weight[1]) for weight in fitted.values())


def with_lora(network):
    attach(network, LoRA(rank=2), torch.Generator().manual_seed(0))
    return network


def precise_encoder():
    return load_perceptual("vgg16", (1,), 4, random_seed=0).double()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (make_network, {}),
        (make_network, {"validation_share": 0.1, "patience": 2}),
        (lambda: with_lora(make_network()), {}),
        (lambda: UnrolledViT(precise_encoder(), 1, 4, 2, 3), {}),
        (lambda: Unet(4, 2), {"loss_share": None}),
        (lambda: EndToEndVarNet(1, 4, 2, 2, 2), {}),
        (lambda: INR(2, 16, adaptor_width=8), {"loss_share": None}),
        (Gain, {}),
    ],
    ids=["unrolled", "stops early", "LoRA", "unrolled_vit", "unet", "varnet", "inr", "any other"],
)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_fit_of_several_slices_equals_their_own_fits(make_batch, make, options, dtype):
    batch = make_batch()
    parts = {name: getattr(batch, name).to(dtype) for name in ("masked_kspace", "sensitivity_maps")}
    batch, settings = replace(batch, **parts), PerScanFit(10, progress=False, **options)
    torch.manual_seed(0)
    network = make()
    if dtype == torch.complex128:
        network = network.double()
    if isinstance(network, EndToEndVarNet | UnrolledViT) and dtype == torch.complex64:
        pytest.skip("Adam's steps double the rounding of tiny gradients: 1e-3, 2e-3 in 10 steps")
    together = final(fit(batch, settings, network))
    for i in range(len(batch)):
        alone = final(fit(batch.select(i), settings, network))
        error = (together[i] - alone[0]).norm() / alone.norm()
        assert error < {torch.complex64: 1e-4, torch.complex128: 1e-8}[dtype]


@pytest.mark.parametrize("validation_share", [None, 0.1])
def test_fit_never_shows_the_network_what_loss_or_validation_count(
    make_batch, monkeypatch, validation_share
):
    batch, counted = make_batch(1), []

    def spy(batch, image, mask):
        counted.append(mask)
        return data_consistency_loss(batch, image, mask)

    monkeypatch.setattr("mrisem.tasks.fitting.data_consistency_loss", spy)
    settings = PerScanFit(2, validation_share=validation_share, progress=False)
    run = fit(batch, settings, Recorder())
    sets = [run.network.network[0].seen[0], *counted[: 1 if validation_share is None else 2]]
    assert torch.equal(torch.stack(sets).sum(0), batch.mask.long())  # disjoint, and all of it


def test_fit_without_a_loss_share_has_all_samples_on_both_sides(make_batch):
    batch = make_batch(1)
    run = fit(batch, PerScanFit(1, loss_share=None, progress=False), Recorder())
    assert torch.equal(run.network.network[0].seen[0], batch.mask)


def test_fit_holds_no_calibration_line_out_where_lines_are_kept(make_batch):
    batch = make_batch(size=(80, 128))
    shares = {"loss_share": 0.3, "validation_share": 0.1}
    for calibration, kept in (("lines", True), ("block", False)):
        settings = PerScanFit(calibration=calibration, **shares)
        run = ScanFit(stack(Recorder(), 2), batch, seed=0)
        mask_dc, mask_loss, validation = run.split(settings)
        assert bool(mask_dc[:, :, 52:76].all()) == kept
        assert torch.equal(mask_dc ^ mask_loss ^ validation, batch.mask)


def test_copying_the_input_scores_no_better_than_zero(make_batch):
    batch = make_batch(coils=1)  # with several coils, neighbouring samples do tell of each other
    run = ScanFit(stack(Recorder(), 2), batch, seed=0)
    mask_dc, mask_loss, _ = run.split(SETTINGS)
    copied = Recorder()(batch, mask_dc).image.detach()
    zero = data_consistency_loss(batch, torch.zeros_like(copied), mask_loss)
    torch.testing.assert_close(data_consistency_loss(batch, copied, mask_loss), zero)
    assert (data_consistency_loss(batch, final(run), mask_loss) < 1e-5 * zero.max()).all()


def test_fit_stops_each_slice_where_it_predicts_held_out_samples_best(make_batch):
    # a learning rate at which every step makes it worse: the start is the best
    settings = PerScanFit(
        30, learning_rate=5.0, validation_share=0.1, patience=3, log_every=1, progress=False
    )
    start = make_network()
    run = fit(make_batch(), settings, start)
    assert len(curve(run, "validation")) < 30
    expected = start.state_dict()
    for name, weight in run.network.named_parameters():
        assert all(torch.equal(part, expected[name]) for part in weight)


def test_fit_with_lora_trains_the_factors_only(make_batch):
    task = NetworkTask(make_network(), PerScanFit(3, lora=LoRA(rank=2), progress=False))
    result, _ = task.solve(make_batch())
    plain, _ = NetworkTask(make_network(), None).solve(make_batch())
    assert (result.image - plain.image).abs().max() > 1e-6
    assert not any("lora" in name for name in task.state_dict())


def test_regulariser_is_added_to_the_fit_and_lowers_its_term(make_batch):
    batch, regulariser = make_batch(), Regulariser("tv", 1.0)
    settings = PerScanFit(15, progress=False)
    plain, smooth = fit(batch, settings), fit(batch, settings, regulariser=regulariser)
    assert "tv" in {row[3] for row in smooth.curves.rows}
    values = [regulariser(final(run)) for run in (plain, smooth)]
    assert (values[1] < values[0]).all()


def test_guidance_changes_the_fit_and_is_logged(make_batch, squared_magnitude):
    batch = make_batch()
    guidance = Guidance(squared_magnitude, batch, Steering(weight=1.0))
    plain, guided = fit(batch), fit(batch, guidance=guidance)
    names = {row[3] for row in guided.curves.rows}
    solves = {"solve_residual", "solve_gradient_residual"}
    assert names == {"data_consistency", "semantic", "gradient_balance", *solves}
    assert (final(plain) - final(guided)).abs().max() > 1e-5


class Overflows(torch.nn.Module):
    """A network whose image is not finite once its gain has moved away from 1 by a tenth."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(1.05))

    def forward(self, batch, mask=None):
        image = Measurement.of(batch, mask).adjoint(batch.masked_kspace)
        far = (self.gain - 1).abs() > 0.1
        return Reconstruction(image * torch.where(far, torch.inf, self.gain))


def test_fit_undoes_a_step_that_is_not_finite_and_goes_on_at_half_the_rate(make_batch):
    settings = PerScanFit(6, learning_rate=0.19, loss_share=None, log_every=1, progress=False)
    run = fit(make_batch(1), settings, Overflows())
    losses = curve(run, "data_consistency")
    finite = [bool(torch.tensor(loss).isfinite()) for loss in losses]
    assert finite[:3] == [True, False, True]
    assert losses[2] == losses[0]  # undone
    assert final(run).isfinite().all()
    assert run.curves.diverged == []


def test_fit_gives_a_slice_up_with_its_last_finite_image_and_goes_on_with_the_others(make_batch):
    batch = make_batch(2)
    settings = PerScanFit(iterations=30, log_every=1, progress=False)
    plain = fit(batch.select(1), settings, Overflows())
    run = ScanFit(stack(Overflows(), 2), batch, 0)
    (gain,) = run.network.parameters()
    torch.nn.init.constant_(gain[0], 1.5)
    run.run(settings)
    assert run.curves.diverged == [0]
    assert torch.equal(final(run)[1], final(plain)[0])


def test_balance_forgets_a_step_that_was_not_finite(squared_magnitude, make_batch):
    batch = make_batch(1)
    guidance = Guidance(squared_magnitude, batch, Steering(weight=1.0, balance=0.1))
    image = torch.ones(1, 72, 64, dtype=torch.complex64)
    _, before = guidance([image], [image], 0)
    guidance([image * torch.nan], [image], 1)
    _, after = guidance([image], [image], 2)
    assert torch.equal(before[0], after[0])
