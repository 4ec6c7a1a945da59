"""Choose K of N tokens for each sequence in one launch: a whole sequence in the registers of one program, no sort.

The K-th smallest key is found bit by bit by counting; equal keys are cut off by index. ``keep`` and ``masked`` then
come out ascending by prefix sums. Bit-identical to ``fastamr.reference.select_visible``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch, pick
from .philox import STREAM_SELECT, philox_row
from .strides import strides


@triton.jit
def _perturbed(words, score, LARGEST: tl.constexpr):
    """Keys, uint32, whose order is that of score + Gumbel noise made from the words; LARGEST inverts them."""
    # The noise is computed in float64 as in the reference, so that its float32 rounding is the same everywhere.
    uniform = (words.to(tl.float64) + 0.5) / 4294967296.0
    noise = -tl.log(-tl.log(uniform))
    bits = (score + noise.to(tl.float32)).to(tl.uint32, bitcast=True)
    key = tl.where(bits >= 0x80000000, 0xFFFFFFFF - bits, bits + 0x80000000)
    if LARGEST:
        key = 0xFFFFFFFF - key
    return key


@triton.jit
def _smallest(key, member, rank):
    """Which members are among the ``rank`` (0 or more) smallest; of equal keys the lower tokens are."""
    # The largest bound with fewer than `rank` keys below it is the rank-th smallest key.
    bound = tl.zeros([1], tl.uint32)
    step = tl.full([1], 0x80000000, tl.uint32)
    for _ in range(32):
        tried = bound | step
        below = tl.sum((member & (key < tried)).to(tl.int32))
        bound = tl.where(below < rank, tried, bound)
        step = step >> 1
    below = member & (key < bound)
    equal = member & (key == bound)
    wanted = rank - tl.sum(below.to(tl.int32))
    return below | (equal & (tl.cumsum(equal.to(tl.int32)) <= wanted))


@triton.jit
def _select_visible(
    seed, scores, valid, keep, masked, inverse, tokens, visible,
    scores_s, scores_n, valid_s, valid_n,
    LARGEST: tl.constexpr, SHIFTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # seed (2,) int64, SHIFTED (3,) with the number of the first sequence; scores (S, N) floating with strides scores_*,
    # or None; valid (S, N) bool with strides valid_*, or None; contiguous int32 outputs keep (S, K), masked (S, N-K) or
    # None, inverse (S, N) or None.
    # One program per sequence; BLOCK >= N.
    row = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, BLOCK)
    inside = token < tokens
    number = row
    if SHIFTED:
        number = row + tl.load(seed + 2)
    key = philox_row(seed, number, STREAM_SELECT, BLOCK)
    if scores is not None:
        place = row * scores_s + token.to(tl.int64) * scores_n
        key = _perturbed(key, tl.load(scores + place, mask=inside, other=0.0).to(tl.float32), LARGEST)
    if valid is None:
        chosen = _smallest(key, inside, visible)
    else:
        place = row * valid_s + token.to(tl.int64) * valid_n
        sound = inside & (tl.load(valid + place, mask=inside, other=0) != 0)
        count = tl.sum(sound.to(tl.int32))
        # Where the valid tokens do not suffice, all of them are taken and the choice is among the others.
        short = count < visible
        member = tl.where(short, inside & (sound == 0), sound)
        picked = _smallest(key, member, tl.where(short, visible - count, visible))
        chosen = picked | (short & sound)
    rank = tl.cumsum(chosen.to(tl.int32))
    tl.store(keep + row * visible + rank - 1, token, mask=chosen)
    if masked is not None:
        tl.store(masked + row * (tokens - visible) + token - rank, token, mask=inside & (chosen == 0))
    if inverse is not None:
        tl.store(inverse + row * tokens + token, tl.where(chosen, rank - 1, -1), mask=inside)


def _configs(tokens: int) -> tuple[Config, ...]:
    block = max(triton.next_power_of_2(tokens), 16)
    # About eight tokens a thread; more warps wait longer for each other in the 32 counts.
    warps = min(max(block // 256, 1), 32)
    candidates = dict.fromkeys((warps, min(2 * warps, 32), max(warps // 2, 1)))
    return tuple(Config({"BLOCK": block}, num_warps=count) for count in candidates)


def select_visible(
    seed: Tensor,
    sequences: int,
    tokens: int,
    visible: int,
    *,
    scores: Tensor | None,
    largest: bool,
    valid: Tensor | None,
    return_masked: bool,
    return_inverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the selection; the arguments are those of ``fastamr.ops.select_visible``.

    Returns:
        ``keep (S, K)``, ``masked (S, N-K)`` and ``inverse (S, N)``, int32; an output not asked for has 0 columns.
    """
    keep = seed.new_empty((sequences, visible), dtype=torch.int32)
    masked = keep.new_empty((sequences, tokens - visible if return_masked else 0))
    inverse = keep.new_empty((sequences, tokens if return_inverse else 0))

    def run(config: Config) -> None:
        launch(
            _select_visible,
            (sequences,),
            seed.device,
            config,
            seed=seed.contiguous(),
            scores=scores,
            valid=valid,
            keep=keep,
            masked=masked if return_masked else None,
            inverse=inverse if return_inverse else None,
            tokens=tokens,
            visible=visible,
            LARGEST=largest,
            SHIFTED=len(seed) == 3,
            **strides("scores", scores, "sn"),
            **strides("valid", valid, "sn"),
        )

    shape_class = (triton.next_power_of_2(tokens), scores is not None, valid is not None)
    run(pick("select_visible", shape_class, _configs(tokens), run, seed.device))
    return keep, masked, inverse
