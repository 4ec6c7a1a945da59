"""Argument checks of :mod:`.visible_attention`, and the binding of its optional arguments.

:func:`check_values` looks at what they hold, where the op runs. Tokens beyond ``counts`` do not exist,
so their ids may be anything.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from ...reference.attention.visible_attention import Structure, token_ids
from ..common.checks import (
    are_values_checked,
    check_cu_seqlens,
    check_device,
    check_indices,
    check_keep,
    check_seed,
    check_shape,
    check_tensor,
)


class AttentionBias(NamedTuple):
    """Additive attention bias as two small tables, looked up by the tokens' ids (``time_patch*V + joint``).

    Attributes:
        joints: ``(H, V, V)``, query joint by key joint.
        times: ``(H, 2*T/l - 1)``, offset of the query's time patch from the key's, centred.
        query_ids: ``(S, Nq)`` ids; None takes ``keep`` (self-attention) or counts the tokens through.
        key_ids: ``(S, Nk)`` ids; None takes ``keep`` or counts the tokens through.
    """

    joints: Tensor
    times: Tensor
    query_ids: Tensor | None = None
    key_ids: Tensor | None = None


def check_packed(q: Tensor, kv: Tensor | None, cu_seqlens: Tensor | None) -> None:
    """Raise unless q (or qkv) and kv have one of the three packed forms."""
    if cu_seqlens is not None:
        if kv is not None:
            raise ValueError("cu_seqlens serves self-attention only: pass qkv (total, 3, H, E) and no kv")
        check_tensor("qkv", q, 4, "(total, 3, H, E)")
        check_shape("qkv", q, (q.shape[0], 3, *q.shape[2:]), "(total, 3, H, E)")
        check_tensor("cu_seqlens", cu_seqlens, 1, "(S+1,)", (torch.int32, torch.int64))
        check_device("cu_seqlens", cu_seqlens, q.device, "qkv")
        if cu_seqlens.shape[0] == 0:
            raise ValueError("cu_seqlens is empty: expected (S+1,) numbers, a 0 for no sequence")
    elif kv is None:
        check_tensor("qkv", q, 5, "(S, K, 3, H, E)")
        check_shape("qkv", q, (*q.shape[:2], 3, *q.shape[3:]), "(S, K, 3, H, E)")
    else:
        check_tensor("q", q, 4, "(S, Q, H, E)")
        check_tensor("kv", kv, 5, "(S, K, 2, H, E)", (q.dtype,))
        check_shape("kv", kv, (q.shape[0], kv.shape[1], 2, *q.shape[2:]), "(S, K, 2, H, E)")
        check_device("kv", kv, q.device, "q")


def _check_bias(bias: AttentionBias, q: Tensor, queries: int, keys: int) -> None:
    heads = q.shape[-2]
    check_tensor("bias.joints", bias.joints, 3, "(H, V, V)")
    check_device("bias.joints", bias.joints, q.device, "q")
    check_shape("bias.joints", bias.joints, (heads, *[bias.joints.shape[1]] * 2), "(H, V, V)")
    check_tensor("bias.times", bias.times, 2, "(H, 2*T/l - 1)", (bias.joints.dtype,))
    check_shape("bias.times", bias.times, (heads, bias.times.shape[1]), "(H, 2*T/l - 1)")
    check_device("bias.times", bias.times, q.device, "q")
    if bias.times.shape[1] % 2 == 0:
        raise ValueError(f"bias.times has {bias.times.shape[1]} columns: expected the odd number 2*T/l - 1")
    for name, ids, count in (("query_ids", bias.query_ids, queries), ("key_ids", bias.key_ids, keys)):
        if ids is not None:
            check_tensor(f"bias.{name}", ids, 2, "(S, N)", (torch.int32, torch.int64))
            check_shape(f"bias.{name}", ids, (q.shape[0], count), "(S, N)")
            check_device(f"bias.{name}", ids, q.device, "q")


def structure_of(
    q: Tensor,
    kv: Tensor | None,
    keep: Tensor | None,
    counts: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float | None,
    bias: AttentionBias | None,
    dropout: float,
    seed: Tensor | None,
) -> Structure:
    """Check the optional arguments and bind them."""
    if cu_seqlens is not None and not (keep is None and counts is None and bias is None):
        raise ValueError("cu_seqlens excludes keep, counts and bias: its sequences are complete already")
    if keep is not None:
        check_keep(keep, q.shape[0])
        check_device("keep", keep, q.device, "q")
    if counts is not None:
        check_tensor("counts", counts, 1, "(S,)", (torch.int32, torch.int64))
        check_shape("counts", counts, (q.shape[0],), "(S,)")
        check_device("counts", counts, q.device, "q")
    if not 0 <= dropout < 1 or round(dropout * 2**32) == 2**32:
        raise ValueError(f"dropout={dropout} must lie in [0, 1): at least 2**-33 below 1")
    if dropout > 0 and seed is None:
        raise ValueError(f"dropout={dropout} needs a seed: pass fastamr.ops.make_seed()")
    if seed is not None:
        check_seed(seed)
        check_device("seed", seed, q.device, "q")
    if bias is not None:
        _check_bias(bias, q, *tokens_of(q, kv, keep))
    joints, times, query_ids, key_ids = bias if bias is not None else (None,) * 4
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return Structure(factor, keep, counts, cu_seqlens, joints, times, query_ids, key_ids, dropout, seed)


def tokens_of(q: Tensor, kv: Tensor | None, keep: Tensor | None) -> tuple[int, int]:
    """Queries and keys of a padded call."""
    keys = (q if kv is None else kv).shape[1] if keep is None else keep.shape[1]
    return (keys if kv is None else q.shape[1]), keys


def features_of(structure: Structure) -> tuple[str, ...]:
    """Names of the optional features in use."""
    present = {
        "keep": structure.keep is not None,
        "counts": structure.counts is not None,
        "cu_seqlens": structure.cu_seqlens is not None,
        "bias": structure.joint_bias is not None,
        "dropout": structure.dropout > 0,
    }
    return tuple(name for name, used in present.items() if used)


def check_values(q: Tensor, kv: Tensor | None, structure: Structure) -> None:
    """Raise ``ValueError`` if ids or lengths lead outside a tensor.

    On a CPU, and with ``FASTAMR_DEBUG=1`` on a GPU: see :func:`~fastamr.ops.common.checks.are_values_checked`.
    """
    listed = (structure.keep, structure.cu_seqlens, structure.joint_bias)
    if all(each is None for each in listed) or not are_values_checked(q):
        return
    if structure.cu_seqlens is not None:
        check_cu_seqlens(structure.cu_seqlens, q.shape[0])
    if structure.keep is not None:
        keep = without_absent(structure).keep
        assert keep is not None
        check_indices("keep", keep, (q if kv is None else kv).shape[1], "token")
    if structure.joint_bias is not None and structure.time_bias is not None:
        _check_bias_ids(q, kv, structure, structure.joint_bias.shape, structure.time_bias.shape[-1] // 2)


def without_absent(structure: Structure) -> Structure:
    """Return the structure with token 0 in the place of those that ``keep`` lists and that do not exist."""
    keep, counts = structure.keep, structure.counts
    if keep is None or counts is None:
        return structure
    return dataclasses.replace(structure, keep=keep.masked_fill(_absent(keep, counts), 0))


def _absent(ids: Tensor, counts: Tensor) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device) >= counts[:, None]


def _check_bias_ids(
    q: Tensor, kv: Tensor | None, structure: Structure, shape: torch.Size, furthest: int
) -> None:
    counts, joints = structure.counts, shape[-1]
    keys = token_ids(structure.key_ids, structure.keep, q if kv is None else kv)
    queries = token_ids(structure.query_ids, structure.keep if kv is None else None, q)
    if queries.numel() == 0 or keys.numel() == 0:
        return
    if joints == 0:
        raise ValueError(f"bias.joints has shape {tuple(shape)}: expected at least one joint")
    first_query, last_query = _range(queries, counts if kv is None else None)
    first_key, last_key = _range(keys, counts)
    exists = torch.ones_like(first_key, dtype=torch.bool) if counts is None else counts > 0
    if bool((exists & ((first_query < 0) | (first_key < 0))).any()):
        raise ValueError("the bias needs ids of at least 0 in keep, bias.query_ids and bias.key_ids")
    ahead, behind = last_query // joints - first_key // joints, last_key // joints - first_query // joints
    far = exists & (torch.maximum(ahead, behind) > furthest)
    if bool(far.any()):
        raise ValueError(
            f"ids of sequence {int(far.nonzero()[0])} lie further apart than the {furthest} time patches that "
            "bias.times covers"
        )


def _range(ids: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Least and greatest id ``(S,)`` of each sequence's tokens that exist; of its first token where none does."""
    found = ids if counts is None else torch.where(_absent(ids, counts), ids[:, :1], ids)
    least, greatest = found.aminmax(dim=1)
    return least, greatest
