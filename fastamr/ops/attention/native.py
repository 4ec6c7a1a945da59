"""Calls of the compiled extension's raw functions ``fastamr_native::visible_attention_*``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import native
from ...reference.attention.visible_attention import Structure
from ..common.backends import Problem
from ..common.planning import note, planned_device

_DEVICES = {"cpp": "cpu", "cuda": "cuda"}
_DTYPES = {
    "cpp": (torch.float32, torch.bfloat16, torch.float64),
    "cuda": (torch.float16, torch.bfloat16),
}
_HEAD_SIZES = (16, 32, 64)
_MOST_KEYS = 256


def why_not(backend: str) -> Callable[[Problem], str | None]:
    """The function that says why back end ``"cpp"`` or ``"cuda"`` cannot run a call."""
    device, dtypes = _DEVICES[backend], _DTYPES[backend]

    def answer(problem: Problem) -> str | None:
        if problem.device_type != device:
            return f"it runs on {device} tensors, these are on {problem.device_type}"
        if problem.dtype not in dtypes:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            return f"it covers {names}, not {str(problem.dtype).removeprefix('torch.')}"
        if "size" in problem.sizes and problem.sizes["size"] not in _HEAD_SIZES:
            return f"it covers the head sizes {_HEAD_SIZES}, not {problem.sizes['size']}"
        if "keys" in problem.sizes and problem.sizes["keys"] > _MOST_KEYS:
            return f"it covers up to {_MOST_KEYS} keys, not {problem.sizes['keys']}"
        return None if planned_device() is not None else native.why_not(device)

    return answer


def _noted_forward(*arguments: Any) -> None:
    note("visible_attention_forward")


def _noted_backward(*arguments: Any) -> None:
    note("visible_attention_backward")
    columns_and_tables = arguments[9:12]
    if any(sums is not None for sums in columns_and_tables):
        note("visible_attention_reduce")


def _raw(direction: str, backend: str) -> Any:
    if planned_device() is not None:
        return _noted_forward if direction == "forward" else _noted_backward
    return getattr(torch.ops.fastamr_native, f"visible_attention_{direction}_{_DEVICES[backend]}").default


def _rows(values: Tensor) -> Tensor:
    """The tensor itself if its last dimension is contiguous, which is all that the kernels ask for."""
    return values if values.stride(-1) == 1 else values.contiguous()


def _unpacked(q: Tensor, kv: Tensor | None, structure: Structure) -> tuple[Tensor, ...]:
    """Views q, k, v ``(S, N, H, E)``; with cu_seqlens ``(total, H, E)``."""
    if kv is not None:
        return _rows(q), *_rows(kv).unbind(2)
    return _rows(q).unbind(1 if structure.cu_seqlens is not None else 2)


def _indices(values: Tensor | None) -> Tensor | None:
    if values is None or values.dtype == torch.int32:
        return None if values is None else values.contiguous()
    # What is out of range stays so: a number cut to its low 32 bits would become another one.
    limits = torch.iinfo(torch.int32)
    return values.clamp(limits.min, limits.max).int().contiguous()


def _rest(q: Tensor, kv: Tensor | None, structure: Structure) -> tuple[Any, ...]:
    """The arguments after the tensors of rows, in the raw functions' order and dtypes."""
    compute = torch.promote_types(torch.float32, q.dtype)
    tables = (
        None if table is None else table.to(compute).contiguous()
        for table in (structure.joint_bias, structure.time_bias)
    )
    return (
        *(_indices(values) for values in (structure.keep, structure.counts, structure.cu_seqlens)),
        *tables,
        *(_indices(values) for values in (structure.query_ids, structure.key_ids)),
        None if structure.seed is None else structure.seed.contiguous(),
        structure.scale,
        structure.dropout,
        kv is None,
    )


def forward(q: Tensor, kv: Tensor | None, structure: Structure, backend: str) -> tuple[Tensor, Tensor]:
    """Output ``(S, Nq, H*E)`` and log-sum-exp ``(S, H, Nq)``; with cu_seqlens ``(total, H*E)``, ``(total, H)``."""
    heads, size = q.shape[-2:]
    queries, keys, values = _unpacked(q, kv, structure)
    lead = queries.shape[:-2]
    if kv is None and structure.keep is not None:
        lead = structure.keep.shape
    out = q.new_empty((*lead, heads, size))
    shape = (*lead, heads) if structure.cu_seqlens is not None else (lead[0], heads, lead[1])
    lse = q.new_empty(shape, dtype=torch.promote_types(torch.float32, q.dtype))
    _raw("forward", backend)(queries, keys, values, out, lse, *_rest(q, kv, structure))
    return out.flatten(-2), lse


def backward_into(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    kv: Tensor | None,
    structure: Structure,
    backend: str,
    *,
    dq: Tensor,
    dkv: Tensor | None,
    columns: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Write the gradients of q (or qkv) and kv into ``dq`` and ``dkv``; return those of the bias tables."""
    heads = q.shape[-2:]
    joint = time = None
    if structure.joint_bias is not None and structure.time_bias is not None:
        joint = torch.empty_like(structure.joint_bias, dtype=lse.dtype, memory_format=torch.contiguous_format)
        time = torch.empty_like(structure.time_bias, dtype=lse.dtype, memory_format=torch.contiguous_format)
    _raw("backward", backend)(
        _rows(grad).unflatten(-1, heads),
        *_unpacked(q, kv, structure),
        _rows(out).unflatten(-1, heads),
        lse.contiguous(),
        *_unpacked(dq, dkv, structure),
        columns,
        joint,
        time,
        *_rest(q, kv, structure),
    )
    if joint is None or time is None or structure.joint_bias is None:
        return None, None
    return joint.to(structure.joint_bias.dtype), time.to(structure.joint_bias.dtype)
