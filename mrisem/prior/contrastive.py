"""The semantic contrastive loss of both routes, and the similarity of token embeddings."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import softplus

LANGUAGE_TEMPERATURES = (0.1, 0.7)  # tau_pos, tau_neg (Feng et al., arXiv:2511.19641)
_N_PARTS = 128  # of a bfloat16 product, each rounded by itself, summed in float32


def token_similarity(embedding: Tensor, bank: Tensor) -> Tensor:
    """``s_n = (1/T) sum_t <z_t, b_nt>`` for every bank entry, as one matrix product.

    Args:
        embedding: ``(batch, token, feature)``, each token of unit length: z.
        bank: ``(n, token * feature)``, flattened entries of unit-length tokens: b.

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
        # a bfloat16 product is summed in float32 but handed back in bfloat16: hand back parts
        size = -(-flat.shape[1] // _N_PARTS)
        parts = zip(flat.split(size, 1), bank.split(size, 1), strict=True)
        products = torch.stack([(z @ b.T).float() for z, b in parts])
    return products.sum(0) / embedding.shape[1]


def info_nce(positives: Tensor, negatives: Tensor, temperatures: tuple[float, float]) -> Tensor:
    """Multi-positive InfoNCE, positives summed inside the log, with a temperature for each side.

    ``-log( sum_pos exp(s / tau_pos) / (sum_pos exp(s / tau_pos) + sum_neg exp(s / tau_neg)) )``
    (Feng et al., arXiv:2511.19641; image route: both are 0.07).

    Args:
        positives: ``(batch, p)`` similarities s to what is wanted; p > 0.
        negatives: ``(batch, q)`` similarities to what is not; q > 0.
        temperatures: tau_pos and tau_neg, above 0.

    Returns:
        ``(batch,)`` non-negative losses.

    >>> info_nce(torch.zeros(1, 1), torch.zeros(1, 3), (0.1, 0.7)).exp()
    tensor([4.])
    """
    wanted, unwanted = positives / temperatures[0], negatives / temperatures[1]
    # log(1 + exp(.)), not a difference of two logarithms: small losses keep their digits
    return softplus(unwanted.logsumexp(1) - wanted.logsumexp(1))
