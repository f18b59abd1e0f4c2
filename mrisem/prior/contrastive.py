"""Semantic contrastive loss of both routes, and similarity of token embeddings."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import softplus

LANGUAGE_TEMPERATURES = (0.1, 0.7)  # tau_pos, tau_neg (Feng et al., arXiv:2511.19641)
_N_PARTS = 128  # parts of a bfloat16 product that are summed in float32


def token_similarity(embedding: Tensor, bank: Tensor) -> Tensor:
    """Mean cosine over tokens, ``s_n = (1/T) sum_t <z_t, b_nt>``, for every bank entry n.

    Computed as one matrix product.

    Args:
        embedding: ``(batch, token, feature)``, z: each token has unit length.
        bank: ``(n, token * feature)`` float32 or bfloat16, b: flattened tokens of unit length.

    Returns:
        ``(batch, n)`` float32 similarities in [-1, 1].

    >>> z = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> token_similarity(z, torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, -1.0]]))
    tensor([[ 1.0000, -0.5000]])
    """
    flat = rearrange(embedding, "batch token feature -> batch (token feature)").to(bank.dtype)
    with torch.autocast(flat.device.type, enabled=False):
        if bank.dtype == torch.float32:
            return flat @ bank.T / embedding.shape[1]
        # A bfloat16 product is summed in float32, but its result is rounded to bfloat16, which has
        # 3 digits. The rounding errors of 128 parts average out in a float32 sum.
        size = -(-flat.shape[1] // _N_PARTS)
        parts = zip(flat.split(size, 1), bank.split(size, 1), strict=True)
        products = torch.stack([(z @ b.T).float() for z, b in parts])
    return products.sum(0) / embedding.shape[1]


def info_nce(positives: Tensor, negatives: Tensor, temperatures: tuple[float, float]) -> Tensor:
    """Multi-positive InfoNCE, with the positives summed inside the logarithm.

    ``-log( sum_pos exp(s / tau_pos) / (sum_pos exp(s / tau_pos) + sum_neg exp(s / tau_neg)) )``
    (Feng et al., arXiv:2511.19641; image route: both temperatures are 0.07).

    Args:
        positives: ``(batch, p)`` similarities s to the wanted side of a bank; p > 0.
        negatives: ``(batch, q)`` similarities s to the unwanted side; q > 0.
        temperatures: tau_pos and tau_neg, above 0.

    Returns:
        ``(batch,)`` non-negative losses.

    >>> info_nce(torch.zeros(1, 1), torch.zeros(1, 3), (0.1, 0.7)).exp()
    tensor([4.])
    """
    scaled_positives, scaled_negatives = positives / temperatures[0], negatives / temperatures[1]
    # -log(p / (p + q)) = log(1 + exp(log q - log p)): small losses keep their digits, which a
    # difference of two logarithms would lose
    return softplus(scaled_negatives.logsumexp(1) - scaled_positives.logsumexp(1))
