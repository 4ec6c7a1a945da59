"""Guided reconstruction loss, computed from the raw clip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import check_name
from ..reference.weighted_reconstruction_loss import (
    known_motion,
    loss_slope_and_share,
    to_patches,
)
from ..reference.weighted_reconstruction_loss import reconstruction_target as _reconstruction_target
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import (
    check_clips,
    check_device,
    check_divides,
    check_shape,
    check_tensor,
    check_valid,
    clip_sizes,
)
from .common.registration import fake_of, gradients_of
from .common.triton_support import TRITON

TARGETS = ("motion", "joints")
NORMALIZATIONS = ("sequence", "patch", "none")

# The kernels keep a tile in registers: all frames of a joint, or all values of a patch.
_MOST_FRAMES = 4096
_MOST_VALUES = 4096

declare("weighted_reconstruction_loss", TRITON, Backend("reference", can_always))


# The number is part of the name: torch.compile keeps compiled backward passes on disk by the names of the ops in them.
@torch.library.custom_op("fastamr::weighted_reconstruction_loss_v3", mutates_args=())
def _op(
    prediction: Tensor,
    clips: Tensor,
    guidance: Tensor | None,
    token_mask: Tensor | None,
    valid: Tensor | None,
    target_frames: int,
    target_joints: int,
    target: str,
    stride: int,
    normalize: str,
    eps: float,
    return_sequences: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backend == "triton":
        from ..kernels.weighted_reconstruction_loss import weighted_reconstruction_loss as run
    else:
        run = loss_slope_and_share
    return run(
        prediction,
        clips,
        target_frames=target_frames,
        target_joints=target_joints,
        guidance=guidance,
        token_mask=token_mask,
        valid=valid,
        target=target,
        stride=stride,
        normalize=normalize,
        eps=eps,
        return_sequences=return_sequences,
    )


@fake_of(_op)
def _(prediction: Tensor, return_sequences: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(torch.float32, prediction.dtype)
    loss, share = (prediction.new_empty((), dtype=dtype) for _ in range(2))
    parts = prediction.new_empty(prediction.shape[0] if return_sequences else 0, dtype=dtype)
    return loss, torch.empty_like(prediction), share, parts


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    _, clips, guidance, token_mask, valid, *ctx.options = inputs
    # The slope's gradient is asked for in a double backward only; without this it would always arrive as zeros.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(clips, guidance, token_mask, valid, *output[1:3])


def _backward(
    ctx: Any, grad: Tensor | None, grad_slope: Tensor | None, *_: Tensor | None
) -> dict[str, Tensor | None]:
    clips, guidance, token_mask, valid, slope, share = ctx.saved_tensors
    total = None
    if grad is not None:
        total = _times(slope, grad * share)
    if grad_slope is not None:
        # The slope is affine in the prediction: the linear part is its difference from the slope at zero.
        rest = (clips, guidance, token_mask, valid, *ctx.options)
        linear = _op(grad_slope, *rest)[1] - _op(torch.zeros_like(grad_slope), *rest)[1]
        total = linear if total is None else total + linear
    return {"prediction": total}


def _times(slope: Tensor, factor: Tensor) -> Tensor:
    """The slope times a float32 scalar, in the slope's dtype, rounded once.

    A scaler's 65,536 is no float16, and neither is one over millions of values: the scalar is given a dimension, so
    that the product is float32.
    """
    if torch.is_grad_enabled():
        return (slope * factor[None]).to(slope.dtype)
    return torch.mul(slope, factor[None], out=torch.empty_like(slope))


_op.register_autograd(gradients_of(_op, _backward), setup_context=_setup)


def check_reconstruction(target: str, normalize: str, stride: int, eps: float) -> None:
    """Raise unless the target's options make sense; used by the op and, early, by the models."""
    check_name("target", target, TARGETS)
    check_name("normalize", normalize, NORMALIZATIONS)
    if stride < 1:
        raise ValueError(f"stride={stride} must be at least 1 frame")
    if eps <= 0:
        raise ValueError(f"eps={eps} must be positive")


def _check_shapes(
    prediction: Tensor,
    clips: Tensor,
    guidance: Tensor | None,
    token_mask: Tensor | None,
    target_frames: int,
    target_joints: int,
) -> None:
    sequences, frames, joints, channels = clips.shape
    check_divides("target_frames", target_frames, "frames", frames)
    check_divides("target_joints", target_joints, "joints", joints)
    queries = frames // target_frames * (joints // target_joints)
    check_tensor("prediction", prediction, 3, "(S, Q, target_frames*target_joints*C)")
    shape = (sequences, queries, target_frames * target_joints * channels)
    check_shape("prediction", prediction, shape, "(S, Q, target_frames*target_joints*C)")
    check_device("prediction", prediction, clips.device, "clips")
    if guidance is not None:
        check_tensor("guidance", guidance, 3, "(S, T, V)")
        check_shape("guidance", guidance, (sequences, frames, joints), "(S, T, V) of clips")
        check_device("guidance", guidance, clips.device, "clips")
    if token_mask is not None:
        check_tensor("token_mask", token_mask, 2, "(S, Q)", (torch.bool,))
        check_shape("token_mask", token_mask, (sequences, queries), "(S, Q)")
        check_device("token_mask", token_mask, clips.device, "clips")


def _problem(prediction: Tensor, clips: Tensor, guidance: Tensor | None, normalize: str) -> Problem:
    """The call as the back ends see it: the widest dtype, and what the kernels' tiles cannot hold."""
    dtype = torch.promote_types(prediction.dtype, clips.dtype)
    if guidance is not None:
        dtype = torch.promote_types(dtype, guidance.dtype)
    refusals: tuple[str, ...] = ()
    if normalize == "sequence" and clips.shape[1] > _MOST_FRAMES:
        refusals = (f"statistics over more than {_MOST_FRAMES} frames",)
    elif normalize != "sequence" and prediction.shape[-1] > _MOST_VALUES:
        refusals = (f"patches of more than {_MOST_VALUES} values",)
    return Problem(clips.device.type, dtype, (), clip_sizes(clips), refusals)


def reconstruction_target(
    clips: Tensor,
    *,
    target_frames: int,
    target_joints: int = 1,
    valid: Tensor | None = None,
    target: str = "motion",
    stride: int = 1,
    normalize: str = "sequence",
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor | None]:
    """The patches that :func:`weighted_reconstruction_loss` compares with; they carry no gradient.

    Args:
        clips, target_frames, target_joints, valid, target, stride, normalize, eps: as there.

    Returns:
        Patches ``(S, Q, P)``, float32 (float64 for float64 clips), and which of their values are known ``(S, Q, P)``
        bool, None where all are. A value that is not known may be anything.

    Raises:
        ValueError: shapes that do not fit, patches that do not divide the grid, an unknown option.
        TypeError: a wrong dtype.
    """
    check_clips(clips)
    check_valid(valid, clips)
    check_reconstruction(target, normalize, stride, eps)
    check_divides("target_frames", target_frames, "frames", clips.shape[1])
    check_divides("target_joints", target_joints, "joints", clips.shape[2])
    return _reconstruction_target(
        clips.detach(),
        target_frames=target_frames,
        target_joints=target_joints,
        valid=valid,
        target=target,
        stride=stride,
        normalize=normalize,
        eps=eps,
    )


def counted_values(
    valid: Tensor,
    *,
    target_frames: int,
    target_joints: int = 1,
    token_mask: Tensor | None = None,
    target: str = "motion",
    stride: int = 1,
) -> Tensor:
    """How many joints and frames of each sequence :func:`weighted_reconstruction_loss` counts, ``(S,)`` int64.

    Args:
        valid, target_frames, target_joints, token_mask, target, stride: as there.
    """
    known = known_motion(valid, stride) if target == "motion" else valid
    counted = to_patches(known[..., None], target_frames, target_joints)
    return (counted if token_mask is None else counted & token_mask[..., None]).sum((1, 2))


def weighted_reconstruction_loss(
    prediction: Tensor,
    clips: Tensor,
    *,
    target_frames: int,
    target_joints: int = 1,
    guidance: Tensor | None = None,
    token_mask: Tensor | None = None,
    valid: Tensor | None = None,
    target: str = "motion",
    stride: int = 1,
    normalize: str = "sequence",
    eps: float = 1e-6,
    return_sequences: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Mean of ``guidance * (prediction - target)**2``, with the target made from the raw clip.

    The mean runs over all predicted values, not over the sum of the weights (AMR). ``token_mask`` restricts it to
    some patches (SkeletonMAE and MAMP: the masked ones). Values whose target is not valid weigh 0 and are not counted
    (choice). Statistics and loss are float32 (float64 for float64 input), also under autocast. The gradient flows to
    the prediction only.

    Args:
        prediction: ``(S, Q, P)`` with ``Q = T/target_frames * V/target_joints`` patches, time-major, of
            ``P = target_frames*target_joints*C`` values (frame, joint, channel).
        clips: ``(S, T, V, C)`` floating point, metres.
        target_frames: frames of a target patch, divides T.
        target_joints: neighbouring joints of a target patch, divides V.
        guidance: ``(S, T, V)`` weights; None weighs every value 1.
        token_mask: ``(S, Q)`` bool, the patches that count.
        valid: ``(S, T, V)`` bool; a motion is known where both its frames are.
        target: ``"motion"``, ``x[t+stride] - x[t]`` with 0 on the last frames, or ``"joints"`` (choice: motion).
        stride: frames between the two ends of a motion.
        normalize: ``"sequence"`` standardises each joint and channel over time, ``"patch"`` each patch (MAMP),
            ``"none"`` nothing (choice: sequence). Variances are unbiased.
        eps: added to the variance.
        return_sequences: return the loss of each sequence too.

    Returns:
        Scalar; 0 where no value counts. With ``return_sequences`` also the mean of each sequence over those of its
        values that count ``(S,)``, NaN where none does; no gradient flows through it.

    Raises:
        ValueError: shapes that do not fit, patches that do not divide the grid, an unknown option.
        TypeError: a wrong dtype.
    """
    check_clips(clips)
    check_valid(valid, clips)
    check_reconstruction(target, normalize, stride, eps)
    _check_shapes(prediction, clips, guidance, token_mask, target_frames, target_joints)
    if guidance is not None:
        guidance = guidance.detach()
    name = choose("weighted_reconstruction_loss", _problem(prediction, clips, guidance, normalize))
    loss, _, _, parts = _op(
        prediction,
        clips.detach(),
        guidance,
        token_mask,
        valid,
        target_frames,
        target_joints,
        target,
        stride,
        normalize,
        eps,
        return_sequences,
        name,
    )
    if not return_sequences:
        return loss
    if valid is not None:
        counts = counted_values(
            valid, target_frames=target_frames, target_joints=target_joints, token_mask=token_mask, target=target,
            stride=stride,
        )  # fmt: skip
    elif token_mask is not None:
        counts = token_mask.sum(1)
    else:
        return loss, parts.detach() * clips.shape[0]
    return loss, parts.detach() * (counts.sum().to(parts.dtype) / counts)
