"""Motion energy of windows of frames, for several window lengths in one launch.

Source: the motion information entropy of AMR; the formulas are in :mod:`fastamr.reference.motion_entropy`.

One thread owns one window of one joint and walks its frames twice: once for the mean of the distances from the window's
first valid frame, once for the squared deviations from that mean. The differences of close coordinates are exact, so
nothing cancels 10 m away from the camera, as ``E[x^2] - E[x]^2`` would. Short windows stay in registers between the
walks (unrolled, the second walk's loads are the first one's); longer ones are read again, from the cache.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch, pick
from .strides import strides

_CONFIGS = (
    Config({"BLOCK": 128}),
    Config({"BLOCK": 64}, num_warps=2),
    Config({"BLOCK": 256}, num_warps=8),
    Config({"BLOCK": 256}),
)
# Frames of all windows whose walks are unrolled. Compiling takes 1.5 s for 8, 12 s for 24, minutes for more; with 24
# a thread would need 80 registers instead of 38.
_MOST_UNROLLED = 8


class Energies(NamedTuple):
    """Energies of all windows of all lengths, and what their mean over a sequence needs.

    ``values`` is ``(S, R, V)`` float32 with ``R`` the windows of the first length, then those of the second, and so on.
    ``sums`` ``(S, parts)`` float32 and ``known`` ``(S, parts)`` int32 are the sum of the energies and the number of
    windows with a valid frame in each run of ``block`` energies of one length; a length has
    ``ceil(windows * V / block)`` runs.
    """

    values: Tensor
    sums: Tensor
    known: Tensor
    block: int


@triton.jit
def _walk(
    pointers, valid, start, exists, frames, clips_t, valid_t, WINDOW: tl.constexpr, UNROLL: tl.constexpr
):  # fmt: skip
    """Squared deviations from the window's mean, summed over its valid frames, in one channel; and their number.

    pointers (BLOCK,) at the first frame in clips, valid (BLOCK,) at the first frame in valid or None
    """
    # A bound known only when it runs keeps the compiler from unrolling what should stay a loop.
    stop = WINDOW if UNROLL else tl.minimum(frames, WINDOW)
    origin = tl.zeros_like(start).to(tl.float32)
    total = tl.zeros_like(start).to(tl.float32)
    count = tl.zeros_like(start).to(tl.float32)
    at = pointers
    flag = valid
    for i in tl.range(0, stop, loop_unroll_factor=WINDOW if UNROLL else 1):
        known = exists & (start + i < frames)
        if valid is not None:
            known = known & tl.load(flag, mask=known, other=False)
            flag += valid_t
        x = tl.load(at, mask=known, other=0.0).to(tl.float32)
        at += clips_t
        origin = tl.where(known & (count == 0.0), x, origin)
        total += tl.where(known, x - origin, 0.0)
        count += tl.where(known, 1.0, 0.0)
    mean = tl.div_rn(total, tl.maximum(count, 1.0))
    squares = tl.zeros_like(total)
    lost = tl.zeros_like(total)
    at = pointers
    flag = valid
    for i in tl.range(0, stop, loop_unroll_factor=WINDOW if UNROLL else 1):
        known = exists & (start + i < frames)
        if valid is not None:
            known = known & tl.load(flag, mask=known, other=False)
            flag += valid_t
        x = tl.load(at, mask=known, other=0.0).to(tl.float32)
        at += clips_t
        deviation = tl.where(known, (x - origin) - mean, 0.0)
        # Compensated: a window may be the whole sequence, and the walk adds one frame at a time.
        term = deviation * deviation - lost
        larger = squares + term
        lost = (larger - squares) - term
        squares = larger
    return squares, count


@triton.jit
def _window_energies(
    clips,  # (S, T, V, C) floating, strides clips_*
    valid,  # (S, T, V) bool, strides valid_*; or None
    energy,  # (S, R, V) float32, contiguous; windows of WINDOWS[0] first
    entropy,  # like energy; or None
    sums,  # (S, parts) float32, contiguous; or None
    known,  # (S, parts) int32, contiguous; or None
    frames, joints, windows, parts, eps, scale,
    clips_s, clips_t, clips_v, clips_c, valid_s, valid_t, valid_v,
    C: tl.constexpr, WINDOWS: tl.constexpr, UNROLL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK (window, joint) pairs of one window length of one sequence. R is ``windows``."""
    program = tl.program_id(0)
    sequence = (program // parts).to(tl.int64)
    part = program % parts
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
            flags = None
            if valid is not None:
                flags = valid + sequence * valid_s + start.to(tl.int64) * valid_t + joint * valid_v
            squares = tl.zeros([BLOCK], tl.float32)
            number = tl.zeros([BLOCK], tl.float32)
            for channel in tl.static_range(C):
                channel_at = place + tl.full([1], channel, tl.int64) * clips_c
                more, number = _walk(
                    channel_at, flags, start, exists, frames, clips_t, valid_t, WINDOWS[length], UNROLL
                )
                squares += more
            value = tl.div_rn(squares, tl.maximum(number, 1.0))
            target = (sequence * windows + first_window) * joints + pair
            tl.store(energy + target, value, mask=exists)
            if entropy is not None:
                tl.store(entropy + target, 0.5 * C * tl.log(scale * (value + eps)), mask=exists)
            if sums is not None:
                tl.store(sums + sequence * parts + part, tl.sum(value, 0))
                tl.store(known + sequence * parts + part, tl.sum((number > 0).to(tl.int32), 0))
        first_part += own_parts
        first_window += count


def _run(
    clips: Tensor, windows: tuple[int, ...], valid: Tensor | None, eps: float, *, entropy: bool, sums: bool
) -> tuple[Energies, Tensor | None]:
    sequences, frames, joints, channels = clips.shape
    counts = [triton.cdiv(frames, window) for window in windows]

    def run(config: Config) -> tuple[Energies, Tensor | None]:
        block = config.blocks["BLOCK"]
        parts = sum(triton.cdiv(count * joints, block) for count in counts)
        energy = clips.new_empty((sequences, sum(counts), joints), dtype=torch.float32)
        shape = (sequences, parts) if sums else (0,)
        out = Energies(
            energy,
            clips.new_empty(shape, dtype=torch.float32),
            clips.new_empty(shape, dtype=torch.int32),
            block,
        )
        entropies = torch.empty_like(energy) if entropy else None
        launch(
            _window_energies,
            (sequences * parts,),
            clips.device,
            config,
            clips=clips,
            valid=valid,
            energy=energy,
            entropy=entropies,
            sums=out.sums if sums else None,
            known=out.known if sums else None,
            frames=frames,
            joints=joints,
            windows=sum(counts),
            parts=parts,
            eps=eps,
            scale=2 * math.pi * math.e / channels,
            **strides("clips", clips, "stvc"),
            **strides("valid", valid, "stv"),
            C=channels,
            WINDOWS=windows,
            UNROLL=sum(windows) <= _MOST_UNROLLED,
        )
        return out, entropies

    shape_class = (frames, joints, channels, windows, valid is not None)
    return run(pick("motion_entropy", shape_class, _CONFIGS, run, clips.device))


def window_energies(clips: Tensor, windows: tuple[int, ...], valid: Tensor | None) -> Energies:
    """Energies of every window of every length in ``windows``, with their partial sums.

    Args:
        clips: ``(S, T, V, C)`` float16, bfloat16 or float32, any strides.
        windows: window lengths in frames.
        valid: ``(S, T, V)`` bool, any strides; other frames do not count and may hold anything.
    """
    return _run(clips, windows, valid, 0.0, entropy=False, sums=True)[0]


def motion_entropy(
    clips: Tensor, *, window: int, valid: Tensor | None = None, eps: float = 1e-8
) -> tuple[Tensor, Tensor]:
    """Energy and entropy of each window of each joint, in one launch.

    Args:
        clips: ``(S, T, V, C)`` float16, bfloat16 or float32, any strides.
        window: frames per window; a last, shorter one uses its own.
        valid: ``(S, T, V)`` bool, any strides; other frames do not count and may hold anything.
        eps: added to the energy in the entropy.

    Returns:
        ``energy`` and ``entropy`` in nats, each ``(S, ceil(T/window), V)`` float32.
    """
    energies, entropy = _run(clips, (window,), valid, eps, entropy=True, sums=False)
    assert entropy is not None
    return energies.values, entropy
