"""Copy the raw patches of chosen tokens out of strided clips."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch, pick
from .strides import strides


@triton.jit
def locate_rows(start, visible, BLOCK: tl.constexpr):
    """Sequence (int64) and position in keep (int32) of the flat rows ``start .. start + BLOCK - 1`` of (S, K)."""
    # One wide division for the program; the rows themselves make do with 32 bits.
    first = start // visible
    local = (start - first * visible).to(tl.int32) + tl.arange(0, BLOCK)
    step = local // visible
    return first + step, local - step * visible


@triton.jit
def patch_base(
    keep, sequence, place, inside, joints, keep_s, keep_k, clip_s, clip_t, clip_v, FRAMES: tl.constexpr
):
    """Token ids (int32) of rows and where their patches begin in the clips (int64 offsets); see _patch_gather."""
    address = keep + sequence * keep_s + place.to(tl.int64) * keep_k
    token = tl.load(address, mask=inside, other=0).to(tl.int32)
    time = token // joints
    joint = token - time * joints
    return token, sequence * clip_s + time.to(tl.int64) * FRAMES * clip_t + joint.to(tl.int64) * clip_v


@triton.jit
def _patch_gather(
    clips, keep, out, rows, visible, joints,
    clip_s, clip_t, clip_v, clip_c, keep_s, keep_k,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # clips (S, T, V, C) with strides clip_*; keep (S, K) integers with strides keep_*; out (S*K, P) contiguous.
    # One program per BLOCK_ROWS tokens and BLOCK_P of the P = FRAMES*CHANNELS values of a patch.
    start = tl.program_id(0).to(tl.int64) * BLOCK_ROWS
    row = start + tl.arange(0, BLOCK_ROWS)
    number = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = row < rows
    sequence, place = locate_rows(start, visible, BLOCK_ROWS)
    _, base = patch_base(
        keep, sequence, place, inside, joints, keep_s, keep_k, clip_s, clip_t, clip_v, FRAMES
    )  # fmt: skip
    offset = (number // CHANNELS).to(tl.int64) * clip_t + (number % CHANNELS).to(tl.int64) * clip_c
    mask = inside[:, None] & (number < FRAMES * CHANNELS)[None, :]
    values = tl.load(clips + base[:, None] + offset[None, :], mask=mask, other=0.0)
    tl.store(out + row[:, None] * (FRAMES * CHANNELS) + number[None, :], values, mask=mask)


def _configs(numbers: int) -> tuple[Config, ...]:
    block = min(triton.next_power_of_2(numbers), 64)
    return tuple(
        Config({"BLOCK_ROWS": max(elements // block, 1), "BLOCK_P": block}, num_warps=warps)
        for elements, warps in ((1024, 4), (2048, 4), (512, 4))
    )


def patch_gather(clips: Tensor, keep: Tensor, *, patch_frames: int) -> Tensor:
    """Launch the copy.

    Args:
        clips: ``(S, T, V, C)`` of any strides.
        keep: ``(S, K)`` int32 or int64 token ids.
        patch_frames: l.

    Returns:
        ``(S, K, l*C)`` in the clips' dtype.
    """
    sequences, visible = keep.shape
    joints, channels = clips.shape[2:]
    numbers = patch_frames * channels
    out = clips.new_empty((sequences, visible, numbers))

    def run(config: Config) -> None:
        blocks = config.blocks
        grid = (
            triton.cdiv(sequences * visible, blocks["BLOCK_ROWS"]),
            triton.cdiv(numbers, blocks["BLOCK_P"]),
        )
        launch(
            _patch_gather,
            grid,
            clips.device,
            config,
            clips=clips,
            keep=keep,
            out=out,
            rows=sequences * visible,
            visible=visible,
            joints=joints,
            FRAMES=patch_frames,
            CHANNELS=channels,
            **strides("clip", clips, "stvc"),
            **strides("keep", keep, "sk"),
        )

    run(pick("patch_gather", (numbers, clips.element_size()), _configs(numbers), run, clips.device))
    return out
