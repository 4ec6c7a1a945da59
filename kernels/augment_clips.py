"""Mirror, resize, project, disturb and cut clips in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..reference.augment_clips import LIMBS, limb_tokens
from .angles import normal_pair, sine_cosine_of_turn
from .launch import Config, launch, pick
from .philox import STREAM_AUGMENT, STREAM_LIMBS, STREAM_NOISE, philox_row, philox_words
from .strides import strides

# Choices are made with 24 random bits, as in the reference.
_BITS = tl.constexpr(24)
_ONE = tl.constexpr(1 << 24)
_LIMBS = tl.constexpr(LIMBS)


@triton.jit
def _dropped_limbs(seed, number, tokens, spare, dropping):
    """The limbs that a sequence loses, a bit each; tokens (LIMBS,) and spare (1,) int64: pointers to its own."""
    limb = tl.arange(0, _LIMBS)
    draw = (philox_row(seed, number, STREAM_LIMBS, _LIMBS) >> (32 - _BITS)).to(tl.int32)
    chosen = draw < dropping
    count = tl.where(chosen, tl.load(tokens + limb), 0)
    ours, theirs = draw[:, None], draw[None, :]
    before = (theirs < ours) | ((theirs == ours) & (limb[None, :] <= limb[:, None]))
    lost = tl.sum(tl.where(before, count[None, :], 0), axis=1)
    return tl.sum(tl.where(chosen & (lost <= tl.load(spare)), 1 << limb, 0), axis=0)


@triton.jit
def _augment_clips(
    clips, valid, partners, limbs, tokens, spare, flat, group, numbers, seed, out, seen,
    frames, joints, mirroring, scale_jitter, dropping, projecting, noise,
    clips_s, clips_t, clips_v, clips_c, valid_s, valid_t, valid_v,
    CHANNELS: tl.constexpr, SCALE: tl.constexpr, PROJECT: tl.constexpr, NOISE: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    # clips (S, T, V, C) with strides clips_*; valid (S, T, V) bool with strides valid_*, or None; partners (V,) int64,
    # or None to mirror nothing; limbs (V,), tokens (S, LIMBS) and spare (S,) int64, or None each to drop nothing; flat
    # (S,) bool or None; group (S,) and numbers (S,) int64, or None; seed (2,) int64; out (S, T, V, C) float32 and seen
    # (S, T, V) bool or None, contiguous. mirroring, dropping and projecting are probabilities times 2**24.
    # One program per sequence, BLOCK_T frames and BLOCK_V joints.
    row = tl.program_id(0).to(tl.int64)
    time = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    joint = tl.program_id(2) * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = joint < joints
    mask = (time < frames)[:, None] & inside[None, :]
    shared = row if group is None else tl.load(group + row)
    own = row if numbers is None else tl.load(numbers + row)
    first, second, third, fourth = philox_words(seed, shared, 0, STREAM_AUGMENT)

    source = joint.to(tl.int64)
    flips = (first >> (32 - _BITS)).to(tl.int32) < mirroring
    if partners is not None:
        source = tl.where(flips, tl.load(partners + joint, mask=inside, other=0), source)
    long_time = time.to(tl.int64)[:, None]
    place = clips + row * clips_s + long_time * clips_t + source[None, :] * clips_v
    x = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(place + clips_c, mask=mask, other=0.0).to(tl.float32)
    z = x
    if CHANNELS == 3:
        z = tl.load(place + 2 * clips_c, mask=mask, other=0.0).to(tl.float32)
    if partners is not None:
        x = tl.where(flips, -x, x)
    if SCALE:
        factor = 1 + ((second >> (32 - _BITS)).to(tl.float32) / _ONE * 2 - 1) * scale_jitter
        x, y, z = x * factor, y * factor, z * factor
    is_flat = flips & False
    if flat is not None:
        is_flat = tl.load(flat + row) != 0
    if PROJECT:
        turned = ((third >> (32 - _BITS)).to(tl.int32) < projecting) & (is_flat == 0)
        sin, cos = sine_cosine_of_turn((fourth >> (32 - _BITS)).to(tl.int32))
        x = tl.where(turned, cos * x + sin * z, x)
        is_flat = is_flat | turned

    sees = mask
    if valid is not None:
        at = valid + row * valid_s + long_time * valid_t + source[None, :] * valid_v
        sees = mask & (tl.load(at, mask=mask, other=0) != 0)
    if NOISE:
        a, b, c, d = philox_words(seed, own, time[:, None] * joints + joint[None, :], STREAM_NOISE)
        more_x, more_y = normal_pair(a, b)
        x = tl.where(sees, x + noise * more_x, x)
        y = tl.where(sees, y + noise * more_y, y)
        if CHANNELS == 3:
            more_z, _ = normal_pair(c, d)
            z = tl.where(sees, z + noise * more_z, z)
    z = tl.where(is_flat, 0.0, z)
    if limbs is not None:
        lost = _dropped_limbs(seed, own, tokens + row * _LIMBS, spare + row, dropping)
        limb = tl.load(limbs + source, mask=inside, other=-1).to(tl.int32)
        gone = ((limb >= 0) & (((lost >> tl.maximum(limb, 0)) & 1) == 1))[None, :]
        x, y, z = tl.where(gone, 0.0, x), tl.where(gone, 0.0, y), tl.where(gone, 0.0, z)
        sees = sees & (gone == 0)

    cell = (row * frames + long_time) * joints + joint[None, :]
    tl.store(out + cell * CHANNELS, x, mask=mask)
    tl.store(out + cell * CHANNELS + 1, y, mask=mask)
    if CHANNELS == 3:
        tl.store(out + cell * CHANNELS + 2, z, mask=mask)
    if seen is not None:
        tl.store(seen + cell, sees, mask=mask)


def _configs(joints: int) -> tuple[Config, ...]:
    """Tiles of 256 places, and of 128; 512 spill (Triton 3.6)."""
    block = min(max(triton.next_power_of_2(joints), 4), 64)
    return tuple(
        Config({"BLOCK_T": elements // block, "BLOCK_V": block}, num_warps=4) for elements in (256, 128)
    )


def augment_clips(
    clips: Tensor,
    valid: Tensor | None,
    seed: Tensor,
    *,
    mirror: float,
    partners: Tensor | None,
    scale_jitter: float,
    drop_limbs: float,
    limbs: Tensor | None,
    patch_frames: int,
    visible: int,
    noise: float,
    project: float,
    flat: Tensor | None,
    group: Tensor | None,
    numbers: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Launch the augmentation; the arguments are those of ``fastamr.ops.augment_clips``, 2 or 3 channels.

    Returns:
        ``(S, T, V, C)`` float32 and ``(S, T, V)`` bool, empty where there was no validity and nothing is dropped.
    """
    sequences, frames, joints, channels = clips.shape
    dropping = drop_limbs > 0 and limbs is not None
    out = clips.new_empty(clips.shape, dtype=torch.float32)
    seen = clips.new_empty(clips.shape[:3] if dropping or valid is not None else 0, dtype=torch.bool)
    tokens = spare = None
    if dropping and limbs is not None:
        tokens, spare = limb_tokens(valid, limbs, sequences, frames, patch_frames, visible)

    def flat_copy(value: Tensor | None, used: bool = True) -> Tensor | None:
        return value.contiguous() if used and value is not None else None

    arguments = {
        "clips": clips,
        "valid": valid,
        "partners": flat_copy(partners, mirror > 0),
        "limbs": flat_copy(limbs, dropping),
        "tokens": flat_copy(tokens),
        "spare": flat_copy(spare),
        "flat": flat_copy(flat),
        "group": flat_copy(group),
        "numbers": flat_copy(numbers),
        "seed": seed.contiguous(),
        "out": out,
        "seen": seen if seen.ndim == 3 else None,
        "frames": frames,
        "joints": joints,
        "mirroring": round(mirror * _ONE.value),
        "scale_jitter": float(scale_jitter),
        "dropping": round(drop_limbs * _ONE.value),
        "projecting": round(project * _ONE.value),
        "noise": float(noise),
        "CHANNELS": channels,
        "SCALE": scale_jitter > 0,
        "PROJECT": project > 0,
        "NOISE": noise > 0,
        **strides("clips", clips, "stvc"),
        **strides("valid", valid, "stv"),
    }

    def run(config: Config) -> None:
        blocks = config.blocks
        grid = (sequences, triton.cdiv(frames, blocks["BLOCK_T"]), triton.cdiv(joints, blocks["BLOCK_V"]))
        launch(_augment_clips, grid, clips.device, config, **arguments)

    shape_class = (triton.next_power_of_2(joints), channels, valid is None, dropping, noise > 0, project > 0)
    run(pick("augment_clips", shape_class, _configs(joints), run, clips.device))
    return out, seen
