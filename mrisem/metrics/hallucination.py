"""Changes that a prior made, against the same reconstruction without it."""

import numpy as np


def kspace_change(guided: np.ndarray, plain: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compare the coil k-space of two reconstructions where it was measured and where it was not.

    Let ``K = F S x`` be the k-space, before sampling, of the images with and without the prior. Let
    R be a region of k-space (measured: the samples of the mask; unmeasured: all others) and
    ``E = sum_R sum_c |K_plain|^2`` its energy. Then

    * ``changed = sum_R sum_c |K_guided - K_plain|^2 / E``;
    * ``added = sum_R max(D, 0) / E`` and ``removed = sum_R max(-D, 0) / E``, where
      ``D = sum_c |K_guided|^2 - sum_c |K_plain|^2`` at each sample.

    ``added - removed`` is the relative change of the region's energy. The two do not add up to
    ``changed``: that also counts changes of phase, and it is of second order in a small change,
    while they are of first order. A change in measured k-space contradicts the data. A change in
    unmeasured k-space rests on the prior alone. Columns that were not acquired are unmeasured.

    Args:
        guided: ``(coil, y, x)`` complex, k-space of the reconstruction with the prior.
        plain: ``(coil, y, x)`` complex, k-space of the reconstruction without the prior.
        mask: ``(y, x)`` bool, True where measured.

    Returns:
        ``changed_measured``, ``added_measured``, ``removed_measured``, ``changed_unmeasured``,
        ``added_unmeasured``, ``removed_unmeasured``, all >= 0; NaN for a region without energy.

    >>> plain = np.ones((1, 1, 2), complex)
    >>> twice = plain * [[[1, 2]]]
    >>> kspace_change(twice, plain, np.array([[True, False]]))["added_unmeasured"]
    3.0
    """
    change = _energy(guided - plain)
    gain = _energy(guided) - _energy(plain)
    parts = {"changed": change, "added": gain.clip(min=0), "removed": (-gain).clip(min=0)}
    shares = {}
    for region, inside in (("measured", mask), ("unmeasured", ~mask)):
        energy = _energy(plain)[inside].sum()
        for name, part in parts.items():
            share = part[inside].sum() / energy if energy > 0 else np.nan
            shares[f"{name}_{region}"] = float(share)
    return shares


def _energy(kspace: np.ndarray) -> np.ndarray:
    """Sum the energy of each sample over the coils: ``(coil, y, x)`` -> ``(y, x)`` float64."""
    return (kspace.real.astype(np.float64) ** 2 + kspace.imag.astype(np.float64) ** 2).sum(0)


def image_change(guided: np.ndarray, plain: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Compare the magnitudes of two reconstructions: how much differs, and how much of it is wrong.

    ``difference = sum d^2 / sum t^2`` with ``d = guided - plain``. ``false_detail`` is the share of
    ``sum d^2`` in pixels that the prior moved away from the target,
    ``|guided - t| > |plain - t|``. It is 0.5 for small changes of random sign, 1 for invented
    detail, and 0 for missing detail that was restored.

    Args:
        guided: ``(y, x)`` magnitude of the reconstruction with the prior.
        plain: ``(y, x)`` magnitude of the reconstruction without the prior.
        target: ``(y, x)`` magnitude t, all three in the same unit.

    Returns:
        ``difference`` (NaN where the target is all zero) and ``false_detail`` (NaN where nothing
        differs).

    >>> image_change(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]), np.array([[0.0, 2.5]]))
    {'difference': 0.64, 'false_detail': 0.0}
    """
    guided, plain, target = (image.astype(np.float64) for image in (guided, plain, target))
    change = (guided - plain) ** 2
    farther = np.abs(guided - target) > np.abs(plain - target)
    energy, total = (target**2).sum(), change.sum()
    return {
        "difference": float(total / energy) if energy > 0 else np.nan,
        "false_detail": float(change[farther].sum() / total) if total > 0 else np.nan,
    }
