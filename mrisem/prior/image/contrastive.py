"""The semantic contrastive loss: multi-positive InfoNCE on token embeddings."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import softplus

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


def info_nce(similarity: Tensor, n_positives: int, temperature: float = 0.07) -> Tensor:
    """``-log(sum_pos exp(s_n / tau) / sum_all exp(s_n / tau))``, positives summed inside the log.

    Method: Feng et al., arXiv:2511.19641; tau = 0.07 there.

    Args:
        similarity: ``(batch, n)``, the positives first.
        n_positives: how many of the n entries are positives; at least 1.
        temperature: tau > 0.

    Returns:
        ``(batch,)`` non-negative losses.

    >>> info_nce(torch.zeros(1, 4), n_positives=1).exp()
    tensor([4.])
    """
    logits = similarity / temperature
    positives, negatives = logits[:, :n_positives], logits[:, n_positives:]
    return softplus(negatives.logsumexp(1) - positives.logsumexp(1))  # keeps its digits near 0
