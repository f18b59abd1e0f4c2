import numpy as np
import pytest
import torch

from mrisem.errors import InputError
from mrisem.physics.masks import GaussianMask
from mrisem.physics.split import split_mask


def test_split_mask_is_disjoint_complete_exact_and_keeps_the_calibration_block():
    rng = np.random.default_rng(0)
    for trial in range(25):
        batch, y, x = rng.integers(1, 4), rng.integers(40, 90), rng.integers(64, 120)
        share, acceleration = rng.uniform(0.1, 0.5), rng.integers(2, 6)
        columns = torch.stack(
            [GaussianMask(float(acceleration), 8)(x, (0, x), int(s)) for s in range(batch)]
        )
        mask = columns[:, None, :].expand(batch, y, x).clone()
        generator = torch.Generator().manual_seed(trial)
        mask_dc, mask_loss = split_mask(
            mask, generator=generator, loss_share=share, calibration_size=(8, 8)
        )
        assert not (mask_dc & mask_loss).any()
        assert torch.equal(mask_dc | mask_loss, mask)
        for one, loss in zip(mask, mask_loss, strict=True):
            assert int(loss.sum()) == round(float(torch.tensor(share) * one.sum()))
        assert mask_dc[:, y // 2 - 4 : y // 2 + 4, x // 2 - 4 : x // 2 + 4].all()


def test_split_mask_prefers_the_centre_as_sequential_weighted_draws_do():
    mask = torch.ones(400, 9, 9, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    _, loss = split_mask(mask, generator=generator, loss_share=0.2, calibration_size=(1, 1))
    axis = (np.arange(9) - 4) / (0.25 * 9)
    weights = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / 2)
    weights[4, 4] = 0
    rng = np.random.default_rng(1)
    counts = np.zeros(81)
    for _ in range(2000):
        counts[rng.choice(81, 16, replace=False, p=weights.ravel() / weights.sum())] += 1 / 2000
    np.testing.assert_allclose(loss.double().mean(0).ravel().numpy(), counts, atol=0.1)
    assert np.corrcoef(loss.double().mean(0).ravel().numpy(), counts)[0, 1] > 0.98


def test_split_mask_depends_on_the_generator_only():
    mask = torch.ones(2, 30, 30, dtype=torch.bool)
    first, again, other = (
        split_mask(mask, generator=torch.Generator().manual_seed(s), calibration_size=(4, 4))[1]
        for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_split_mask_refuses_a_share_that_reaches_into_the_calibration_block():
    mask = torch.ones(1, 30, 30, dtype=torch.bool)
    with pytest.raises(InputError, match="asks for"):
        split_mask(mask, generator=torch.Generator(), loss_share=0.9, calibration_size=(24, 24))
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="between 0 and 1"):
            split_mask(mask, generator=torch.Generator(), loss_share=share)
    with pytest.raises(ValueError, match="batch, y, x"):
        split_mask(mask[0], generator=torch.Generator())
