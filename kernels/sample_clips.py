"""Crop, resize and rotate ragged sequences into clips of one length in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .angles import in_quadrant, sine_cosine_near_zero
from .launch import Config, launch, pick
from .philox import STREAM_CROP, STREAM_ROTATE, philox_words
from .strides import strides

# Crops are computed in integers with 24 fractional bits, as in the reference.
_BITS = tl.constexpr(24)
_ONE = tl.constexpr(1 << 24)


@triton.jit
def _bounds(seed, who, length, low, high, min_frames, RANDOM: tl.constexpr):
    """First frame and number of frames of a sequence's crop, int64; see ``crop_bounds`` of the reference."""
    if RANDOM:
        a, b, _, _ = philox_words(seed, who, 0, STREAM_CROP)
        share = low + (((high - low) * (a >> (32 - _BITS)).to(tl.int64)) >> _BITS)
        count = tl.minimum(tl.maximum((length * share) >> _BITS, min_frames), length)
        first = ((length - count + 1) * (b >> (32 - _BITS)).to(tl.int64)) >> _BITS
    else:
        first = ((_ONE - low) * length) >> (_BITS + 1)
        count = length - 2 * first
    return first, count


@triton.jit
def _sine_cosine(word, max_angle):
    """Sine and cosine, float32, of the angle that a word draws, uniform in +-max_angle.

    The angle is reduced to +-pi/4 in float64.
    """
    angle = ((word >> (32 - _BITS)).to(tl.float32) / _ONE * 2 - 1) * max_angle
    turns = tl.floor(angle.to(tl.float64) * 0.6366197723675814 + 0.5)
    r = (angle.to(tl.float64) - turns * 1.5707963267948966).to(tl.float32)
    sine, cosine = sine_cosine_near_zero(r)
    return in_quadrant(sine, cosine, turns.to(tl.int64) & 3)


@triton.jit
def _resized(before, after, weight, mask):
    """``torch.lerp`` between what two pointers show, in float32; its two forms meet both ends exactly."""
    a = tl.load(before, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(after, mask=mask, other=0.0).to(tl.float32)
    return tl.where(weight < 0.5, a + weight * (b - a), b - (b - a) * (1 - weight))


@triton.jit
def _sample_clips(
    coords, offsets, ids, group, seed, out,
    joints, low, high, min_frames, max_angle,
    coords_f, coords_v, coords_c,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr, RANDOM: tl.constexpr, TURN: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    # coords (F, V, C) with strides coords_*; offsets (B+1,), ids (S,) and group (S,) or None int64; seed (2,) int64
    # or None; out (S, T, V, C) float32, all but coords contiguous. low and high are the crop's shares times 2**24.
    # One program per sequence, BLOCK_T frames and BLOCK_V joints.
    row = tl.program_id(0).to(tl.int64)
    time = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T).to(tl.int64)
    joint = tl.program_id(2) * BLOCK_V + tl.arange(0, BLOCK_V)
    mask = (time < FRAMES)[:, None] & (joint < joints)[None, :]
    body = tl.load(ids + row)
    begin = tl.load(offsets + body)
    length = tl.load(offsets + body + 1) - begin
    who = row if group is None else tl.load(group + row)
    first, count = _bounds(seed, who, length, low, high, min_frames, RANDOM)

    position = tl.maximum((2 * time + 1) * count - FRAMES, 0)
    left = tl.minimum(position // (2 * FRAMES), count - 1)
    right = tl.minimum(left + 1, count - 1)
    weight = tl.div_rn((position - left * (2 * FRAMES)).to(tl.float32), tl.full([1], 2 * FRAMES, tl.float32))
    weight = weight[:, None]
    across = joint.to(tl.int64)[None, :] * coords_v
    before = coords + ((begin + first + left) * coords_f)[:, None] + across
    after = coords + ((begin + first + right) * coords_f)[:, None] + across
    target = out + ((row * FRAMES + time) * joints)[:, None] * CHANNELS + joint[None, :] * CHANNELS

    if TURN:
        word_x, word_y, word_z, _ = philox_words(seed, who, 0, STREAM_ROTATE)
        sin, cos = _sine_cosine(word_x, max_angle)
        x = _resized(before, after, weight, mask)
        y = _resized(before + coords_c, after + coords_c, weight, mask)
        if CHANNELS == 2:
            tl.store(target, cos * x - sin * y, mask=mask)
            tl.store(target + 1, sin * x + cos * y, mask=mask)
        else:
            # About x, then y, then z.
            z = _resized(before + 2 * coords_c, after + 2 * coords_c, weight, mask)
            sideways = cos * y - sin * z
            up = sin * y + cos * z
            sin, cos = _sine_cosine(word_y, max_angle)
            tl.store(target + 2, cos * up - sin * x, mask=mask)
            x = cos * x + sin * up
            sin, cos = _sine_cosine(word_z, max_angle)
            tl.store(target, cos * x - sin * sideways, mask=mask)
            tl.store(target + 1, sin * x + cos * sideways, mask=mask)
    else:
        for channel in tl.static_range(CHANNELS):
            value = _resized(before + channel * coords_c, after + channel * coords_c, weight, mask)
            tl.store(target + channel, value, mask=mask)


def _configs(joints: int) -> tuple[Config, ...]:
    block = min(max(triton.next_power_of_2(joints), 4), 64)
    return tuple(
        Config({"BLOCK_T": elements // block, "BLOCK_V": block}, num_warps=warps)
        for elements, warps in ((1024, 4), (512, 4), (2048, 4))
    )


def sample_clips(
    coords: Tensor,
    offsets: Tensor,
    sequence_ids: Tensor,
    frames: int,
    seed: Tensor | None,
    *,
    crop: tuple[float, ...],
    min_frames: int,
    max_angle: float,
    group: Tensor | None,
) -> Tensor:
    """Launch the sampling; the arguments are those of ``fastamr.ops.sample_clips``, at most 16 channels.

    Returns:
        ``(S, T, V, C)`` float32.
    """
    _, joints, channels = coords.shape
    sequences = len(sequence_ids)
    out = coords.new_empty((sequences, frames, joints, channels), dtype=torch.float32)
    shares = [round(share * _ONE.value) for share in crop]
    arguments = {
        "coords": coords,
        "offsets": offsets.contiguous(),
        "ids": sequence_ids.contiguous(),
        "group": None if group is None else group.contiguous(),
        "seed": None if seed is None else seed.contiguous(),
        "out": out,
        "joints": joints,
        "low": shares[0],
        "high": shares[-1],
        "min_frames": min_frames,
        "max_angle": float(max_angle),
        "FRAMES": frames,
        "CHANNELS": channels,
        "RANDOM": seed is not None and len(crop) == 2,
        "TURN": seed is not None and max_angle != 0,
        **strides("coords", coords, "fvc"),
    }

    def run(config: Config) -> None:
        blocks = config.blocks
        grid = (sequences, triton.cdiv(frames, blocks["BLOCK_T"]), triton.cdiv(joints, blocks["BLOCK_V"]))
        launch(_sample_clips, grid, coords.device, config, **arguments)

    shape_class = (frames, joints, channels, coords.element_size(), arguments["TURN"])
    run(pick("sample_clips", shape_class, _configs(joints), run, coords.device))
    return out
