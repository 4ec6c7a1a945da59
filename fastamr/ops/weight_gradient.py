"""Gradient of a linear layer's weight, summed in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference
from . import rows_native
from .backends import Backend, Problem, can_always, choose, declare
from .precision import exact
from .row_checks import accumulator, check_operand, check_rows, problem_of
from .triton_support import triton_why_not

# (F, D) of weights for which benchmarks/bench_weight_gradient.py measured the kernel to be faster than the library's
# product. Nothing has been measured yet, so the library runs.
_KERNEL_IS_FASTER: frozenset[tuple[int, int]] = frozenset()


def _kernel_slower_because(problem: Problem) -> str | None:
    shape = (problem.sizes.get("outputs", 0), problem.sizes.get("inputs", 0))
    return None if shape in _KERNEL_IS_FASTER else "no measurement says that it beats the library's product"


declare(
    "weight_gradient",
    Backend("triton", triton_why_not, automatic_on=("cuda",), slower_because=_kernel_slower_because),
    Backend("cpp", rows_native.products_why_not),
    Backend("torch", can_always),
    Backend("reference", can_always),
)


def _library_product(upstream: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
    """The product of cuBLAS or oneDNN, summed in float32."""
    compute = accumulator(x.dtype)
    if x.dtype == compute:
        return torch.mm(upstream.T, x, out=out)
    if x.is_cuda:
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
    problem = problem_of(upstream, rows=rows, outputs=features, inputs=width)
    name = choose("weight_gradient", problem, backend)
    if name == "triton":
        from ..kernels.weight_gradient import weight_gradient as kernel

        return kernel(upstream, x, out)
    with exact(x):
        if name == "cpp":
            return rows_native.weight_gradient(upstream, x, out)
        if name == "torch":
            return _library_product(upstream, x, out)
        return reference.weight_gradient(upstream, x, out)
