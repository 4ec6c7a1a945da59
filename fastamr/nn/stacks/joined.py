"""What a layer computes between two attentions as one call of the compiled extension, on a CPU.

Where every op on rows would take the extension's passes and a library's products, these functions call the same ones
in the same order, so that the bits are the same, without Python in between: threads that wait for the next parallel
region are still awake.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ...ops.common.backends import choose, is_watched
from ...ops.common.precision import exact
from ...ops.common.products import product_library
from ...ops.rows import native
from .layers import Following, Gradients, Hidden, Layer, Norm, Plan, Stream, StreamGradient, row_problems

# What each op must take, see :mod:`fastamr.ops.rows.native`.
_CHOSEN = {
    "row_linear": "torch",
    "row_norm": "cpp",
    "linear_gelu": "cpp",
    "linear_residual_norm": "cpp",
    "weight_gradient": "torch",
}


def joins(rows: Tensor, hidden: int) -> bool:
    """Say whether a stack of these rows ``(M, D)`` and MLPs of this inner width is computed by joined calls."""
    return (
        rows.dtype == torch.float32
        and rows.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not is_watched()  # who watches the choices wants to see each op's
        and not native.multiplies(rows.dtype)
        and all(choose(op, problem) == _CHOSEN[op] for op, problem in row_problems(rows, hidden))
    )


@functools.cache
def _raw(name: str) -> Any:
    return getattr(torch.ops.fastamr_native, f"{name}_cpu").default


def _by_onednn() -> bool:
    return product_library() == "onednn"


def finish_layer(
    layer: Layer, attended: Tensor, residual: Tensor, following: Following, plan: Plan
) -> tuple[Hidden, Stream, Tensor | None]:
    """As :func:`.layers.finish_layer`."""
    norm, project = following
    with exact(attended):
        found = _raw("layer_end")(
            *(attended, *layer.out, residual, *layer.norm2, layer.scales[0], *layer.fc1, *layer.fc2),
            *(*norm, layer.scales[1], *(project or (None, None)), plan.saves, _by_onednn()),
        )
    h, slope = found[8:10] if plan.saves else (None, None)
    return Hidden(Stream(*found[:4]), h, slope), Stream(*found[4:8]), None if project is None else found[-1]


def finish_backward(
    layer: Layer, attended: Tensor, hidden: Hidden, after: StreamGradient, gradients: Gradients
) -> tuple[StreamGradient, Tensor]:
    """As :func:`.layers.finish_backward`; the gradient of attention's rows too."""
    middle = hidden.middle
    with exact(attended):
        dfc2, dbias, dfc1, dx, sums, branch, dout, grad = _raw("layer_end_backward")(
            *(after.branch, after.total, hidden.h, hidden.slope, layer.fc2.weight),
            *(middle.total, middle.normed, middle.mean, middle.rstd, layer.fc1.weight, layer.norm2.gamma),
            *(layer.scales[0], attended, layer.out.weight, _by_onednn()),
        )
    gradients |= {
        "mlp.fc2.weight": dfc2,
        "mlp.fc2.bias": after.bias,
        "mlp.fc1.weight": dfc1,
        "mlp.fc1.bias": dbias,
    }
    gradients.norm("norm2", sums[0], sums[1])
    gradients |= {"attn.proj.weight": dout, "attn.proj.bias": sums[2]}
    return StreamGradient(dx, branch, sums[2]), grad


def begin_backward(
    project: tuple[str, Tensor, Tensor],
    before: Stream,
    norm: Norm,
    skip: Tensor,
    scale: Tensor | None,
    gradients: Gradients,
) -> StreamGradient:
    """Gradient of a block's input from that of its first projection.

    Args:
        project: the name of the projection's weight, the gradient ``(M, F)`` of its output, and the weight.
        before: the stream before the block.
        norm: of the projection's input.
        skip: ``(M, D)`` gradient that reaches the stream past the block.
        scale: drop path's factors ``(M,)`` of the product that was added to the stream.
        gradients: receives those of the weight and of the norm.
    """
    name, rows, weight = project
    with exact(rows):
        gradients[name], dx, sums, branch = _raw("layer_begin_backward")(
            *(rows, weight, before.total, before.normed, before.mean, before.rstd),
            *(norm.gamma, skip, scale, _by_onednn()),
        )
    gradients.norm("norm1", sums[0], sums[1])
    return StreamGradient(dx, branch, sums[2])
