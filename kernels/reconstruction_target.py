"""What the kernels of the reconstruction loss share: target, weight and error of a tile, and the count of values.

The formulas are in :mod:`fastamr.reference.weighted_reconstruction_loss`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch
from .strides import strides

# One row of partial counts that a program of the loss adds up by itself, instead of a launch that would.
MOST_COUNTS = tl.constexpr(1024)
_COUNT = Config({"BLOCK": 1024})


@triton.jit
def known_numbers(valid_at, valid_step, inside, moving, MOTION: tl.constexpr):
    """Where a target is known: at a valid frame, and for a motion at a valid later frame if there is one.

    valid_at: pointers of the tile into valid, or None; valid_step: distance to the motion's later frame
    """
    known = inside
    if valid_at is not None:
        known = known & tl.load(valid_at, mask=inside, other=False)
        if MOTION:
            known = known & tl.load(valid_at + valid_step, mask=moving, other=True)
    return known


@triton.jit
def load_target(clips_at, clips_step, known, moving, MOTION: tl.constexpr):
    """Joints or motions of a tile in float32; 0 where unknown, which keeps NaN out of the sums.

    clips_at: pointers of the tile into clips; clips_step: distance to the motion's later frame
    """
    values = tl.load(clips_at, mask=known, other=0.0).to(tl.float32)
    if MOTION:
        later = tl.load(clips_at + clips_step, mask=known & moving, other=0.0).to(tl.float32)
        values = tl.where(moving, later - values, 0.0)
    return values


@triton.jit
def standardised(values, known, number, eps, AXIS: tl.constexpr):
    """``values`` (0 where unknown) minus their mean, over the root of their unbiased variance plus eps, along AXIS."""
    mean = tl.expand_dims(tl.div_rn(tl.sum(values, AXIS), tl.maximum(number, 1.0)), AXIS)
    centred = tl.where(known, values - mean, 0.0)
    # A mean of coordinates metres from the origin is off by more than small motions can bear: centre what is left.
    rest = tl.expand_dims(tl.div_rn(tl.sum(centred, AXIS), tl.maximum(number, 1.0)), AXIS)
    centred = tl.where(known, centred - rest, 0.0)
    variance = tl.div_rn(tl.sum(centred * centred, AXIS), tl.maximum(number - 1.0, 1.0))
    return centred * tl.expand_dims(tl.div_rn(1.0, tl.sqrt_rn(variance + eps)), AXIS)


@triton.jit
def counted_numbers(counts, parts, everything):
    """How many values the mean runs over: all of them, or the sum of ``counts`` (parts,) int64; at least 1."""
    number = everything
    if counts is not None:
        part = tl.arange(0, MOST_COUNTS)
        total = tl.sum(tl.load(counts + part, mask=part < parts, other=0), 0)
        number = tl.maximum(total, 1).to(tl.float32)
    return number


@triton.jit
def share_of(number):
    """One over the power of two at or below ``number`` (at least 1): by its exponent's bits, so it is exact."""
    power = (number.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    return tl.div_rn(1.0, power)


@triton.jit
def loss_and_slope(
    target, prediction_at, slope_at, guidance_at, mask_at, known, inside, number, POSITIVE: tl.constexpr
):
    """Weighted squared error of a tile, summed and divided by ``number``; its slope is written to ``slope_at``.

    The slope times ``share_of(number)`` is the gradient.

    target: float32 tile, the other arguments ending in _at: its pointers, guidance_at and mask_at None where absent.
    Only counted values are read. With POSITIVE a weight that is not above 0, NaN included, does not count.
    """
    counted = known
    if mask_at is not None:
        counted = counted & tl.load(mask_at, mask=known, other=False)
    error = tl.load(prediction_at, mask=counted, other=0.0).to(tl.float32) - target
    weighted = error
    if guidance_at is not None:
        weight = tl.load(guidance_at, mask=counted, other=0.0).to(tl.float32)
        if POSITIVE:
            counted = counted & (weight > 0.0)
        weighted = error * weight
    weighted = tl.where(counted, weighted, 0.0)
    slope = tl.div_rn(2.0 * weighted, number * share_of(number))
    tl.store(slope_at, slope.to(slope_at.dtype.element_ty), mask=inside)
    loss = tl.where(counted, weighted * error, 0.0)
    return tl.div_rn(tl.sum(tl.sum(loss, 1), 0), number)


@triton.jit
def _count(
    valid,  # (S, T, V) bool, strides valid_*; or None
    token_mask,  # (S, Q) bool, strides mask_*; or None
    counts,  # (programs,) int64
    units, blocks, frames, joints, groups, stride, valid_step,
    valid_s, valid_t, valid_v, mask_s, mask_q,
    MOTION: tl.constexpr, C: tl.constexpr, TARGET_FRAMES: tl.constexpr, TARGET_JOINTS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Values that count. A unit is BLOCK (frame, joint) cells of a sequence; program i takes every programs-th."""
    total = tl.zeros([BLOCK], tl.int32)
    programs = tl.num_programs(0)
    for turn in range(tl.cdiv(units, programs)):
        unit = tl.program_id(0).to(tl.int64) + turn * programs.to(tl.int64)
        sequence = unit // blocks
        cell = (unit % blocks).to(tl.int32) * BLOCK + tl.arange(0, BLOCK)
        frame = cell // joints
        joint = cell % joints
        inside = (cell < frames * joints) & (unit < units)
        valid_at = None
        if valid is not None:
            valid_at = (
                valid + sequence * valid_s + frame.to(tl.int64) * valid_t + joint.to(tl.int64) * valid_v
            )
        counted = known_numbers(valid_at, valid_step, inside, inside & (frame < frames - stride), MOTION)
        if token_mask is not None:
            query = frame // TARGET_FRAMES * groups + joint // TARGET_JOINTS
            mask_at = token_mask + sequence * mask_s + query.to(tl.int64) * mask_q
            counted = counted & tl.load(mask_at, mask=inside, other=False)
        total += counted.to(tl.int32)
    tl.store(counts + tl.program_id(0), tl.sum(total.to(tl.int64), 0) * C)


def count_numbers(
    clips: Tensor,
    token_mask: Tensor | None,
    valid: Tensor | None,
    *,
    target_frames: int,
    target_joints: int,
    motion: bool,
    stride: int,
) -> Tensor | None:
    """Partial counts of the values that the mean runs over, ``(parts,)`` int64; None if all of them count.

    A small launch of its own: each program of the loss divides its part by their sum.

    Args:
        clips: ``(S, T, V, C)``; only the shape matters.
        token_mask: ``(S, Q)`` bool or None.
        valid: ``(S, T, V)`` bool or None.
        target_frames: frames of a patch.
        target_joints: joints of a patch.
        motion: whether a value needs a later valid frame too.
        stride: frames to that later frame, at most T.
    """
    if token_mask is None and valid is None:
        return None
    sequences, frames, joints, channels = clips.shape
    blocks = triton.cdiv(frames * joints, _COUNT.blocks["BLOCK"])
    units = sequences * blocks
    counts = clips.new_empty((min(units, MOST_COUNTS.value),), dtype=torch.int64)
    launch(
        _count,
        (len(counts),),
        clips.device,
        _COUNT,
        valid=valid,
        token_mask=token_mask,
        counts=counts,
        units=units,
        blocks=blocks,
        frames=frames,
        joints=joints,
        groups=joints // target_joints,
        stride=stride,
        valid_step=stride * valid.stride(1) if valid is not None else 0,
        **strides("valid", valid, "stv"),
        **strides("mask", token_mask, "sq"),
        MOTION=motion,
        C=channels,
        TARGET_FRAMES=target_frames,
        TARGET_JOINTS=target_joints,
    )
    return counts
