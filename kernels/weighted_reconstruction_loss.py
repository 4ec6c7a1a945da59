"""Guided reconstruction loss and its slope in one launch; target and weights never exist in memory.

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
    share_of,
    standardised,
)
from .strides import strides


@triton.jit
def _loss(
    prediction,  # (S, Q, P) floating, strides prediction_*
    slope,  # (S, Q, P) of the same dtype, strides slope_*
    losses,  # (S * blocks,) float32
    share,  # () float32
    clips,  # (S, T, V, C) floating, strides clips_*
    guidance,  # (S, T, V) floating, strides guidance_*; or None
    token_mask,  # (S, Q) bool, strides mask_*; or None
    valid,  # (S, T, V) bool, strides valid_*; or None
    counts,  # (parts,) int64; or None
    blocks, frames, joints, groups, stride, clips_step, valid_step, parts, everything, eps,
    prediction_s, prediction_q, prediction_p, slope_s, slope_q, slope_p,
    clips_s, clips_t, clips_v, clips_c, guidance_s, guidance_t, guidance_v, mask_s, mask_q,
    valid_s, valid_t, valid_v,
    MOTION: tl.constexpr, C: tl.constexpr, TARGET_FRAMES: tl.constexpr, TARGET_JOINTS: tl.constexpr,
    BY_COLUMNS: tl.constexpr, STANDARDISE: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One program: a tile of values, each at a sum of a term of its row and a term of its column.

    BY_COLUMNS: all frames (padded to HEIGHT) of the columns (joint, channel) of as many whole joints as fit into WIDTH.
    Otherwise HEIGHT patches of a sequence by their values (padded to WIDTH).
    """
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    row = tl.arange(0, HEIGHT)[:, None]
    lane = tl.arange(0, WIDTH)[None, :]
    if BY_COLUMNS:
        COLUMNS: tl.constexpr = WIDTH // C * C if WIDTH >= C else WIDTH
        column = block * COLUMNS + lane
        joint = column // C
        inside = (row < frames) & (lane < COLUMNS) & (joint < joints)
        moving = inside & (row < frames - stride)
        t, v = row.to(tl.int64), 0
        dt, dv, dc = tl.zeros([1, WIDTH], tl.int64), joint.to(tl.int64), (column % C).to(tl.int64)
        # Its patch, and its place there.
        q, dq = (row // TARGET_FRAMES).to(tl.int64) * groups, (joint // TARGET_JOINTS).to(tl.int64)
        p, dp = (row % TARGET_FRAMES * (TARGET_JOINTS * C)).to(tl.int64), joint % TARGET_JOINTS * C + dc
    else:
        patch = block * HEIGHT + row
        frame, later = patch // groups * TARGET_FRAMES, lane // (TARGET_JOINTS * C)
        inside = (patch < frames // TARGET_FRAMES * groups) & (lane < TARGET_FRAMES * TARGET_JOINTS * C)
        moving = inside & (frame + later < frames - stride)
        t, v = frame.to(tl.int64), (patch % groups * TARGET_JOINTS).to(tl.int64)
        dt, dv, dc = later.to(tl.int64), (lane // C % TARGET_JOINTS).to(tl.int64), (lane % C).to(tl.int64)
        q, dq, p, dp = patch.to(tl.int64), tl.zeros([1, WIDTH], tl.int64), 0, lane.to(tl.int64)

    valid_at = None
    if valid is not None:
        valid_at = valid + sequence * valid_s + (t * valid_t + v * valid_v) + (dt * valid_t + dv * valid_v)
    known = known_numbers(valid_at, valid_step, inside, moving, MOTION)
    clips_at = clips + sequence * clips_s + (t * clips_t + v * clips_v)
    clips_at = clips_at + (dt * clips_t + dv * clips_v + dc * clips_c)
    target = load_target(clips_at, clips_step, known, moving, MOTION)
    if STANDARDISE:
        AXIS: tl.constexpr = 0 if BY_COLUMNS else 1
        target = standardised(target, known, tl.sum(known.to(tl.float32), AXIS), eps, AXIS)

    prediction_at = prediction + sequence * prediction_s + (q * prediction_q + p * prediction_p)
    prediction_at = prediction_at + (dq * prediction_q + dp * prediction_p)
    slope_at = slope + sequence * slope_s + (q * slope_q + p * slope_p) + (dq * slope_q + dp * slope_p)
    guidance_at = None
    if guidance is not None:
        guidance_at = guidance + sequence * guidance_s + (t * guidance_t + v * guidance_v)
        guidance_at = guidance_at + (dt * guidance_t + dv * guidance_v)
    mask_at = None
    if token_mask is not None:
        mask_at = token_mask + sequence * mask_s + q * mask_q + dq * mask_q
    number = counted_numbers(counts, parts, everything)
    loss = loss_and_slope(
        target, prediction_at, slope_at, guidance_at, mask_at, known, inside, number, valid is not None
    )
    tl.store(losses + tl.program_id(0), loss)
    if tl.program_id(0) == 0:
        tl.store(share, share_of(number))


def _column_configs(frames: int, columns: int) -> tuple[Config, ...]:
    """Tiles of 16 values a thread, 8 where 512 threads share the registers, then others; 32 spill (Triton 3.6)."""
    size = triton.next_power_of_2(frames)
    warps = 4 if size <= 256 else 8 if size <= 1024 else 16
    widest = min(triton.next_power_of_2(columns), 64)
    widths = [min(max(each * 32 * warps // size, 1), widest) for each in ((8, 4) if warps == 16 else (16, 8))]
    return tuple(Config({"HEIGHT": size, "WIDTH": width}, num_warps=warps) for width in dict.fromkeys(widths))


def _patch_configs(numbers: int, patches: int) -> tuple[Config, ...]:
    """Tiles of 16 values a thread, then others; the longer a patch, the fewer patches."""
    size = triton.next_power_of_2(numbers)
    warps = 4 if size <= 2048 else 8
    most = triton.next_power_of_2(patches)
    heights = [min(max(each * 32 * warps // size, 1), most) for each in (16, 8, 4)]
    return tuple(
        Config({"HEIGHT": height, "WIDTH": size}, num_warps=warps) for height in dict.fromkeys(heights)
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
    return_sequences: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, a float32 scalar; the slope ``(S, Q, P)``, of the prediction's dtype; its share, a float32 scalar.

    Last the part of the loss that each sequence adds ``(S,)``, float32, where it is asked for, else ``(0,)``: one more
    sum over the programs' results. The gradient is the slope times the share, a power of two near one over the number
    of values.

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
        return_sequences: return the parts of the sequences.
    """
    sequences, frames, joints, channels = clips.shape
    queries, numbers = prediction.shape[1:]
    stride = min(stride, frames)
    slope = torch.empty_like(prediction)
    # 1 where no program runs.
    share = (
        clips.new_ones((), dtype=torch.float32)
        if slope.numel() == 0
        else clips.new_empty((), dtype=torch.float32)
    )
    patch = {"target_frames": target_frames, "target_joints": target_joints}
    counts = count_numbers(clips, token_mask, valid, **patch, motion=target == "motion", stride=stride)
    by_columns = normalize == "sequence"
    configs = _column_configs(frames, joints * channels) if by_columns else _patch_configs(numbers, queries)

    def run(config: Config) -> Tensor:
        height, width = config.blocks.values()
        if by_columns:
            blocks = triton.cdiv(joints * channels, width // channels * channels or width)
        else:
            blocks = triton.cdiv(queries, height)
        losses = clips.new_empty((sequences * blocks,), dtype=torch.float32)
        launch(
            _loss,
            (sequences * blocks,),
            clips.device,
            config,
            prediction=prediction,
            slope=slope,
            losses=losses,
            share=share,
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
            BY_COLUMNS=by_columns,
            STANDARDISE=normalize != "none",
        )
        return losses

    options = (guidance is None, token_mask is None, valid is None, prediction.dtype, clips.dtype)
    shape_class = (normalize, target, frames, joints, channels, target_frames, target_joints, *options)
    losses = run(pick("weighted_reconstruction_loss", shape_class, configs, run, clips.device))
    parts = losses.view(sequences, -1).sum(1) if return_sequences and sequences else losses.new_empty(0)
    return losses.sum(), slope, share, parts
