"""Attention over the few visible tokens of a sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...reference.attention.visible_attention import Structure, dense_bias, unpack
from ..common.backends import Backend, Problem, can_always, choose, declare
from ..common.checks import check_device, check_shape, check_tensor
from ..common.overlap import check_apart
from . import native as attention_native
from .checks import AttentionBias, check_packed, check_values, features_of, structure_of, tokens_of
from .registration import OPTIONAL, attention, attention_backward_into, run_backward_into, run_forward


def _sdpa_why_not(problem: Problem) -> str | None:
    missing = [name for name in ("dropout", "counts", "cu_seqlens") if name in problem.features]
    return f"PyTorch's SDPA has no form for {', '.join(missing)} here" if missing else None


def _materialised_why_not(problem: Problem) -> str | None:
    return f"the plain form has no {', '.join(problem.features)}" if problem.features else None


# Multiplications per product (S*H*Nq*Nk*E) from which the CPU kernel's saving exceeds what a call of the op costs more
# than a call of SDPA. Measured on two cores of a Xeon with AVX-512: a tie at about two million.
_WORTH_A_CALL = 2_500_000


def _cpp_slower_because(problem: Problem) -> str | None:
    """Why SDPA is the faster choice; None where SDPA cannot run the call or the C++ kernel was measured faster."""
    if _sdpa_why_not(problem) is not None:
        return None
    if problem.dtype == torch.float64:
        return "SDPA is faster in float64"
    if "work" in problem.sizes and problem.sizes["work"] < _WORTH_A_CALL:
        return "the call is too small"
    return None


declare(
    "visible_attention",
    Backend("cuda", attention_native.why_not("cuda"), automatic_on=()),
    Backend(
        "cpp",
        attention_native.why_not("cpp"),
        automatic_on=("cpu",),
        slower_because=_cpp_slower_because,
    ),
    Backend("sdpa", _sdpa_why_not),
    Backend("reference", can_always),
    Backend("materialised", _materialised_why_not, automatic_on=(), is_baseline=True),
)


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


def attention_sizes(sequences: int, queries: int, keys: int, heads: int, size: int) -> dict[str, int]:
    """The sizes of a call with as many queries and keys in each sequence; ``work`` is their product."""
    work = sequences * heads * queries * keys * size
    return {
        "size": size,
        "keys": keys,
        "work": work,
        "sequences": sequences,
        "queries": queries,
        "heads": heads,
    }


def _problem(q: Tensor, kv: Tensor | None, structure: Structure) -> Problem:
    heads, size = q.shape[-2:]
    sizes = {"size": size}
    if structure.cu_seqlens is None:
        queries, keys = tokens_of(q, kv, structure.keep)
        sizes |= attention_sizes(q.shape[0], queries, keys, heads, size)
    return Problem(q.device.type, q.dtype, features_of(structure), sizes)


def _optional(structure: Structure) -> list[Tensor | None]:
    return [getattr(structure, name) for name in OPTIONAL]


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
    ``torch.vmap`` runs it slice by slice; ``torch.func.grad`` needs ``backend="sdpa"`` or ``"materialised"``.

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
    check_packed(q, kv, cu_seqlens)
    structure = structure_of(q, kv, keep, counts, cu_seqlens, scale, bias, dropout, seed)
    name = choose("visible_attention", _problem(q, kv, structure), backend)
    if name in ("sdpa", "materialised") and not torch.compiler.is_compiling():
        check_values(q, kv, structure)
    if name == "sdpa":
        return _sdpa(q, kv, structure)
    if name == "materialised":
        return _materialised(q, kv, structure)
    return attention(q, kv, *_optional(structure), structure.scale, dropout, name)[0]


# Back ends whose forward gives the log-sum-exp that :func:`visible_attention_backward_into` needs.
ATTENTION_WITH_LSE = ("cpp", "cuda", "reference")


def attention_backend(
    device_type: str,
    dtype: torch.dtype,
    *,
    sequences: int,
    queries: int,
    keys: int,
    heads: int,
    size: int,
    backend: str | None = None,
) -> str:
    """Name of the back end that would run a plain call of :func:`visible_attention` of these sizes.

    Raises:
        RuntimeError: the named back end cannot run it.
    """
    sizes = attention_sizes(sequences, queries, keys, heads, size)
    return choose("visible_attention", Problem(device_type, dtype, (), sizes), backend)


def visible_attention_forward(
    q: Tensor, kv: Tensor | None = None, *, scale: float | None = None, backend: str = "reference"
) -> tuple[Tensor, Tensor]:
    """Plain attention with its log-sum-exp, without autograd: what :func:`visible_attention_backward_into` reverses.

    Args:
        q: ``qkv (S, K, 3, H, E)``, or ``q (S, Q, H, E)`` with kv.
        kv: ``(S, K, 2, H, E)``.
        scale: factor of the scores; None takes ``E ** -0.5``.
        backend: one of :data:`ATTENTION_WITH_LSE`, able to run the call (see :func:`attention_backend`).

    Returns:
        ``(S, Nq, H*E)`` and the log-sum-exp ``(S, H, Nq)``, float32 (float64 for float64).
    """
    check_packed(q, kv, None)
    structure = structure_of(q, kv, None, None, None, scale, None, 0.0, None)
    return run_forward(q, kv, structure, choose("visible_attention", _problem(q, kv, structure), backend))


def visible_attention_backward_into(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    kv: Tensor | None = None,
    *,
    dq: Tensor,
    dkv: Tensor | None = None,
    columns: Tensor | None = None,
    keep: Tensor | None = None,
    counts: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    bias: AttentionBias | None = None,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of :func:`visible_attention` written into tensors of the caller, without autograd.

    For training steps that lay out their own gradients: ``dq`` and ``dkv`` may be slices of larger buffers, and the
    column sums are the gradients of the projections' biases.

    Args:
        grad: gradient of the output ``(S, Nq, H*E)``.
        out: the output.
        lse: log-sum-exp ``(S, H, Nq)`` of the forward, the second result of ``torch.ops.fastamr.visible_attention``.
        q: as in the forward.
        kv: as in the forward.
        dq: of q's shape, any strides but contiguous over E; every element is written.
        dkv: of kv's shape, likewise.
        columns: ``(3, H, E)`` in the compute dtype (float32; float64 for float64), contiguous: receives the sums over
            sequences and tokens of the gradients of q, k and v.
        keep: as in the forward, like the other optional arguments.
        counts: as in the forward.
        cu_seqlens: as in the forward.
        scale: as in the forward.
        bias: as in the forward.
        dropout: as in the forward.
        seed: as in the forward.
        backend: the back end that ran the forward, or another one.

    Returns:
        Gradients of the joint and of the time table; None without a bias.

    Raises:
        ValueError: shapes, devices or strides that do not fit, or a tensor to write into that shares memory.
        TypeError: a wrong dtype.
        RuntimeError: the named back end cannot run the call.
    """
    check_packed(q, kv, cu_seqlens)
    structure = structure_of(q, kv, keep, counts, cu_seqlens, scale, bias, dropout, seed)
    _check_saved(q, kv, structure, grad, out, lse)
    _check_targets(q, kv, dq, dkv, columns)
    inputs = {"grad": grad, "out": out, "lse": lse, "q": q, "kv": kv}
    check_apart({"dq": dq, "dkv": dkv, "columns": columns}, inputs)
    problem = _problem(q, kv, structure)
    name = choose("visible_attention", problem, backend)
    if name not in ("cpp", "cuda"):
        name = "reference"
    if not torch.compiler.is_compiling():
        return run_backward_into(grad, out, lse, q, kv, structure, name, dq, dkv, columns)
    joint, time = attention_backward_into(
        *(grad, out, lse, q, kv, dq, dkv, columns, *_optional(structure)), structure.scale, dropout, name
    )
    return (None, None) if bias is None else (joint, time)


def _check_saved(
    q: Tensor, kv: Tensor | None, structure: Structure, grad: Tensor, out: Tensor, lse: Tensor
) -> None:
    """Raise unless the output, its gradient and the log-sum-exp are those of a forward of this call."""
    heads, size = q.shape[-2:]
    lead: tuple[int, ...] = (q.shape[0],)
    if structure.cu_seqlens is None:
        lead = (q.shape[0], tokens_of(q, kv, structure.keep)[0])
    for name, value in (("grad", grad), ("out", out)):
        check_tensor(name, value, len(lead) + 1, "(S, Nq, H*E)", (q.dtype,))
        check_shape(name, value, (*lead, heads * size), "(S, Nq, H*E)")
        check_device(name, value, q.device, "q")
    shape = (*lead, heads) if structure.cu_seqlens is not None else (lead[0], heads, lead[1])
    check_tensor("lse", lse, len(shape), "(S, H, Nq)", (torch.promote_types(torch.float32, q.dtype),))
    check_shape("lse", lse, shape, "(S, H, Nq), with cu_seqlens (total, H)")
    check_device("lse", lse, q.device, "q")


def _check_targets(
    q: Tensor, kv: Tensor | None, dq: Tensor, dkv: Tensor | None, columns: Tensor | None
) -> None:
    """Raise unless the tensors to write into fit."""
    if (kv is None) != (dkv is None):
        raise ValueError("dkv must be given exactly where kv is: it receives kv's gradient")
    for name, target, source in (("dq", dq, q), ("dkv", dkv, kv)):
        if target is not None and source is not None:
            check_tensor(name, target, source.ndim, "like its input", (source.dtype,))
            check_shape(name, target, tuple(source.shape), "like its input")
            check_device(name, target, q.device, "q")
            if target.stride(-1) != 1 and target.numel() > 0:
                raise ValueError(
                    f"{name} has stride {target.stride(-1)} over E: expected 1 (other strides are free)"
                )
    if columns is not None:
        compute = torch.promote_types(torch.float32, q.dtype)
        check_tensor("columns", columns, 3, "(3, H, E)", (compute,))
        check_shape("columns", columns, (3, *q.shape[-2:]), "(3, H, E)")
        check_device("columns", columns, q.device, "q")
        if not columns.is_contiguous():
            raise ValueError(f"columns has strides {columns.stride()}: expected a contiguous tensor")
