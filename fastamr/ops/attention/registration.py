"""The dispatcher ops behind :mod:`.visible_attention`: forward, backward, backward into given tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...reference.attention.visible_attention import Structure, visible_attention_backward
from ...reference.attention.visible_attention import visible_attention as reference_attention
from ..common.precision import exact
from ..common.registration import fake_of, gradients_of
from . import native as attention_native
from .checks import check_values, without_absent

_NATIVE = ("cpp", "cuda")


def run_forward(q: Tensor, kv: Tensor | None, structure: Structure, backend: str) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp, past the dispatcher."""
    check_values(q, kv, structure)
    if backend in _NATIVE:
        return attention_native.forward(q, kv, structure, backend)
    with exact(q):
        return reference_attention(q, kv, without_absent(structure))


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
    check_values(q, kv, structure)
    if backend in _NATIVE:
        return attention_native.backward_into(
            grad, out, lse, q, kv, structure, backend, dq=dq, dkv=dkv, columns=columns
        )
    with exact(q):
        first, second, joint, time = visible_attention_backward(grad, q, kv, lse, without_absent(structure))
    dq.copy_(first)
    if dkv is not None and second is not None:
        dkv.copy_(second)
    if columns is not None:
        columns.copy_(_sums(first, second, columns.dtype))
    return joint, time


def _or_empty(value: Tensor | None, like: Tensor) -> Tensor:
    """An op's result cannot be None: an absent one is an empty tensor."""
    return like.new_empty(0) if value is None else value


def _like_or_empty(value: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if value is None else value.new_empty(value.shape)


# The optional tensors of a Structure, in the order of the ops' arguments.
OPTIONAL = ("keep", "counts", "cu_seqlens", "joint_bias", "time_bias", "query_ids", "key_ids", "seed")
_REST = f"{', '.join(f'Tensor? {name}' for name in OPTIONAL)}, float scale, float dropout, str backend"


def _bind(*values: Any) -> tuple[Structure, str]:
    """Structure and back end from the values of the arguments in ``_REST``."""
    *tensors, scale, dropout, backend = values
    return Structure(scale=scale, dropout=dropout, **dict(zip(OPTIONAL, tensors, strict=True))), backend


@torch.library.custom_op(
    "fastamr::visible_attention",
    mutates_args=(),
    schema=f"(Tensor q, Tensor? kv, {_REST}) -> (Tensor, Tensor)",
)
def attention(q: Tensor, kv: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp."""
    return run_forward(q, kv, *_bind(*rest))


@fake_of(attention)
def _(q: Tensor, kv: Tensor | None, keep: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    heads, size = q.shape[-2:]
    compute = torch.promote_types(torch.float32, q.dtype)
    if cu_seqlens is not None:
        return q.new_empty((q.shape[0], heads * size)), q.new_empty((q.shape[0], heads), dtype=compute)
    queries = keep.shape[1] if kv is None and keep is not None else q.shape[1]
    out = q.new_empty((q.shape[0], queries, heads * size))
    return out, q.new_empty((q.shape[0], heads, queries), dtype=compute)


@torch.library.custom_op(
    "fastamr::visible_attention_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor out, Tensor lse, Tensor q, Tensor? kv, {_REST}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def attention_backward(
    grad: Tensor, out: Tensor, lse: Tensor, q: Tensor, kv: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fresh gradients of q (or qkv), kv, joint table and time table; absent ones are empty."""
    dq = q.new_empty(q.shape)
    dkv = None if kv is None else kv.new_empty(kv.shape)
    joint, time = run_backward_into(grad, out, lse, q, kv, *_bind(*rest), dq, dkv, None)
    return dq, _or_empty(dkv, q), _or_empty(joint, q), _or_empty(time, q)


@fake_of(attention_backward)
def _(
    q: Tensor, kv: Tensor | None, joint_bias: Tensor | None, time_bias: Tensor | None
) -> tuple[Tensor, ...]:
    return q.new_empty(q.shape), *(_like_or_empty(x, q) for x in (kv, joint_bias, time_bias))


@torch.library.custom_op(
    "fastamr::visible_attention_backward_into",
    mutates_args=("dq", "dkv", "columns"),
    schema="(Tensor grad, Tensor out, Tensor lse, Tensor q, Tensor? kv, Tensor(a5!) dq, Tensor(a6!)? dkv, "
    f"Tensor(a7!)? columns, {_REST}) -> (Tensor, Tensor)",
)
def attention_backward_into(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    kv: Tensor | None,
    dq: Tensor,
    dkv: Tensor | None,
    columns: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    """The backward into given tensors; returns the gradients of both tables, empty where there are none."""
    joint, time = run_backward_into(grad, out, lse, q, kv, *_bind(*rest), dq, dkv, columns)
    return _or_empty(joint, q), _or_empty(time, q)


@fake_of(attention_backward_into)
def _(q: Tensor, joint_bias: Tensor | None, time_bias: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(_like_or_empty(x, q) for x in (joint_bias, time_bias))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.dropout, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, *tensors)


def _backward(ctx: Any, grad: Tensor | None, grad_lse: Tensor | None) -> dict[str, Tensor | None]:
    out, lse, q, kv, *optional = ctx.saved_tensors
    if grad is None:
        return {}
    found = attention_backward(grad, out, lse, q, kv, *optional, ctx.scale, ctx.dropout, ctx.backend)
    gradients = dict(zip(("q", "kv", "joint_bias", "time_bias"), found, strict=True))
    given = {"q": q, "kv": kv, **dict(zip(OPTIONAL, optional, strict=True))}
    return {name: gradient for name, gradient in gradients.items() if given[name] is not None}


def _refuse_double_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    raise RuntimeError(
        "visible_attention has no second derivative; use fastamr.backend(visible_attention='materialised') for it"
    )


attention.register_autograd(gradients_of(attention, _backward), setup_context=_setup)
attention_backward.register_autograd(_refuse_double_backward)
