"""Gradient of a linear layer's weight, or of several layers' weights at once, summed in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import reference
from ..common.backends import Backend, Problem, can_always, choose, declare
from ..common.overlap import check_apart
from ..common.planning import device_type_of
from ..common.precision import exact
from ..common.triton_support import triton_why_not
from . import native as rows_native
from .checks import accumulator, check_operand, check_rows, problem_of

# (F, D) of weights for which benchmarks/ops/rows/bench_weight_gradient.py measured the kernel to be faster than the
# library's product. Nothing has been measured yet, so the library runs.
_KERNEL_IS_FASTER: frozenset[tuple[int, int]] = frozenset()

# The same for groups: the weights' (F, D), in the order in which a layer's backward meets them.
_GROUP_IS_FASTER: frozenset[tuple[tuple[int, int], ...]] = frozenset()


def weight_gradients_problem(like: Tensor, rows: int, shapes: Sequence[tuple[int, int]]) -> Problem:
    """A call of :func:`weight_gradients` as the back ends see it; its sizes carry the weights' positions.

    Args:
        like: a tensor of the rows' dtype and device.
        rows: M, the most that a pair has.
        shapes: ``(F, D)`` of the weights.
    """
    sizes = {"rows": rows}
    for position, (features, width) in enumerate(shapes):
        sizes |= {f"outputs{position}": features, f"inputs{position}": width}
    return problem_of(like, **sizes)


def _kernel_slower_because(problem: Problem) -> str | None:
    if "outputs0" in problem.sizes:
        sizes = (size for name, size in problem.sizes.items() if name != "rows")
        known = tuple(zip(sizes, sizes, strict=True)) in _GROUP_IS_FASTER
        return None if known else "no measurement says that one launch beats one product after the other"
    shape = (problem.sizes.get("outputs", 0), problem.sizes.get("inputs", 0))
    return None if shape in _KERNEL_IS_FASTER else "no measurement says that it beats the library's product"


declare(
    "weight_gradient",
    Backend("triton", triton_why_not, automatic_on=("cuda",), slower_because=_kernel_slower_because),
    Backend(
        "cpp",
        rows_native.products_why_not,
        automatic_on=("cpu",),
        slower_because=rows_native.products_slower_because,
    ),
    Backend("torch", can_always),
    Backend("reference", can_always),
)


def _library_product(upstream: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
    """The product of cuBLAS or oneDNN, summed in float32."""
    compute = accumulator(x.dtype)
    if x.dtype == compute:
        return torch.mm(upstream.T, x, out=out)
    if device_type_of(x) == "cuda":
        return torch.mm(upstream.T, x, out_dtype=compute, out=out)
    # oneDNN sums in float32 too but hands the sums out in the inputs' dtype.
    product = torch.mm(upstream.T, x)
    return product.to(compute) if out is None else out.copy_(product)


def weight_gradient(
    upstream: Tensor, x: Tensor, out: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """``upstream.T @ x``: the gradient of the weight of a linear layer with input x.

    Sums are float32 (float64 for float64) and repeat bit for bit, also under autocast. The back end ``torch`` is the
    library's product, which on a CPU rounds the sums of 16-bit inputs to their dtype once at the end; ``triton`` sums
    slices of the rows in separate programs and adds them in a fixed order, without atomics; ``cpp`` is a CPU's matrix
    unit, see :func:`fastamr.ops.row_linear`.

    A building block of :mod:`fastamr.nn`'s stacks, which carry the autograd: no gradient flows through it, and it is
    not registered with PyTorch's dispatcher.

    Args:
        upstream: ``(M, F)`` rows, gradient of the layer's output; float16, bfloat16, float32 or float64, contiguous.
        x: ``(M, D)`` rows of the same dtype, contiguous.
        out: ``(F, D)`` float32 (float64 for float64), contiguous, overwritten; None makes a new tensor.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``(F, D)``, float32 (float64 for float64); ``out`` if given.

    Raises:
        ValueError: shapes or devices that do not fit, rows that are not contiguous.
        TypeError: a wrong dtype.
        RuntimeError: an argument that requires a gradient under grad mode; the named back end cannot run the call.
    """
    check_rows("upstream", upstream, "(M, F)")
    rows, features = upstream.shape
    check_rows("x", x, "(M, D)")
    width = x.shape[1]
    check_operand("x", x, (rows, width), "(M, D)", (upstream.dtype,), upstream, "upstream")
    if out is not None:
        dtypes = (accumulator(x.dtype),)
        check_operand("out", out, (features, width), "(F, D)", dtypes, upstream, "upstream")
        check_apart({"out": out}, {"upstream": upstream, "x": x})
    problem = problem_of(upstream, rows=rows, outputs=features, inputs=width)
    name = choose("weight_gradient", problem, backend)
    if name == "triton":
        from ...kernels.weight_gradient import weight_gradient as kernel

        return kernel(upstream, x, out)
    with exact(x):
        if name == "cpp":
            return rows_native.weight_gradient(upstream, x, out)
        if name == "torch":
            return _library_product(upstream, x, out)
        return reference.weight_gradient(upstream, x, out)


def groups_weight_gradients(
    like: Tensor, shapes: Sequence[tuple[int, int]], backend: str | None = None, *, rows: int | None = None
) -> bool:
    """Whether :func:`weight_gradients` of these weights is one launch, worth waiting for the last pair.

    Args:
        like: a tensor of the rows' dtype and device.
        shapes: ``(F, D)`` of the weights.
        backend: back end for this call; None takes the user's choice.
        rows: M, the most that a pair has; None takes those of ``like``.

    Raises:
        RuntimeError: the named back end cannot run the call.
    """
    problem = weight_gradients_problem(like, len(like) if rows is None else rows, shapes)
    return choose("weight_gradient", problem, backend) == "triton"


def weight_gradients(pairs: Sequence[tuple[Tensor, Tensor]], *, backend: str | None = None) -> list[Tensor]:
    """``upstream.T @ x`` of each pair: the gradients of several linear layers' weights.

    What :func:`weight_gradient` gives for each, up to the order of float32 sums; the same bits in every call. The back
    end ``triton`` takes four of them in one launch, with slices of the rows that are added in a fixed order, and
    returns views of one buffer; the others take one after the other.

    Args:
        pairs: ``upstream (M, F)`` and ``x (M, D)`` as in :func:`weight_gradient`, all of one dtype on one device; M, F
            and D may differ from pair to pair.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``(F, D)`` for each pair, contiguous, float32 (float64 for float64).

    Raises:
        ValueError: shapes or devices that do not fit, rows that are not contiguous.
        TypeError: a wrong dtype.
        RuntimeError: an argument that requires a gradient under grad mode; the named back end cannot run the call.
    """
    if not pairs:
        return []
    like = pairs[0][0]
    for position, (upstream, x) in enumerate(pairs):
        names = f"pairs[{position}][0]", f"pairs[{position}][1]"
        check_rows(names[0], upstream, "(M, F)")
        rows = upstream.shape[0]
        check_operand(names[0], upstream, tuple(upstream.shape), "(M, F)", (like.dtype,), like, "pairs[0][0]")
        check_rows(names[1], x, "(M, D)")
        check_operand(names[1], x, (rows, x.shape[1]), "(M, D)", (like.dtype,), like, "pairs[0][0]")
    shapes = [(upstream.shape[1], x.shape[1]) for upstream, x in pairs]
    if groups_weight_gradients(like, shapes, backend, rows=max(len(x) for _, x in pairs)):
        from ...kernels.weight_gradient import weight_gradients as kernel

        return kernel(pairs)
    return [weight_gradient(upstream, x, backend=backend) for upstream, x in pairs]
