"""Shannon entropy of the displacements within windows of frames, for several window lengths.

The formulas are in :mod:`fastamr.reference.motion_guidance`. The bins end at the sequence's largest displacement, which
must be known before any is counted: two launches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch, pick
from .strides import strides

_LARGEST = Config({"BLOCK": 512})
# Partial maxima that a program reads at a time.
_PARTS = tl.constexpr(64)


@triton.jit
def _displacement(place, known, clips_t, clips_c, C: tl.constexpr):
    """Squared distance of a joint to its position in the next frame, 0 where not known.

    place: pointers (BLOCK,) to the joints' first channel
    """
    square = tl.zeros(known.shape, tl.float32)
    for channel in tl.static_range(C):
        at = place + tl.full([1], channel, tl.int64) * clips_c
        now = tl.load(at, mask=known, other=0.0).to(tl.float32)
        later = tl.load(at + clips_t, mask=known, other=0.0).to(tl.float32)
        square += (later - now) * (later - now)
    return square


@triton.jit
def _both_valid(valid_at, known, valid_t):
    """Where this frame and the next are valid; valid_at: pointers (BLOCK,), or None."""
    if valid_at is not None:
        known = known & tl.load(valid_at, mask=known, other=False)
        known = known & tl.load(valid_at + valid_t, mask=known, other=False)
    return known


@triton.jit
def _largest_displacement(
    clips,  # (S, T, V, C) floating, strides clips_*
    valid,  # (S, T, V) bool, strides valid_*; or None
    largest,  # (S * blocks,) float32, of squares
    blocks, frames, joints,
    clips_s, clips_t, clips_v, clips_c, valid_s, valid_t, valid_v,
    C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK (frame, joint) cells of a sequence."""
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    cell = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    known = cell < (frames - 1) * joints
    frame = (cell // joints).to(tl.int64)
    joint = (cell % joints).to(tl.int64)
    valid_at = None
    if valid is not None:
        valid_at = valid + sequence * valid_s + frame * valid_t + joint * valid_v
    known = _both_valid(valid_at, known, valid_t)
    place = clips + sequence * clips_s + frame * clips_t + joint * clips_v
    square = _displacement(place, known, clips_t, clips_c, C)
    tl.store(largest + tl.program_id(0), tl.max(square, 0))


@triton.jit
def _window_histograms(
    clips,  # (S, T, V, C) floating, strides clips_*
    valid,  # (S, T, V) bool, strides valid_*; or None
    largest,  # (S, blocks) float32, of squares
    entropy,  # (S, R, V) float32, contiguous; windows of WINDOWS[0] first
    blocks, frames, joints, windows, parts,
    clips_s, clips_t, clips_v, clips_c, valid_s, valid_t, valid_v,
    C: tl.constexpr, WINDOWS: tl.constexpr, BINS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: histograms (BLOCK, BINS padded to SIZE) of (window, joint) pairs of one length. R is windows."""
    sequence = (tl.program_id(0) // parts).to(tl.int64)
    part = tl.program_id(0) % parts
    maxima = tl.zeros([_PARTS], tl.float32)
    for turn in range(tl.cdiv(blocks, _PARTS)):
        block = turn * _PARTS + tl.arange(0, _PARTS)
        maxima = tl.maximum(
            maxima, tl.load(largest + sequence * blocks + block, mask=block < blocks, other=0.0)
        )
    top = tl.sqrt_rn(tl.max(maxima, 0))
    top = tl.where(top > 0.0, top, 1.0)
    first_part = 0
    first_window = 0
    for length in tl.static_range(len(WINDOWS)):
        count = tl.cdiv(frames, WINDOWS[length])
        own_parts = tl.cdiv(count * joints, BLOCK)
        if (part >= first_part) & (part < first_part + own_parts):
            pair = (part - first_part) * BLOCK + tl.arange(0, BLOCK)
            exists = pair < count * joints
            start = pair // joints * WINDOWS[length]
            joint = (pair % joints).to(tl.int64)
            place = clips + sequence * clips_s + start.to(tl.int64) * clips_t + joint * clips_v
            valid_at = None
            if valid is not None:
                valid_at = valid + sequence * valid_s + start.to(tl.int64) * valid_t + joint * valid_v
            counts = tl.zeros([BLOCK, SIZE], tl.float32)
            for i in range(WINDOWS[length] - 1):
                known = _both_valid(valid_at, exists & (start + (i + 1) < frames), valid_t)
                distance = tl.sqrt_rn(_displacement(place, known, clips_t, clips_c, C))
                place += clips_t
                if valid is not None:
                    valid_at += valid_t
                # The reference's order of operations: a displacement on the edge of a bin falls on the same side.
                own_bin = tl.minimum((tl.div_rn(distance, top) * BINS).to(tl.int32), BINS - 1)
                own_bin = tl.where(known, own_bin, SIZE)
                counts += (own_bin[:, None] == tl.arange(0, SIZE)[None, :]).to(tl.float32)
            share = tl.div_rn(counts, tl.maximum(tl.sum(counts, 1), 1.0)[:, None])
            shannon = -tl.sum(share * tl.log(tl.where(share > 0.0, share, 1.0)), 1)
            # At most min(bins, displacements) bins are taken; fewer than two displacements say nothing.
            steps = tl.minimum(tl.minimum(frames - start, WINDOWS[length]) - 1, BINS)
            value = shannon / tl.log(tl.maximum(steps, 2).to(tl.float32))
            value = tl.where(steps > 1, tl.minimum(tl.maximum(value, 0.0), 1.0), 0.0)
            tl.store(entropy + (sequence * windows + first_window) * joints + pair, value, mask=exists)
        first_part += own_parts
        first_window += count


def _configs(size: int) -> tuple[Config, ...]:
    """Histograms of 8 bins a thread, then fewer and more."""
    blocks = dict.fromkeys(max(each * 128 // size, 1) for each in (8, 4, 16))
    return tuple(Config({"BLOCK": block}) for block in blocks)


def window_histograms(clips: Tensor, windows: tuple[int, ...], valid: Tensor | None, bins: int) -> Tensor:
    """Entropy of each window's displacements over its largest possible value, ``(S, R, V)`` float32 in [0, 1].

    Args:
        clips: ``(S, T, V, C)`` float16, bfloat16 or float32, any strides.
        windows: window lengths; ``R`` counts the windows of the first, then those of the second, and so on.
        valid: ``(S, T, V)`` bool, any strides; other frames do not count and may hold anything.
        bins: equal bins between 0 and the sequence's largest displacement, at most 1024.
    """
    sequences, frames, joints, channels = clips.shape
    blocks = max(triton.cdiv((frames - 1) * joints, _LARGEST.blocks["BLOCK"]), 1)
    largest = clips.new_empty((sequences * blocks,), dtype=torch.float32)
    counts = [triton.cdiv(frames, window) for window in windows]
    entropy = clips.new_empty((sequences, sum(counts), joints), dtype=torch.float32)
    shared = {
        "clips": clips,
        "valid": valid,
        "largest": largest,
        "blocks": blocks,
        "frames": frames,
        "joints": joints,
        "C": channels,
        **strides("clips", clips, "stvc"),
        **strides("valid", valid, "stv"),
    }
    launch(_largest_displacement, (sequences * blocks,), clips.device, _LARGEST, **shared)
    size = triton.next_power_of_2(bins)

    def run(config: Config) -> None:
        parts = sum(triton.cdiv(count * joints, config.blocks["BLOCK"]) for count in counts)
        launch(
            _window_histograms,
            (sequences * parts,),
            clips.device,
            config,
            entropy=entropy,
            windows=sum(counts),
            parts=parts,
            WINDOWS=windows,
            BINS=bins,
            SIZE=size,
            **shared,
        )

    shape_class = (frames, joints, channels, windows, bins, valid is not None)
    run(pick("motion_histogram", shape_class, _configs(size), run, clips.device))
    return entropy
