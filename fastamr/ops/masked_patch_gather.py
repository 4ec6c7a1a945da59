"""Embed only the visible patches, straight from the raw clip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..reference.masked_patch_gather import masked_patch_gather_backward
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import (
    check_clips,
    check_device,
    check_divides,
    check_indices,
    check_keep,
    check_shape,
    check_tensor,
    clip_sizes,
)
from .common.precision import exact
from .common.registration import fake_of, gradients_of
from .common.triton_support import TRITON

declare("masked_patch_gather", TRITON, Backend("reference", can_always))


@torch.library.custom_op("fastamr::masked_patch_gather", mutates_args=())
def _op(
    clips: Tensor,
    keep: Tensor,
    weight: Tensor,
    bias: Tensor,
    position: Tensor,
    patch_frames: int,
    out_dtype: torch.dtype,
    backend: str,
) -> Tensor:
    check_indices("keep", keep, position.shape[0], "token")
    if backend == "triton":
        from ..kernels.masked_patch_gather import masked_patch_gather as run
    else:
        run = reference.masked_patch_gather
    with exact(clips):
        return run(clips, keep, weight, bias, position, patch_frames=patch_frames, out_dtype=out_dtype)


@fake_of(_op)
def _(clips: Tensor, keep: Tensor, weight: Tensor, out_dtype: torch.dtype) -> Tensor:
    return clips.new_empty((*keep.shape, weight.shape[0]), dtype=out_dtype)


@torch.library.custom_op("fastamr::masked_patch_gather_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    clips: Tensor,
    keep: Tensor,
    tokens: int,
    patch_frames: int,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    check_indices("keep", keep, tokens, "token")
    if backend == "triton":
        from ..kernels.masked_patch_gather import masked_patch_gather_backward as run
    else:
        run = masked_patch_gather_backward
    with exact(clips):
        return run(grad, clips, keep, tokens, patch_frames=patch_frames, dtype=dtype)


@fake_of(_backward_op)
def _(
    grad: Tensor, clips: Tensor, tokens: int, patch_frames: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    width = grad.shape[-1]
    weight = grad.new_empty((width, patch_frames * clips.shape[3]), dtype=dtype)
    return weight, weight.new_empty(width), weight.new_empty((tokens, width))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    clips, keep, weight, _, position, ctx.patch_frames, _, ctx.backend = inputs
    ctx.tokens, ctx.dtype = position.shape[0], weight.dtype
    ctx.save_for_backward(clips, keep)


def _backward(ctx: Any, grad: Tensor) -> dict[str, Tensor | None]:
    clips, keep = ctx.saved_tensors
    weight, bias, position = _backward_op(
        grad, clips, keep, ctx.tokens, ctx.patch_frames, ctx.dtype, ctx.backend
    )
    return {"weight": weight, "bias": bias, "position": position}


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad, clips, keep, _, ctx.patch_frames, _, ctx.backend = inputs
    ctx.out_dtype = grad.dtype
    ctx.save_for_backward(clips, keep)


def _double_backward(ctx: Any, weight: Tensor, bias: Tensor, position: Tensor) -> dict[str, Tensor | None]:
    # The backward is linear in grad, and its transpose is the forward.
    clips, keep = ctx.saved_tensors
    grad = _op(clips, keep, weight, bias, position, ctx.patch_frames, ctx.out_dtype, ctx.backend)
    return {"grad": grad}


_op.register_autograd(gradients_of(_op, _backward), setup_context=_setup)
_backward_op.register_autograd(gradients_of(_backward_op, _double_backward), setup_context=_setup_backward)


def _output_dtype(clips: Tensor, weight: Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    """The tokens' dtype: as asked, else the autocast dtype, else the compute dtype (float32 or float64)."""
    if out_dtype is not None:
        return out_dtype
    if torch.is_autocast_enabled(clips.device.type):
        return torch.get_autocast_dtype(clips.device.type)
    return torch.promote_types(torch.float32, torch.promote_types(clips.dtype, weight.dtype))


def masked_patch_gather(
    clips: Tensor,
    keep: Tensor,
    weight: Tensor,
    bias: Tensor,
    position: Tensor,
    *,
    patch_frames: int,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Embed the visible patches: ``patch @ weight.T + bias + position[token]``.

    The product is computed in float32 (float64 for float64 input), also under autocast: bfloat16 coordinates would be
    off by 16 mm at 3 m. Only the returned tokens take the autocast dtype. Gradients flow to weight, bias and position;
    the clips receive none.

    Args:
        clips: ``(S, T, V, C)`` floating point.
        keep: ``(S, K)`` int32 or int64 token ids (``time_patch*V + joint``).
        weight: ``(D, l*C)``, as of an ``nn.Linear``.
        bias: ``(D,)``.
        position: ``(T/l*V, D)``.
        patch_frames: l, divides T.
        out_dtype: dtype of the tokens; None takes the autocast dtype if autocast is on, else the compute dtype.

    Returns:
        ``(S, K, D)``.

    Raises:
        ValueError: shapes that do not fit or ``patch_frames`` that does not divide T.
        TypeError: a wrong dtype, or parameters of different dtypes.
    """
    check_clips(clips)
    check_keep(keep, clips.shape[0])
    check_divides("patch_frames", patch_frames, "frames", clips.shape[1])
    _, frames, joints, channels = clips.shape
    check_tensor("weight", weight, 2, "(D, l*C)")
    width = weight.shape[0]
    check_shape("weight", weight, (width, patch_frames * channels), "(D, l*C)")
    for name, value, shape in (
        ("bias", bias, (width,)),
        ("position", position, (frames // patch_frames * joints, width)),
    ):
        check_shape(name, value, shape, "(D,)" if name == "bias" else "(T/l*V, D)")
        if value.dtype != weight.dtype:
            raise TypeError(f"{name} is {value.dtype}, weight {weight.dtype}: expected one dtype")
    for name, value in (("keep", keep), ("weight", weight), ("bias", bias), ("position", position)):
        check_device(name, value, clips.device, "clips")
    dtype = _output_dtype(clips, weight, out_dtype)
    # A float64 anywhere asks for a float64 product, which only the reference computes.
    widest = torch.promote_types(torch.promote_types(clips.dtype, weight.dtype), dtype)
    backend = choose(
        "masked_patch_gather",
        Problem(clips.device.type, widest, (), {**clip_sizes(clips), "width": weight.shape[0]}),
    )
    return _op(clips.detach(), keep, weight, bias, position, patch_frames, dtype, backend)
