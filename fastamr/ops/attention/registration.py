"""The dispatcher ops behind :mod:`.visible_attention`: forward, backward, backward into given tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...reference.attention.visible_attention import Structure, visible_attention_backward
from ...reference.attention.visible_attention import visible_attention as reference_attention
from ..common.precision import exact
from . import native as attention_native

_NATIVE = ("cpp", "cuda")


def run_forward(q: Tensor, kv: Tensor | None, structure: Structure, backend: str) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp, past the dispatcher."""
    if backend in _NATIVE:
        return attention_native.forward(q, kv, structure, backend)
    with exact(q):
        return reference_attention(q, kv, structure)


def _sums(dq: Tensor, dkv: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Column sums ``(3, H, E)`` of the gradients in the packed layouts."""
    parts = [dq if dkv is None else dq.unsqueeze(-3), *([] if dkv is None else [dkv])]
    return torch.cat([part.to(dtype).flatten(0, -4).sum(0) for part in parts])


def run_backward_into(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    kv: Tensor | None,
    structure: Structure,
    backend: str,
    dq: Tensor,
    dkv: Tensor | None,
    columns: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Write the gradients into the given tensors, past the dispatcher; return those of the bias tables."""
    if backend in _NATIVE:
        return attention_native.backward_into(
            grad, out, lse, q, kv, structure, backend, dq=dq, dkv=dkv, columns=columns
        )
    with exact(q):
        first, second, joint, time = visible_attention_backward(grad, q, kv, lse, structure)
    dq.copy_(first)
    if dkv is not None and second is not None:
        dkv.copy_(second)
    if columns is not None:
        columns.copy_(_sums(first, second, columns.dtype))
    return joint, time


def _or_empty(value: Tensor | None, like: Tensor) -> Tensor:
    """An op's result cannot be None: an absent one is an empty tensor."""
    return like.new_empty(0) if value is None else value


@torch.library.custom_op("fastamr::visible_attention", mutates_args=())
def attention(
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
    """Output and log-sum-exp."""
    structure = Structure(
        scale, keep, counts, cu_seqlens, joint_bias, time_bias, query_ids, key_ids, dropout, seed
    )
    return run_forward(q, kv, structure, backend)


@attention.register_fake
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
def attention_backward(
    grad: Tensor,
    out: Tensor,
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
    """Fresh gradients of q (or qkv), kv, joint table and time table; absent ones are empty."""
    structure = Structure(
        scale, keep, counts, cu_seqlens, joint_bias, time_bias, query_ids, key_ids, dropout, seed
    )
    dq = q.new_empty(q.shape)
    dkv = None if kv is None else kv.new_empty(kv.shape)
    joint, time = run_backward_into(grad, out, lse, q, kv, structure, backend, dq, dkv, None)
    return dq, _or_empty(dkv, q), _or_empty(joint, q), _or_empty(time, q)


@attention_backward.register_fake
def _(
    grad: Tensor,
    out: Tensor,
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


@torch.library.custom_op("fastamr::visible_attention_backward_into", mutates_args=("dq", "dkv", "columns"))
def attention_backward_into(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    kv: Tensor | None,
    dq: Tensor,
    dkv: Tensor | None,
    columns: Tensor | None,
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
    """The backward into given tensors; returns the gradients of both tables, empty where there are none."""
    structure = Structure(
        scale, keep, counts, cu_seqlens, joint_bias, time_bias, query_ids, key_ids, dropout, seed
    )
    joint, time = run_backward_into(grad, out, lse, q, kv, structure, backend, dq, dkv, columns)
    return _or_empty(joint, q), _or_empty(time, q)


@attention_backward_into.register_fake
def _(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    kv: Tensor | None,
    dq: Tensor,
    dkv: Tensor | None,
    columns: Tensor | None,
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
    joint, time = (q.new_empty(0) if x is None else x.new_empty(x.shape) for x in (joint_bias, time_bias))
    return joint, time


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.dropout, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, *tensors)


def _backward(ctx: Any, grad: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    out, lse, q, kv, keep, counts, cu_seqlens, joint, time, *rest = ctx.saved_tensors
    if grad is None:
        return (None,) * 13
    dq, dkv, djoint, dtime = attention_backward(
        *(grad, out, lse, q, kv, keep, counts, cu_seqlens, joint, time, *rest),
        *(ctx.scale, ctx.dropout, ctx.backend),
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


attention.register_autograd(_backward, setup_context=_setup)
attention_backward.register_autograd(_refuse_double_backward)
