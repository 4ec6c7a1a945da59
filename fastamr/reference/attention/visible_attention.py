"""Attention over the few visible tokens of a sequence, from packed projections.

Forms: self ``qkv (S, K, 3, H, E)``, cross ``q (S, Q, H, E)`` with ``kv (S, K, 2, H, E)``, ragged self
``qkv (total, 3, H, E)`` with ``cu_seqlens (S+1,)``. With ``keep`` the projections are full-length and only the listed
tokens take part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .dense_attention import dense_attention, dense_attention_backward


@dataclass(frozen=True)
class Structure:
    """Everything about a call that is not q, k, v: the optional arguments of the op, by name."""

    scale: float
    keep: Tensor | None = None
    counts: Tensor | None = None
    cu_seqlens: Tensor | None = None
    joint_bias: Tensor | None = None
    time_bias: Tensor | None = None
    query_ids: Tensor | None = None
    key_ids: Tensor | None = None
    dropout: float = 0.0
    seed: Tensor | None = None


def _padded_positions(cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """Row of each position of the padded form ``(S, longest)`` (clamped) and the lengths ``(S,)``."""
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).long()
    longest = int(lengths.max()) if len(lengths) else 0
    step = torch.arange(longest, device=cu_seqlens.device)
    rows = cu_seqlens[:-1, None].long() + torch.minimum(step[None], (lengths[:, None] - 1).clamp(min=0))
    return rows.clamp(max=max(int(cu_seqlens[-1]) - 1, 0)), lengths


def _gather(values: Tensor, keep: Tensor | None) -> Tensor:
    """Rows ``(S, K, ...)`` listed by keep."""
    if keep is None:
        return values
    return values[torch.arange(len(values), device=values.device)[:, None], keep.long()]


def _scatter(gradient: Tensor, keep: Tensor | None, like: Tensor) -> Tensor:
    """Inverse of :func:`_gather` for gradients; rows not listed get zero."""
    if keep is None:
        return gradient
    row = torch.arange(len(like), device=like.device)[:, None].expand(keep.shape)
    return torch.zeros_like(like).index_put_((row, keep.long()), gradient, accumulate=True)


def unpack(q: Tensor, kv: Tensor | None, structure: Structure) -> tuple[Tensor, Tensor, Tensor]:
    """Separate ``q (S, Nq, H, E)``, ``k``, ``v (S, Nk, H, E)`` of a padded (not cu_seqlens) call."""
    # unbind's gradient is one stack; indexing would write a zero-filled packed tensor for each of q, k and v.
    if kv is None:
        query, key, value = _gather(q, structure.keep).unbind(2)
        return query, key, value
    key, value = _gather(kv, structure.keep).unbind(2)
    return q, key, value


def token_ids(ids: Tensor | None, keep: Tensor | None, like: Tensor) -> Tensor:
    """Ids ``(S, N)`` int64 of the tokens of ``like (S, N, H, E)``: given, or listed by keep, or counted through."""
    if ids is not None:
        return ids.long()
    if keep is not None:
        return keep.long()
    return torch.arange(like.shape[1], device=like.device).expand(like.shape[:2])


def _bias_index(q: Tensor, k: Tensor, is_self: bool, structure: Structure) -> tuple[Tensor, Tensor]:
    """Index ``(S, Nq, Nk)`` into the flattened joint table and into the time table."""
    assert structure.joint_bias is not None
    assert structure.time_bias is not None
    joints = max(structure.joint_bias.shape[-1], 1)  # a table without a joint serves where there is no token
    key = token_ids(structure.key_ids, structure.keep, k)
    query = token_ids(structure.query_ids, structure.keep if is_self else None, q)
    pair = (query % joints)[:, :, None] * joints + (key % joints)[:, None, :]
    furthest = structure.time_bias.shape[-1] // 2
    offset = (query // joints)[:, :, None] - (key // joints)[:, None, :] + furthest
    # Tokens that do not exist may have any ids, and weigh nothing.
    return pair, offset if structure.counts is None else offset.clamp(0, 2 * furthest)


def dense_bias(q: Tensor, k: Tensor, is_self: bool, structure: Structure) -> Tensor | None:
    """Additive bias ``(S, H, Nq, Nk)`` looked up from both tables."""
    if structure.joint_bias is None or structure.time_bias is None:
        return None
    pair, offset = _bias_index(q, k, is_self, structure)
    return (structure.joint_bias.flatten(1)[:, pair] + structure.time_bias[:, offset]).transpose(0, 1)


def _bias_gradient(
    dense: Tensor, q: Tensor, k: Tensor, is_self: bool, structure: Structure
) -> tuple[Tensor, Tensor]:
    """Gradients of both tables from the gradient of the dense bias."""
    assert structure.joint_bias is not None
    assert structure.time_bias is not None
    pair, offset = _bias_index(q, k, is_self, structure)
    rows = dense.transpose(0, 1).flatten(1)
    joint = rows.new_zeros(structure.joint_bias.flatten(1).shape).index_add_(1, pair.flatten(), rows)
    time = rows.new_zeros(structure.time_bias.shape).index_add_(1, offset.flatten(), rows)
    dtype = structure.joint_bias.dtype
    return joint.view(structure.joint_bias.shape).to(dtype), time.to(structure.time_bias.dtype)


def visible_attention(q: Tensor, kv: Tensor | None, structure: Structure) -> tuple[Tensor, Tensor]:
    """Output ``(S, Nq, H*E)`` (packed form: ``(total, H*E)``) and log-sum-exp ``(S, H, Nq)``."""
    if structure.cu_seqlens is not None:
        return _packed(q, structure)
    queries, k, v = unpack(q, kv, structure)
    return dense_attention(queries, k, v, **_dense_options(queries, k, kv is None, structure))


def _dense_options(q: Tensor, k: Tensor, is_self: bool, structure: Structure) -> dict[str, Any]:
    """What the dense form needs to know beside q, k and v."""
    return {
        "scale": structure.scale,
        "counts": structure.counts,
        "query_counts": structure.counts if is_self else None,
        "bias": dense_bias(q, k, is_self, structure),
        "dropout": structure.dropout,
        "seed": structure.seed,
    }


def visible_attention_backward(
    grad: Tensor, q: Tensor, kv: Tensor | None, lse: Tensor, structure: Structure
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients in the packed layouts of q (or qkv), kv, joint table and time table."""
    if structure.cu_seqlens is not None:
        return _packed_backward(grad, q, lse, structure)
    queries, k, v = unpack(q, kv, structure)
    options = _dense_options(queries, k, kv is None, structure)
    dq, dk, dv, dense = dense_attention_backward(grad, queries, k, v, lse, **options)
    joint = time = None
    if structure.joint_bias is not None:
        joint, time = _bias_gradient(dense, queries, k, kv is None, structure)
    if kv is None:
        return _scatter(torch.stack([dq, dk, dv], dim=2), structure.keep, q), None, joint, time
    return dq, _scatter(torch.stack([dk, dv], dim=2), structure.keep, kv), joint, time


def _as_padded(structure: Structure, lengths: Tensor) -> Structure:
    return Structure(scale=structure.scale, counts=lengths, dropout=structure.dropout, seed=structure.seed)


def _packed(qkv: Tensor, structure: Structure) -> tuple[Tensor, Tensor]:
    """The ragged form, through the padded one."""
    assert structure.cu_seqlens is not None
    rows, lengths = _padded_positions(structure.cu_seqlens)
    out, lse = visible_attention(qkv[rows], None, _as_padded(structure, lengths))
    present = torch.arange(rows.shape[1], device=rows.device)[None] < lengths[:, None]
    return out[present], lse.transpose(1, 2)[present]


def _packed_backward(
    grad: Tensor, qkv: Tensor, lse: Tensor, structure: Structure
) -> tuple[Tensor, None, None, None]:
    assert structure.cu_seqlens is not None
    rows, lengths = _padded_positions(structure.cu_seqlens)
    present = torch.arange(rows.shape[1], device=rows.device)[None] < lengths[:, None]
    padded_lse = lse[rows].masked_fill(~present[..., None], float("-inf")).transpose(1, 2)
    padded = _as_padded(structure, lengths)
    dqkv = visible_attention_backward(grad[rows], qkv[rows], None, padded_lse, padded)[0]
    return dqkv[present], None, None, None
