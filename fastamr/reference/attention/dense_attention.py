"""Attention written out on separate ``q``, ``k`` and ``v``: scores, softmax, weighted sum, and the gradients.

:mod:`.visible_attention` brings packed, gathered and ragged inputs into this form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..philox import STREAM_DROPOUT, philox_words


def dropout_mask(seed: Tensor, shape: torch.Size, dropout: float) -> Tensor:
    """Which attention weights ``(S, H, Nq, Nk)`` survive; row ``(s*H + h)*Nq + i``, column ``j`` of the Philox grid."""
    sequences, heads, queries, keys = shape
    rows = torch.arange(sequences * heads * queries, device=seed.device)
    words = philox_words(seed, rows, keys, STREAM_DROPOUT)
    return (words >= round(dropout * 2**32)).view(shape)


def scores_of(q: Tensor, k: Tensor, scale: float, counts: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scaled scores ``(S, H, Nq, Nk)``, absent keys at -inf."""
    scores = (q.transpose(1, 2) * scale) @ k.permute(0, 2, 3, 1)
    if bias is not None:
        scores = scores + bias
    if counts is None:
        return scores
    return scores.masked_fill(~present_rows(counts, k.shape[1])[:, None, None], float("-inf"))


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    counts: Tensor | None = None,
    query_counts: Tensor | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention output and log-sum-exp.

    Args:
        q: ``(S, Nq, H, E)``.
        k: ``(S, Nk, H, E)``.
        v: ``(S, Nk, H, E)``.
        scale: factor of the scores.
        counts: ``(S,)`` keys that exist in each sequence.
        query_counts: ``(S,)`` queries that exist; the others give zeros.
        bias: additive ``(S, H, Nq, Nk)``.
        dropout: probability of dropping an attention weight.
        seed: ``(2,)`` int64, needed for dropout.

    Returns:
        ``(S, Nq, H*E)`` in q's dtype and ``(S, H, Nq)`` in the compute dtype; a row without keys gives 0 and -inf.
    """
    compute = torch.promote_types(torch.float32, q.dtype)
    scores = scores_of(q.to(compute), k.to(compute), scale, counts, bias)
    lse = torch.logsumexp(scores, dim=-1)
    weights = _weights(scores, lse)
    if dropout > 0 and seed is not None:
        weights = weights * dropout_mask(seed, weights.shape, dropout) / (1 - dropout)
    out = (weights @ v.to(compute).transpose(1, 2)).transpose(1, 2).flatten(2)
    if query_counts is not None:
        out = out * present_rows(query_counts, q.shape[1])[..., None]
    return out.to(q.dtype), lse


def present_rows(counts: Tensor, rows: int) -> Tensor:
    """``(S, rows)`` bool, true for the first ``counts`` rows of each sequence."""
    return torch.arange(rows, device=counts.device)[None] < counts[:, None]


def _weights(scores: Tensor, lse: Tensor) -> Tensor:
    """Softmax from scores and their log-sum-exp; rows without any key give zeros instead of NaN."""
    return torch.where(lse[..., None] == float("-inf"), 0.0, torch.exp(scores - lse[..., None]))


def dense_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    *,
    scale: float,
    counts: Tensor | None = None,
    query_counts: Tensor | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and of the bias ``(S, H, Nq, Nk)`` from ``grad (S, Nq, H*E)``; weights are recomputed."""
    compute = torch.promote_types(torch.float32, q.dtype)
    qc, kc, vc = (x.to(compute) for x in (q, k, v))
    scores = scores_of(qc, kc, scale, counts, bias)
    weights = _weights(scores, lse)
    dout = grad.to(compute).unflatten(2, (q.shape[2], q.shape[3]))
    if query_counts is not None:
        dout = dout * present_rows(query_counts, q.shape[1])[..., None, None]
    dout = dout.transpose(1, 2)
    dweights = dout @ vc.permute(0, 2, 3, 1)
    kept = weights
    if dropout > 0 and seed is not None:
        factor = dropout_mask(seed, weights.shape, dropout).to(compute) / (1 - dropout)
        kept, dweights = weights * factor, dweights * factor
    dscores = weights * (dweights - (weights * dweights).sum(-1, keepdim=True))
    dq = (dscores @ kc.transpose(1, 2)).transpose(1, 2) * scale
    dk = (dscores.transpose(2, 3) @ qc.transpose(1, 2)).transpose(1, 2) * scale
    dv = (kept.transpose(2, 3) @ dout).transpose(1, 2)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dscores
