import torch

from mrisem.prior.jitter import Jitter


def test_jitter_treats_each_image_as_if_alone_and_each_iteration_anew():
    images = torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(0))
    jitter = Jitter(copies=2, max_shift=2, noise=0.05)
    together = jitter(images, 4)
    alone = torch.cat([jitter(image[None], 4) for image in images])
    torch.testing.assert_close(together, alone)
    assert not torch.equal(together, jitter(images, 5))


def test_jitter_without_noise_only_shifts():
    image = torch.rand(1, 8, 6, generator=torch.Generator().manual_seed(0))
    moved = Jitter(copies=5, max_shift=2, noise=0.0)(image, 0)
    shifts = range(-2, 3)
    every = [image[0].roll((a, b), (0, 1)) for a in shifts for b in shifts]
    assert all(any(torch.equal(m, e) for e in every) for m in moved)
    assert len({tuple(m.flatten().tolist()) for m in moved}) > 1
