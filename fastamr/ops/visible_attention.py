"""Attention over the few visible tokens of a sequence."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..reference.visible_attention import (
    Structure,
    dense_bias,
    unpack,
    visible_attention_backward,
)
from ..reference.visible_attention import visible_attention as reference_attention
from .backends import Backend, Problem, can_always, choose, declare
from .checks import check_device, check_keep, check_seed, check_shape, check_tensor
from .precision import exact


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


def _sdpa_why_not(problem: Problem) -> str | None:
    missing = [name for name in ("dropout", "counts", "cu_seqlens") if name in problem.features]
    return f"PyTorch's SDPA has no form for {', '.join(missing)} here" if missing else None


def _materialised_why_not(problem: Problem) -> str | None:
    return f"the plain form has no {', '.join(problem.features)}" if problem.features else None


declare(
    "visible_attention",
    Backend("sdpa", _sdpa_why_not),
    Backend("reference", can_always),
    Backend("materialised", _materialised_why_not, automatic_on=()),
)


@torch.library.custom_op("fastamr::visible_attention", mutates_args=())
def _op(
    q: Tensor,
    kv: Tensor | None,
    keep: Tensor | None,
    counts: Tensor | None,
    cu_seqlens: Tensor | None,
    joint_bias: Tensor | None,
    time_bias: Tensor | None,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    structure = Structure(
        scale, keep, counts, cu_seqlens, joint_bias, time_bias, query_ids, key_ids, dropout, seed
    )
    with exact(q):
        return reference_attention(q, kv, structure)


@_op.register_fake
def _(
    q: Tensor,
    kv: Tensor | None,
    keep: Tensor | None,
    counts: Tensor | None,
    cu_seqlens: Tensor | None,
    joint_bias: Tensor | None,
    time_bias: Tensor | None,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    heads, size = q.shape[-2:]
    compute = torch.promote_types(torch.float32, q.dtype)
    if cu_seqlens is not None:
        return q.new_empty((q.shape[0], heads * size)), q.new_empty((q.shape[0], heads), dtype=compute)
    queries = keep.shape[1] if kv is None and keep is not None else q.shape[1]
    out = q.new_empty((q.shape[0], queries, heads * size))
    return out, q.new_empty((q.shape[0], heads, queries), dtype=compute)


@torch.library.custom_op("fastamr::visible_attention_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    lse: Tensor,
    q: Tensor,
    kv: Tensor | None,
    keep: Tensor | None,
    counts: Tensor | None,
    cu_seqlens: Tensor | None,
    joint_bias: Tensor | None,
    time_bias: Tensor | None,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    structure = Structure(
        scale, keep, counts, cu_seqlens, joint_bias, time_bias, query_ids, key_ids, dropout, seed
    )
    with exact(q):
        gradients = visible_attention_backward(grad, q, kv, lse, structure)
    first, *others = (x if x is None else x.contiguous() for x in gradients)
    assert first is not None
    second, joint, time = (q.new_empty(0) if x is None else x for x in others)
    return first, second, joint, time


@_backward_op.register_fake
def _(
    grad: Tensor,
    lse: Tensor,
    q: Tensor,
    kv: Tensor | None,
    keep: Tensor | None,
    counts: Tensor | None,
    cu_seqlens: Tensor | None,
    joint_bias: Tensor | None,
    time_bias: Tensor | None,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    second, joint, time = (
        q.new_empty(0) if x is None else x.new_empty(x.shape) for x in (kv, joint_bias, time_bias)
    )
    return q.new_empty(q.shape), second, joint, time


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.dropout, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], *tensors)


def _backward(ctx: Any, grad: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    lse, q, kv, keep, counts, cu_seqlens, joint, time, *rest = ctx.saved_tensors
    if grad is None:
        return (None,) * 13
    dq, dkv, djoint, dtime = _backward_op(
        grad, lse, q, kv, keep, counts, cu_seqlens, joint, time, *rest, ctx.scale, ctx.dropout, ctx.backend
    )
    return (
        dq,
        None if kv is None else dkv,
        *(None,) * 3,
        None if joint is None else djoint,
        None if time is None else dtime,
        *(None,) * 6,
    )


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    raise RuntimeError(
        "visible_attention has no second derivative; use fastamr.backend(visible_attention='materialised') for it"
    )


_op.register_autograd(_backward, setup_context=_setup)
_backward_op.register_autograd(_refuse_double_backward)


def _heads_first(values: Tensor) -> Tensor:
    return values.transpose(1, 2)


def _sdpa(q: Tensor, kv: Tensor | None, structure: Structure) -> Tensor:
    """PyTorch's fused attention on transposed views of the packed projections."""
    queries, k, v = unpack(q, kv, structure)
    bias = dense_bias(queries, k, kv is None, structure)
    out = F.scaled_dot_product_attention(
        _heads_first(queries),
        _heads_first(k),
        _heads_first(v),
        attn_mask=None if bias is None else bias.to(q.dtype),
        scale=structure.scale,
    )
    return out.transpose(1, 2).flatten(2)


def _materialised(q: Tensor, kv: Tensor | None, structure: Structure) -> Tensor:
    """Scores, softmax and weights written to memory and kept for autograd, as the public code does."""
    queries, k, v = (_heads_first(x) for x in unpack(q, kv, structure))
    weights = ((queries * structure.scale) @ k.transpose(-2, -1)).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _check_packed(q: Tensor, kv: Tensor | None, cu_seqlens: Tensor | None) -> None:
    if cu_seqlens is not None:
        if kv is not None:
            raise ValueError("cu_seqlens serves self-attention only: pass qkv (total, 3, H, E) and no kv")
        check_tensor("qkv", q, 4, "(total, 3, H, E)")
        check_shape("qkv", q, (q.shape[0], 3, *q.shape[2:]), "(total, 3, H, E)")
        check_tensor("cu_seqlens", cu_seqlens, 1, "(S+1,)", (torch.int32, torch.int64))
        check_device("cu_seqlens", cu_seqlens, q.device, "qkv")
    elif kv is None:
        check_tensor("qkv", q, 5, "(S, K, 3, H, E)")
        check_shape("qkv", q, (*q.shape[:2], 3, *q.shape[3:]), "(S, K, 3, H, E)")
    else:
        check_tensor("q", q, 4, "(S, Q, H, E)")
        check_tensor("kv", kv, 5, "(S, K, 2, H, E)", (q.dtype,))
        check_shape("kv", kv, (q.shape[0], kv.shape[1], 2, *q.shape[2:]), "(S, K, 2, H, E)")
        check_device("kv", kv, q.device, "q")


def _check_bias(bias: AttentionBias, q: Tensor) -> None:
    heads = q.shape[-2]
    check_tensor("bias.joints", bias.joints, 3, "(H, V, V)")
    check_shape("bias.joints", bias.joints, (heads, *[bias.joints.shape[1]] * 2), "(H, V, V)")
    check_tensor("bias.times", bias.times, 2, "(H, 2*T/l - 1)", (bias.joints.dtype,))
    check_shape("bias.times", bias.times, (heads, bias.times.shape[1]), "(H, 2*T/l - 1)")
    if bias.times.shape[1] % 2 == 0:
        raise ValueError(f"bias.times has {bias.times.shape[1]} columns: expected the odd number 2*T/l - 1")
    for name, ids in (("bias.query_ids", bias.query_ids), ("bias.key_ids", bias.key_ids)):
        if ids is not None:
            check_keep(ids, q.shape[0])
            check_device(name, ids, q.device, "q")


def _features(structure: Structure) -> tuple[str, ...]:
    present = {
        "keep": structure.keep is not None,
        "counts": structure.counts is not None,
        "cu_seqlens": structure.cu_seqlens is not None,
        "bias": structure.joint_bias is not None,
        "dropout": structure.dropout > 0,
    }
    return tuple(name for name, used in present.items() if used)


def _structure_of(
    q: Tensor,
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
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must lie in [0, 1)")
    if dropout > 0 and seed is None:
        raise ValueError(f"dropout={dropout} needs a seed: pass fastamr.ops.make_seed()")
    if seed is not None:
        check_seed(seed)
        check_device("seed", seed, q.device, "q")
    if bias is not None:
        _check_bias(bias, q)
    joints, times, query_ids, key_ids = bias if bias is not None else (None,) * 4
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return Structure(factor, keep, counts, cu_seqlens, joints, times, query_ids, key_ids, dropout, seed)


def visible_attention(
    q: Tensor,
    kv: Tensor | None = None,
    *,
    keep: Tensor | None = None,
    counts: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    bias: AttentionBias | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax attention over the visible tokens, from packed projections, ready for the output projection.

    Gradients flow to q (or qkv), kv and the bias tables. A second derivative exists with ``backend="materialised"``.
    The op does not autocast by itself: it computes in float32 (float64 for float64) and returns q's dtype.

    Args:
        q: self-attention: packed ``qkv (S, K, 3, H, E)``; cross-attention: ``q (S, Q, H, E)``; with ``cu_seqlens``
            ``qkv (total, 3, H, E)``.
        kv: cross-attention: packed ``(S, K, 2, H, E)``.
        keep: ``(S, K)`` ids; the projections (qkv, or kv in cross-attention) are full-length and only the listed tokens
            take part. The others receive zero gradient.
        counts: ``(S,)`` tokens that exist; later keys are not attended, later outputs of self-attention are zero. A
            count of 0 gives zeros.
        cu_seqlens: ``(S+1,)`` cumulative lengths of ragged sequences.
        scale: factor of the scores; None takes ``E ** -0.5``.
        bias: additive bias as two tables, see :class:`AttentionBias`.
        dropout: probability of dropping an attention weight.
        seed: ``(2,)`` int64 for dropout.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``(S, Nq, H*E)``; with ``cu_seqlens`` ``(total, H*E)``.

    Raises:
        ValueError: shapes or options that do not fit.
        TypeError: a wrong dtype.
        RuntimeError: the named back end cannot run the call.
    """
    _check_packed(q, kv, cu_seqlens)
    structure = _structure_of(q, keep, counts, cu_seqlens, scale, bias, dropout, seed)
    problem = Problem(q.device.type, q.dtype, _features(structure))
    name = choose("visible_attention", problem, backend)
    if name == "sdpa":
        return _sdpa(q, kv, structure)
    if name == "materialised":
        return _materialised(q, kv, structure)
    rest = (structure.joint_bias, structure.time_bias, structure.query_ids, structure.key_ids, seed)
    return _op(q, kv, keep, counts, cu_seqlens, *rest, structure.scale, dropout, name)[0]
