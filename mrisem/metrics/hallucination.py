"""What a prior changed against the same reconstruction without it, and which way."""

import numpy as np


def kspace_change(guided: np.ndarray, plain: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compare two reconstructions' coil k-space, where it was measured and where it was not.

    With ``K = F S x``, before sampling, of the images with and without the prior, and a region R
    of k-space (measured: the mask's samples; unmeasured: all others), relative to
    ``E = sum_R sum_c |K_plain|^2``:

    * ``changed = sum_R sum_c |K_guided - K_plain|^2 / E``;
    * ``added = sum_R max(D, 0) / E`` and ``removed = sum_R max(-D, 0) / E``, where
      ``D = sum_c |K_guided|^2 - sum_c |K_plain|^2`` at each sample.

    So ``added - removed`` is the change of the region's energy. The two are no parts of
    ``changed``, which counts phase too and is of second order in a small change, as they are of
    first. What is changed where it was measured contradicts the data; what is changed where it was
    not is the prior's word alone. Columns that were never acquired count as unmeasured.

    Args:
        guided: ``(coil, y, x)`` complex, with the prior.
        plain: ``(coil, y, x)`` complex, without.
        mask: ``(y, x)`` bool, True where measured.

    Returns:
        ``changed_measured``, ``added_measured``, ``removed_measured`` and the same of
        ``unmeasured``, all >= 0; NaN in a region without energy.

    >>> plain = np.ones((1, 1, 2), complex)
    >>> twice = plain * [[[1, 2]]]
    >>> kspace_change(twice, plain, np.array([[True, False]]))["added_unmeasured"]
    3.0
    """
    change = _energy(guided - plain)
    gain = _energy(guided) - _energy(plain)
    parts = {"changed": change, "added": gain.clip(min=0), "removed": (-gain).clip(min=0)}
    shares = {}
    for region, where in (("measured", mask), ("unmeasured", ~mask)):
        energy = _energy(plain)[where].sum()
        for name, part in parts.items():
            share = part[where].sum() / energy if energy > 0 else np.nan
            shares[f"{name}_{region}"] = float(share)
    return shares


def _energy(kspace: np.ndarray) -> np.ndarray:
    """``(coil, y, x)`` -> energy of each sample over the coils, ``(y, x)`` float64."""
    return (kspace.real.astype(np.float64) ** 2 + kspace.imag.astype(np.float64) ** 2).sum(0)


def image_change(guided: np.ndarray, plain: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Compare two reconstructions' magnitudes: how much changed, and how much of it is wrong.

    ``difference = sum d^2 / sum t^2`` with ``d = guided - plain``; ``false_detail``: the share of
    ``sum d^2`` that lies in pixels which the prior took farther from the target,
    ``|guided - t| > |plain - t|``. A small change of random sign has 0.5; detail made up where
    there is none has 1; detail that was missing, put back, has 0.

    Args are ``(y, x)`` magnitudes in the same units, with the prior, without, and the target ``t``.

    Returns:
        ``difference`` (NaN where the target is empty) and ``false_detail`` (NaN where nothing
        changed).

    >>> image_change(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]), np.array([[0.0, 2.5]]))
    {'difference': 0.64, 'false_detail': 0.0}
    """
    guided, plain, target = (part.astype(np.float64) for part in (guided, plain, target))
    change = (guided - plain) ** 2
    farther = np.abs(guided - target) > np.abs(plain - target)
    energy, total = (target**2).sum(), change.sum()
    return {
        "difference": float(total / energy) if energy > 0 else np.nan,
        "false_detail": float(change[farther].sum() / total) if total > 0 else np.nan,
    }
