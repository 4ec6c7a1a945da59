"""Embed only the visible patches, straight from the raw clip, and the gradients of the embedding's parameters.

The product runs in float32 on the ordinary units, never on tensor cores: coordinates must keep their 24 bits. The
backward sums in a fixed order, without atomics, into partial sums that PyTorch adds up.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch, pick
from .patch_gather import locate_rows, patch_base
from .strides import strides

_PROGRAMS = 264
"""Programs that share the rows of the weight's gradient: two on each of an H200's 132 multiprocessors."""


@triton.jit
def _forward(
    clips, keep, weight, bias, position, out, rows, visible, joints, width,
    clip_s, clip_t, clip_v, clip_c, keep_s, keep_k, bias_d, position_n, position_d,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # clips (S, T, V, C) with strides clip_*; keep (S, K) integers with strides keep_*; weight (P, D) float32,
    # contiguous; bias (D,) with stride bias_d; position (N, D) with strides position_*; out (S*K, D) contiguous.
    # One program per BLOCK_ROWS tokens and BLOCK_D columns.
    start = tl.program_id(0).to(tl.int64) * BLOCK_ROWS
    row = start + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = row < rows
    within = column < width
    mask = inside[:, None] & within[None, :]
    sequence, place = locate_rows(start, visible, BLOCK_ROWS)
    token, base = patch_base(
        keep, sequence, place, inside, joints, keep_s, keep_k, clip_s, clip_t, clip_v, FRAMES
    )  # fmt: skip
    acc = tl.zeros([BLOCK_ROWS, BLOCK_D], tl.float32)
    for frame in range(FRAMES):
        for channel in tl.static_range(CHANNELS):
            x = tl.load(clips + base + channel * clip_c, mask=inside, other=0.0).to(tl.float32)
            w = tl.load(weight + (frame * CHANNELS + channel) * width + column, mask=within, other=0.0)
            acc += x[:, None] * w[None, :]
        base += clip_t
    acc += tl.load(bias + column.to(tl.int64) * bias_d, mask=within, other=0.0).to(tl.float32)[None, :]
    place_in_table = token.to(tl.int64)[:, None] * position_n + column.to(tl.int64)[None, :] * position_d
    acc += tl.load(position + place_in_table, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row[:, None] * width + column[None, :], acc.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _links(
    keep, links, tokens, visible, keep_s, keep_k,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # keep (S, K) integers with strides keep_*; links (S, N+K) int32, contiguous: entry n < N is the first position of
    # token n in keep, entry N+k the next position of the token at position k; -1 where there is none.
    # One program per sequence and BLOCK_Q entries; each entry asks for a token's first position after another
    # position.
    sequence = tl.program_id(0).to(tl.int64)
    entry = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    after = entry - tokens
    own = tl.load(
        keep + sequence * keep_s + after.to(tl.int64) * keep_k, mask=(after >= 0) & (after < visible), other=0
    )
    token = tl.where(after >= 0, own.to(tl.int32), entry)
    first = tl.full([BLOCK_Q], 0x7FFFFFFF, tl.int32)
    for start in range(0, visible, BLOCK_K):
        for step in tl.static_range(BLOCK_K):
            place = start + step
            address = keep + sequence * keep_s + tl.cast(place, tl.int64) * keep_k
            found = tl.load(address, mask=place < visible, other=-1).to(tl.int32)
            first = tl.minimum(first, tl.where((found == token) & (after < place), place, 0x7FFFFFFF))
    count = tokens + visible
    first = tl.where(first == 0x7FFFFFFF, -1, first)
    tl.store(links + sequence * count + entry, first, mask=entry < count)


@triton.jit
def _position_gradient(
    grad, links, out, sequences, tokens, visible, width,
    grad_s, grad_k, grad_d,
    BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # grad (S, K, D) with strides grad_*; links (S, N+K) int32 as _links writes them; out (N, D) contiguous.
    # One program per token and BLOCK_D columns: it follows its token through the links and adds up the rows found.
    token = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    within = column < width
    acc = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    for start in range(0, sequences, BLOCK_S):
        sequence = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_S)
        present = sequence < sequences
        row = links + sequence * (tokens + visible)
        place = tl.load(row + token, mask=present, other=-1)
        # A chain has at most as many links as a sequence has visible tokens; damaged ones must not hang the GPU.
        turn = 0
        while (tl.max(place) >= 0) & (turn < visible):
            turn += 1
            begin = grad + sequence * grad_s + place.to(tl.int64) * grad_k
            values = tl.load(
                begin[:, None] + column.to(tl.int64)[None, :] * grad_d,
                mask=(place >= 0)[:, None] & within[None, :],
                other=0.0,
            )
            acc += values.to(tl.float32)
            place = tl.load(row + tokens + place, mask=place >= 0, other=-1)
    total = tl.sum(acc, axis=0)
    tl.store(out + token.to(tl.int64) * width + column, total.to(out.dtype.element_ty), mask=within)


@triton.jit
def _weight_gradient(
    grad, clips, keep, weight, bias, rows, share, visible, joints, width,
    grad_s, grad_k, grad_d, clip_s, clip_t, clip_v, clip_c, keep_s, keep_k,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    # grad (S, K, D) with strides grad_*; clips (S, T, V, C) with strides clip_*; keep (S, K) integers with strides
    # keep_*; weight (G, D, P) and bias (G, D) float32, contiguous: partial sums over `share` rows each.
    # One program per group, BLOCK_D columns and BLOCK_P values of [patch, 1], whose last one makes the bias.
    numbers: tl.constexpr = FRAMES * CHANNELS
    group = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    number = tl.program_id(2) * BLOCK_P + tl.arange(0, BLOCK_P)
    within = column < width
    offset = (number // CHANNELS).to(tl.int64) * clip_t + (number % CHANNELS).to(tl.int64) * clip_c
    acc = tl.zeros([BLOCK_D, BLOCK_P], tl.float32)
    for step in range(0, share, BLOCK_ROWS):
        start = group * share + step
        inside = start + tl.arange(0, BLOCK_ROWS) < rows
        sequence, place = locate_rows(start, visible, BLOCK_ROWS)
        _, base = patch_base(
            keep, sequence, place, inside, joints, keep_s, keep_k, clip_s, clip_t, clip_v, FRAMES
        )  # fmt: skip
        patches = tl.load(
            clips + base[:, None] + offset[None, :],
            mask=inside[:, None] & (number < numbers)[None, :],
            other=0.0,
        ).to(tl.float32)
        patches = tl.where((number == numbers)[None, :], 1.0, patches)
        address = sequence * grad_s + place.to(tl.int64) * grad_k
        upstream = tl.load(
            grad + address[None, :] + column.to(tl.int64)[:, None] * grad_d,
            mask=inside[None, :] & within[:, None],
            other=0.0,
        ).to(tl.float32)
        acc = tl.dot(upstream, patches, acc, input_precision="ieee")
    target = weight + (group * width + column)[:, None] * numbers + number[None, :]
    tl.store(target, acc, mask=within[:, None] & (number < numbers)[None, :])
    target = (bias + group * width + column)[:, None] + tl.zeros([1, BLOCK_P], tl.int32)
    tl.store(target, acc, mask=within[:, None] & (number == numbers)[None, :])


def _forward_configs(width: int) -> tuple[Config, ...]:
    block = min(max(triton.next_power_of_2(width), 16), 256)
    return tuple(
        Config({"BLOCK_ROWS": max(elements // block, 1), "BLOCK_D": block}, num_warps=warps)
        for elements, warps in ((4096, 4), (2048, 4), (4096, 8), (1024, 2))
    )


_LINK_CONFIGS = (
    Config({"BLOCK_Q": 256, "BLOCK_K": 16}),
    Config({"BLOCK_Q": 512, "BLOCK_K": 8}),
    Config({"BLOCK_Q": 128, "BLOCK_K": 16}),
)


def _position_configs(width: int) -> tuple[Config, ...]:
    block = min(max(triton.next_power_of_2(width), 16), 256)
    return tuple(
        Config({"BLOCK_S": size, "BLOCK_D": block}, num_warps=warps)
        for size, warps in ((32, 4), (32, 8), (16, 8))  # 16 rows with 4 warps spill on sm_100
    )


def _weight_configs(width: int, numbers: int) -> tuple[Config, ...]:
    places = min(max(triton.next_power_of_2(numbers + 1), 16), 32)
    # The product holds whole rows of its tiles in registers: these sizes leave room.
    block = min(max(triton.next_power_of_2(width), 16), 2048 // places)
    return tuple(
        Config({"BLOCK_ROWS": rows, "BLOCK_D": block, "BLOCK_P": places}, num_warps=warps)
        for rows, warps in ((32, 4), (16, 4), (32, 8), (16, 8))
    )


def masked_patch_gather(
    clips: Tensor,
    keep: Tensor,
    weight: Tensor,
    bias: Tensor,
    position: Tensor,
    *,
    patch_frames: int,
    out_dtype: torch.dtype,
) -> Tensor:
    """Launch the forward: one kernel, after a copy that turns the weight to ``(P, D)`` float32.

    Args:
        clips: ``(S, T, V, C)`` of any strides.
        keep: ``(S, K)`` int32 or int64 token ids.
        weight: ``(D, P)`` with P = l*C.
        bias: ``(D,)``.
        position: ``(N, D)``.
        patch_frames: l.
        out_dtype: of the tokens.

    Returns:
        ``(S, K, D)``.
    """
    sequences, visible = keep.shape
    width, numbers = weight.shape
    out = clips.new_empty((sequences, visible, width), dtype=out_dtype)
    # Neighbouring columns must be neighbours in memory; the table is small.
    columns = weight.detach().t().contiguous().float()

    def run(config: Config) -> None:
        blocks = config.blocks
        grid = (
            triton.cdiv(sequences * visible, blocks["BLOCK_ROWS"]),
            triton.cdiv(width, blocks["BLOCK_D"]),
        )
        launch(
            _forward,
            grid,
            clips.device,
            config,
            clips=clips,
            keep=keep,
            weight=columns,
            bias=bias,
            position=position,
            out=out,
            rows=sequences * visible,
            visible=visible,
            joints=clips.shape[2],
            width=width,
            FRAMES=patch_frames,
            CHANNELS=clips.shape[3],
            **strides("clip", clips, "stvc"),
            **strides("keep", keep, "sk"),
            **strides("bias", bias, "d"),
            **strides("position", position, "nd"),
        )

    shape_class = (width, numbers, out.element_size())
    run(pick("masked_patch_gather", shape_class, _forward_configs(width), run, clips.device))
    return out


def masked_patch_gather_backward(
    grad: Tensor, clips: Tensor, keep: Tensor, tokens: int, *, patch_frames: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the backward in fixed order of summation, for any ``keep``.

    Three kernels and two sums: where each token is kept, the position table, and partial sums of weight and bias.

    Args:
        grad: ``(S, K, D)`` of any strides, also 0.
        clips: ``(S, T, V, C)`` of any strides.
        keep: ``(S, K)`` int32 or int64 token ids, in any order, also repeated.
        tokens: N, rows of the position table.
        patch_frames: l.
        dtype: of the gradients.

    Returns:
        Gradients of weight ``(D, P)``, bias ``(D,)`` and position ``(N, D)``.
    """
    position = _launch_position(grad, keep, tokens, dtype)
    weight, bias = _launch_weight(grad, clips, keep, patch_frames)
    return weight.sum(0).to(dtype), bias.sum(0).to(dtype), position


def _launch_links(keep: Tensor, tokens: int) -> Tensor:
    """Where each token is kept: ``(S, N+K)`` int32, see :func:`_links`."""
    sequences, visible = keep.shape
    links = keep.new_empty((sequences, tokens + visible), dtype=torch.int32)

    def run(config: Config) -> None:
        launch(
            _links,
            (sequences, triton.cdiv(tokens + visible, config.blocks["BLOCK_Q"])),
            keep.device,
            config,
            keep=keep,
            links=links,
            tokens=tokens,
            visible=visible,
            **strides("keep", keep, "sk"),
        )

    shape_class = (tokens, visible)
    run(pick("masked_patch_gather_links", shape_class, _LINK_CONFIGS, run, keep.device))
    return links


def _launch_position(grad: Tensor, keep: Tensor, tokens: int, dtype: torch.dtype) -> Tensor:
    """Gradient of the position table ``(N, D)``."""
    sequences, visible, width = grad.shape
    links = _launch_links(keep, tokens)
    out = grad.new_empty((tokens, width), dtype=dtype)

    def run(config: Config) -> None:
        launch(
            _position_gradient,
            (tokens, triton.cdiv(width, config.blocks["BLOCK_D"])),
            grad.device,
            config,
            grad=grad,
            links=links,
            out=out,
            sequences=sequences,
            tokens=tokens,
            visible=visible,
            width=width,
            **strides("grad", grad, "skd"),
        )

    shape_class = (tokens, visible, width, grad.element_size())
    run(pick("masked_patch_gather_position", shape_class, _position_configs(width), run, grad.device))
    return out


def _launch_weight(grad: Tensor, clips: Tensor, keep: Tensor, patch_frames: int) -> tuple[Tensor, Tensor]:
    """Partial sums ``(G, D, P)`` and ``(G, D)`` of the gradients of weight and bias."""
    sequences, visible, width = grad.shape
    numbers, rows = patch_frames * clips.shape[3], sequences * visible

    def run(config: Config) -> tuple[Tensor, Tensor]:
        blocks = config.blocks
        tiles = triton.cdiv(width, blocks["BLOCK_D"]), triton.cdiv(numbers + 1, blocks["BLOCK_P"])
        groups = max(_PROGRAMS // (tiles[0] * tiles[1]), 1)
        share = triton.cdiv(triton.cdiv(rows, groups), blocks["BLOCK_ROWS"]) * blocks["BLOCK_ROWS"]
        groups = triton.cdiv(rows, share) if rows else 0
        weight = grad.new_empty((groups, width, numbers), dtype=torch.float32)
        bias = weight.new_empty((groups, width))
        launch(
            _weight_gradient,
            (groups, *tiles),
            grad.device,
            config,
            grad=grad,
            clips=clips,
            keep=keep,
            weight=weight,
            bias=bias,
            rows=rows,
            share=share,
            visible=visible,
            joints=clips.shape[2],
            width=width,
            FRAMES=patch_frames,
            CHANNELS=clips.shape[3],
            **strides("grad", grad, "skd"),
            **strides("clip", clips, "stvc"),
            **strides("keep", keep, "sk"),
        )
        return weight, bias

    shape_class = (numbers, width, grad.element_size())
    return run(
        pick("masked_patch_gather_weight", shape_class, _weight_configs(width, numbers), run, grad.device)
    )
