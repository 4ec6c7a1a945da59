"""Guidance map of the reconstruction loss: the windows' weights, spread over their frames and averaged.

Source: the adaptive guidance of AMR; the formulas are in :mod:`fastamr.reference.motion_guidance`. A window is weighed
against the mean over its sequence, so the energies of all window lengths are one launch and the map a second; the
histogram, which is relative to the sequence's largest displacement, takes one more.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch, pick
from .motion_entropy import window_energies
from .motion_histogram import window_histograms
from .strides import strides

_CONFIGS = (
    Config({"BLOCK": 512}),
    Config({"BLOCK": 256}),
)
# Partial sums that a program reads at a time.
_PARTS = tl.constexpr(64)


@triton.jit
def _mean_energy(sums, known, parts):
    """Mean energy of a sequence from its partial sums; 0 without a known window. sums, known: at the first of parts."""
    total = tl.zeros([_PARTS], tl.float32)
    number = tl.zeros([_PARTS], tl.int32)
    for turn in range(tl.cdiv(parts, _PARTS)):
        part = turn * _PARTS + tl.arange(0, _PARTS)
        total += tl.load(sums + part, mask=part < parts, other=0.0)
        number += tl.load(known + part, mask=part < parts, other=0)
    return tl.div_rn(tl.sum(total, 0), tl.maximum(tl.sum(number, 0), 1).to(tl.float32))


@triton.jit
def _guidance_map(
    values,  # (S, R, V) float32, contiguous: energies with sums, weights without
    sums,  # (S, parts) float32, contiguous; or None
    known,  # (S, parts) int32, contiguous; or None
    valid,  # (S, T, V) bool, strides valid_*; or None
    weights,  # (S, T, V) float32, contiguous
    blocks, frames, joints, windows, parts, k, eps, shift,
    valid_s, valid_t, valid_v,
    WINDOWS: tl.constexpr, RUN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK (frame, joint) cells of a sequence. R is windows; RUN energies make one partial sum."""
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    cell = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = cell < frames * joints
    frame = cell // joints
    joint = cell % joints
    total = tl.zeros([BLOCK], tl.float32)
    first_part = 0
    first_window = 0
    for length in tl.static_range(len(WINDOWS)):
        count = tl.cdiv(frames, WINDOWS[length])
        place = (sequence * windows + first_window) * joints + (frame // WINDOWS[length] * joints + joint)
        weight = tl.load(values + place, mask=inside, other=0.0)
        if sums is not None:
            own_parts = tl.cdiv(count * joints, RUN)
            first = sequence * parts + first_part
            mean = _mean_energy(sums + first, known + first, own_parts)
            # 1 / (1 + k e_t / e_s) without the division by e_s; as exact as the logistic of a difference of logarithms.
            weight = tl.div_rn(weight + eps, (weight + eps) + k * (mean + shift))
            first_part += own_parts
        total += weight
        first_window += count
    fused = tl.div_rn(total, 1.0 * len(WINDOWS))
    if valid is not None:
        valid_at = valid + sequence * valid_s + frame.to(tl.int64) * valid_t + joint.to(tl.int64) * valid_v
        fused = tl.where(tl.load(valid_at, mask=inside, other=False), fused, 0.0)
    tl.store(weights + sequence * frames * joints + cell, fused, mask=inside)


def motion_guidance(
    clips: Tensor,
    *,
    windows: tuple[int, ...],
    k: float,
    eps: float,
    kind: str,
    bins: int,
    valid: Tensor | None,
) -> Tensor:
    """Weight of each frame and joint, ``(S, T, V)`` float32 in [0, 1].

    Args:
        clips: ``(S, T, V, C)`` float16, bfloat16 or float32, any strides.
        windows: window lengths in frames.
        k: strength.
        eps: added to the energies.
        kind: ``"entropy"``, ``"energy"`` (no eps beside the mean energy) or ``"histogram"``.
        bins: bins of the histogram.
        valid: ``(S, T, V)`` bool, any strides; other frames do not count, may hold anything and weigh 0.
    """
    sequences, frames, joints, _ = clips.shape
    weights = clips.new_empty((sequences, frames, joints), dtype=torch.float32)
    if kind == "histogram":
        values, sums, known, length, parts = window_histograms(clips, windows, valid, bins), None, None, 1, 0
    else:
        values, sums, known, length = window_energies(clips, windows, valid)
        parts = sums.shape[1]

    def run(config: Config) -> None:
        blocks = triton.cdiv(frames * joints, config.blocks["BLOCK"])
        launch(
            _guidance_map,
            (sequences * blocks,),
            clips.device,
            config,
            values=values,
            sums=sums,
            known=known,
            valid=valid,
            weights=weights,
            blocks=blocks,
            frames=frames,
            joints=joints,
            windows=values.shape[1],
            parts=parts,
            k=k,
            eps=eps,
            shift=eps if kind == "entropy" else 0.0,
            **strides("valid", valid, "stv"),
            WINDOWS=windows,
            RUN=length,
        )

    shape_class = (frames, joints, windows, kind == "histogram", valid is not None)
    run(pick("motion_guidance", shape_class, _CONFIGS, run, clips.device))
    return weights
