"""The products that the row ops' forms without a matrix unit are built on: PyTorch's, on a CPU MKL's, or oneDNN's.

PyTorch gives float32 products to MKL, which on processors of other makers does not use all they have.
``FASTAMR_PRODUCTS`` names ``mkl`` or ``onednn``; without it oneDNN is taken where it was measured to be faster
(docs/performance.md).
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ...errors import check_name
from .planning import device_type_of

LIBRARIES = ("mkl", "onednn")


def _chosen() -> str:
    """The library for this process, by the environment or the processor."""
    named = os.environ.get("FASTAMR_PRODUCTS", "")
    if named:
        check_name("FASTAMR_PRODUCTS", named, LIBRARIES)
    # An operation of torch.compile's own back end, so that other builds may lack it.
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if named == "onednn" and not there:
        raise ValueError(
            "FASTAMR_PRODUCTS='onednn', but this build of PyTorch has no oneDNN product: name 'mkl'"
        )
    if named or not there:
        return named or "mkl"
    told: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    faster = str(told.get("cpu_name", "")).startswith("AMD") and bool(told.get("avx512_f"))
    return "onednn" if faster else "mkl"


# Once and for all, so that a run's products have the same bits from beginning to end.
_library = _chosen()


def product_library() -> str:
    """``mkl`` or ``onednn``: whose float32 products this process takes on a CPU."""
    return _library


def _takes_onednn(x: Tensor, weight: Tensor) -> bool:
    covered = x.dtype == torch.float32 and device_type_of(x) == "cpu" and x.numel() > 0 and weight.numel() > 0
    return covered and _library == "onednn"


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``.

    Args:
        x: ``(M, D)``, contiguous, float32, float64 or bfloat16.
        weight: ``(F, D)`` of x's dtype.
        bias: ``(F,)`` of x's dtype; None adds nothing.
    """
    if _takes_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    found = torch.mm(x, weight.T)
    # addmm would write the bias to all rows first and read them again in the product.
    return found if bias is None else found.add_(bias)


def product_backward(upstream: Tensor, weight: Tensor) -> Tensor:
    """``upstream @ weight``, the gradient of :func:`product`'s rows.

    Args:
        upstream: ``(M, F)``, contiguous.
        weight: ``(F, D)`` of the same dtype.
    """
    if _takes_onednn(upstream, weight):
        return torch.ops.mkldnn._linear_pointwise(upstream, weight.T, None, "none", [], "")
    return torch.mm(upstream, weight)
