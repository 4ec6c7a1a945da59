"""Guided reconstruction loss and its gradient in one launch; target and weights never exist in memory.

Source: the losses of AMR, SkeletonMAE and MAMP; the formulas are in
:mod:`fastamr.reference.weighted_reconstruction_loss`.

Statistics over a sequence belong to a joint and channel, so there a program owns all frames of some columns (joint,
channel); otherwise it owns some patches. Either way its values are loaded once and stay in registers: target, its
statistics, squared error and gradient. The loss is the sum of one float32 per program. A small launch counts the
values first if not all of them count.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch, pick
from .reconstruction_target import (
    count_numbers,
    counted_numbers,
    known_numbers,
    load_target,
    loss_and_slope,
    standardised,
)
from .strides import strides


@triton.jit
def _loss_of_columns(
    prediction,  # (S, Q, P) floating, strides prediction_*
    slope,  # (S, Q, P) of the same dtype, strides slope_*
    losses,  # (S * blocks,) float32
    clips,  # (S, T, V, C) floating, strides clips_*
    guidance,  # (S, T, V) floating, strides guidance_*; or None
    token_mask,  # (S, Q) bool, strides mask_*; or None
    valid,  # (S, T, V) bool, strides valid_*; or None
    counts,  # (parts,) int64; or None
    blocks,
    frames,
    joints,
    groups,
    stride,
    clips_step,
    valid_step,
    parts,
    everything,
    eps,
    prediction_s,
    prediction_q,
    prediction_p,
    slope_s,
    slope_q,
    slope_p,
    clips_s,
    clips_t,
    clips_v,
    clips_c,
    guidance_s,
    guidance_t,
    guidance_v,
    mask_s,
    mask_q,
    valid_s,
    valid_t,
    valid_v,
    MOTION: tl.constexpr,
    C: tl.constexpr,
    TARGET_FRAMES: tl.constexpr,
    TARGET_JOINTS: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """One program: a tile of all frames (padded to FRAMES) by the columns of as many whole joints as fit."""
    COLUMNS: tl.constexpr = BLOCK_COLUMNS // C * C if BLOCK_COLUMNS >= C else BLOCK_COLUMNS
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    frame = tl.arange(0, FRAMES)[:, None]
    lane = tl.arange(0, BLOCK_COLUMNS)[None, :]
    column = tl.program_id(0) % blocks * COLUMNS + lane
    joint = column // C
    channel = (column % C).to(tl.int64)
    inside = (frame < frames) & (lane < COLUMNS) & (joint < joints)
    moving = inside & (frame < frames - stride)

    valid_at = None
    if valid is not None:
        valid_at = valid + sequence * valid_s + frame.to(tl.int64) * valid_t + joint.to(tl.int64) * valid_v
    known = known_numbers(valid_at, valid_step, inside, moving, MOTION)
    clips_at = clips + sequence * clips_s + frame.to(tl.int64) * clips_t
    clips_at = clips_at + (joint.to(tl.int64) * clips_v + channel * clips_c)
    values = load_target(clips_at, clips_step, known, moving, MOTION)
    target = standardised(values, known, tl.sum(known.to(tl.float32), 0), eps, 0)

    # The position of a value in its patch is a sum of a term of the frame and a term of the column.
    row = (frame // TARGET_FRAMES).to(tl.int64) * groups
    group = (joint // TARGET_JOINTS).to(tl.int64)
    early = (frame % TARGET_FRAMES * (TARGET_JOINTS * C)).to(tl.int64)
    late = joint % TARGET_JOINTS * C + channel
    prediction_at = prediction + sequence * prediction_s + (row * prediction_q + early * prediction_p)
    prediction_at = prediction_at + (group * prediction_q + late * prediction_p)
    slope_at = slope + sequence * slope_s + (row * slope_q + early * slope_p)
    slope_at = slope_at + (group * slope_q + late * slope_p)
    guidance_at = None
    if guidance is not None:
        guidance_at = guidance + sequence * guidance_s + frame.to(tl.int64) * guidance_t
        guidance_at = guidance_at + joint.to(tl.int64) * guidance_v
    mask_at = None
    if token_mask is not None:
        mask_at = token_mask + sequence * mask_s + row * mask_q + group * mask_q
    number = counted_numbers(counts, parts, everything)
    loss = loss_and_slope(
        target, prediction_at, slope_at, guidance_at, mask_at, known, inside, number, valid is not None
    )
    tl.store(losses + tl.program_id(0), loss)


@triton.jit
def _loss_of_patches(
    prediction,  # (S, Q, P) floating, strides prediction_*
    slope,  # (S, Q, P) of the same dtype, strides slope_*
    losses,  # (S * blocks,) float32
    clips,  # (S, T, V, C) floating, strides clips_*
    guidance,  # (S, T, V) floating, strides guidance_*; or None
    token_mask,  # (S, Q) bool, strides mask_*; or None
    valid,  # (S, T, V) bool, strides valid_*; or None
    counts,  # (parts,) int64; or None
    blocks,
    frames,
    joints,
    groups,
    stride,
    clips_step,
    valid_step,
    parts,
    everything,
    eps,
    prediction_s,
    prediction_q,
    prediction_p,
    slope_s,
    slope_q,
    slope_p,
    clips_s,
    clips_t,
    clips_v,
    clips_c,
    guidance_s,
    guidance_t,
    guidance_v,
    mask_s,
    mask_q,
    valid_s,
    valid_t,
    valid_v,
    MOTION: tl.constexpr,
    C: tl.constexpr,
    TARGET_FRAMES: tl.constexpr,
    TARGET_JOINTS: tl.constexpr,
    STANDARDISE: tl.constexpr,
    NUMBERS: tl.constexpr,
    BLOCK_PATCHES: tl.constexpr,
):
    """One program: a tile of some patches of a sequence by their values (padded to NUMBERS)."""
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    patch = tl.program_id(0) % blocks * BLOCK_PATCHES + tl.arange(0, BLOCK_PATCHES)[:, None]
    place = tl.arange(0, NUMBERS)[None, :]
    first_frame = patch // groups * TARGET_FRAMES
    first_joint = patch % groups * TARGET_JOINTS
    later_frame = place // (TARGET_JOINTS * C)
    later_joint = place // C % TARGET_JOINTS
    exists = patch < frames // TARGET_FRAMES * groups
    inside = exists & (place < TARGET_FRAMES * TARGET_JOINTS * C)
    moving = inside & (first_frame + later_frame < frames - stride)
    # Addresses are sums of a term of the patch and a term of the position in it.
    t, v = first_frame.to(tl.int64), first_joint.to(tl.int64)
    dt, dv = later_frame.to(tl.int64), later_joint.to(tl.int64)
    dc = (place % C).to(tl.int64)

    valid_at = None
    if valid is not None:
        valid_at = valid + sequence * valid_s + (t * valid_t + v * valid_v) + (dt * valid_t + dv * valid_v)
    known = known_numbers(valid_at, valid_step, inside, moving, MOTION)
    clips_at = clips + sequence * clips_s + (t * clips_t + v * clips_v)
    clips_at = clips_at + (dt * clips_t + dv * clips_v + dc * clips_c)
    target = load_target(clips_at, clips_step, known, moving, MOTION)
    if STANDARDISE:
        target = standardised(target, known, tl.sum(known.to(tl.float32), 1), eps, 1)

    q, p = patch.to(tl.int64), place.to(tl.int64)
    prediction_at = prediction + sequence * prediction_s + q * prediction_q + p * prediction_p
    slope_at = slope + sequence * slope_s + q * slope_q + p * slope_p
    guidance_at = None
    if guidance is not None:
        guidance_at = guidance + sequence * guidance_s + (t * guidance_t + v * guidance_v)
        guidance_at = guidance_at + (dt * guidance_t + dv * guidance_v)
    mask_at = None
    if token_mask is not None:
        mask_at = tl.broadcast_to(token_mask + sequence * mask_s + q * mask_q, (BLOCK_PATCHES, NUMBERS))
    number = counted_numbers(counts, parts, everything)
    loss = loss_and_slope(
        target, prediction_at, slope_at, guidance_at, mask_at, known, inside, number, valid is not None
    )
    tl.store(losses + tl.program_id(0), loss)


def _column_configs(frames: int, columns: int) -> tuple[Config, ...]:
    """Tiles of 16 values a thread, 8 where 512 threads share the registers, then others."""
    size = triton.next_power_of_2(frames)
    warps = 4 if size <= 256 else 8 if size <= 1024 else 16
    widest = min(triton.next_power_of_2(columns), 64)
    widths = [
        min(max(each * 32 * warps // size, 1), widest) for each in ((8, 4) if warps == 16 else (16, 8, 32))
    ]
    return tuple(
        Config({"FRAMES": size, "BLOCK_COLUMNS": width}, num_warps=warps) for width in dict.fromkeys(widths)
    )


def _patch_configs(numbers: int, patches: int) -> tuple[Config, ...]:
    """Tiles of 16 values a thread, then others; the longer a patch, the fewer patches."""
    size = triton.next_power_of_2(numbers)
    warps = 4 if size <= 2048 else 8
    most = triton.next_power_of_2(patches)
    heights = [min(max(each * 32 * warps // size, 1), most) for each in (16, 8, 4)]
    return tuple(
        Config({"NUMBERS": size, "BLOCK_PATCHES": height}, num_warps=warps)
        for height in dict.fromkeys(heights)
    )


def weighted_reconstruction_loss(
    prediction: Tensor,
    clips: Tensor,
    *,
    guidance: Tensor | None,
    token_mask: Tensor | None,
    valid: Tensor | None,
    target_frames: int,
    target_joints: int,
    target: str,
    stride: int,
    normalize: str,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The loss, a float32 scalar, and its gradient with respect to the prediction, of the prediction's dtype.

    Args:
        prediction: ``(S, Q, P)`` float16, bfloat16 or float32, any strides.
        clips: ``(S, T, V, C)`` of any of these dtypes, any strides.
        guidance: ``(S, T, V)`` of any of these dtypes, any strides; None weighs every value 1.
        token_mask: ``(S, Q)`` bool, any strides, the patches that count; None counts all.
        valid: ``(S, T, V)`` bool, any strides; other coordinates may hold anything.
        target_frames: frames of a patch.
        target_joints: joints of a patch.
        target: ``"motion"`` or ``"joints"``.
        stride: frames between the two ends of a motion.
        normalize: ``"sequence"`` (at most 4096 frames), ``"patch"`` or ``"none"`` (at most 4096 values a patch).
        eps: added to the variance.
    """
    sequences, frames, joints, channels = clips.shape
    queries, numbers = prediction.shape[1:]
    stride = min(stride, frames)
    slope = torch.empty_like(prediction)
    patch = {"target_frames": target_frames, "target_joints": target_joints}
    counts = count_numbers(clips, token_mask, valid, **patch, motion=target == "motion", stride=stride)
    if normalize == "sequence":
        kernel, constants = _loss_of_columns, {}
        configs = _column_configs(frames, joints * channels)
    else:
        kernel, constants = _loss_of_patches, {"STANDARDISE": normalize == "patch"}
        configs = _patch_configs(numbers, queries)

    def run(config: Config) -> Tensor:
        width = config.blocks.get("BLOCK_COLUMNS")
        if width is None:
            blocks = triton.cdiv(queries, config.blocks["BLOCK_PATCHES"])
        else:
            blocks = triton.cdiv(joints * channels, width // channels * channels or width)
        losses = clips.new_empty((sequences * blocks,), dtype=torch.float32)
        launch(
            kernel,
            (sequences * blocks,),
            clips.device,
            config,
            prediction=prediction,
            slope=slope,
            losses=losses,
            clips=clips,
            guidance=guidance,
            token_mask=token_mask,
            valid=valid,
            counts=counts,
            blocks=blocks,
            frames=frames,
            joints=joints,
            groups=joints // target_joints,
            stride=stride,
            clips_step=stride * clips.stride(1),
            valid_step=stride * valid.stride(1) if valid is not None else 0,
            parts=len(counts) if counts is not None else 0,
            everything=float(max(prediction.numel(), 1)),
            eps=eps,
            **strides("prediction", prediction, "sqp"),
            **strides("slope", slope, "sqp"),
            **strides("clips", clips, "stvc"),
            **strides("guidance", guidance, "stv"),
            **strides("mask", token_mask, "sq"),
            **strides("valid", valid, "stv"),
            MOTION=target == "motion",
            C=channels,
            TARGET_FRAMES=target_frames,
            TARGET_JOINTS=target_joints,
            **constants,
        )
        return losses.sum()

    options = (guidance is None, token_mask is None, valid is None, prediction.dtype, clips.dtype)
    shape_class = (normalize, target, frames, joints, channels, target_frames, target_joints, *options)
    return run(pick("weighted_reconstruction_loss", shape_class, configs, run, clips.device)), slope
