"""Choose the visible tokens of each sequence."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from .. import reference
from .backends import Backend, Problem, can_always, choose, declare
from .checks import check_device, check_seed, check_shape, check_tensor

declare("select_visible", Backend("reference", can_always))

_INDEX_LIMIT = 1 << 24


@torch.library.custom_op("fastamr::select_visible", mutates_args=())
def _op(
    seed: Tensor,
    sequences: int,
    tokens: int,
    visible: int,
    scores: Tensor | None,
    largest: bool,
    valid: Tensor | None,
    return_masked: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    chosen = reference.select_visible(
        seed,
        sequences,
        tokens,
        visible,
        scores=scores,
        largest=largest,
        valid=valid,
        return_masked=return_masked,
    )
    if isinstance(chosen, Tensor):
        return chosen, chosen.new_empty(sequences, 0)
    return chosen


@_op.register_fake
def _(
    seed: Tensor,
    sequences: int,
    tokens: int,
    visible: int,
    scores: Tensor | None,
    largest: bool,
    valid: Tensor | None,
    return_masked: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    keep = seed.new_empty((sequences, visible), dtype=torch.int32)
    return keep, keep.new_empty((sequences, tokens - visible if return_masked else 0))


@overload
def select_visible(
    seed: Tensor,
    sequences: int,
    tokens: int,
    visible: int,
    *,
    scores: Tensor | None = None,
    largest: bool = False,
    valid: Tensor | None = None,
    return_masked: Literal[False] = False,
) -> Tensor: ...


@overload
def select_visible(
    seed: Tensor,
    sequences: int,
    tokens: int,
    visible: int,
    *,
    scores: Tensor | None = None,
    largest: bool = False,
    valid: Tensor | None = None,
    return_masked: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def select_visible(
    seed: Tensor,
    sequences: int,
    tokens: int,
    visible: int,
    *,
    scores: Tensor | None = None,
    largest: bool = False,
    valid: Tensor | None = None,
    return_masked: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Choose ``visible`` of ``tokens`` tokens for each sequence, uniformly or driven by scores.

    Every back end returns the identical choice for a seed: token ``n`` of sequence ``s`` draws word ``(s, n)`` of
    Philox-4x32-10; the smallest words win, the index breaks ties. With scores, Gumbel noise made from that word is
    added (Gumbel top-K) and the smallest sums win, as in MAMP, or the largest.

    Args:
        seed: ``(2,)`` int64, key and counter, on the device of the result.
        sequences: S, at least 0.
        tokens: N, 1 to 2**24.
        visible: K, 1 to N.
        scores: ``(S, N)`` log-weights; None chooses uniformly.
        largest: keep the largest perturbed scores instead of the smallest.
        valid: ``(S, N)`` bool; invalid tokens are chosen only when nothing else is left.
        return_masked: also return the complement.

    Returns:
        ``keep (S, K)`` int32, ascending; with ``return_masked`` also ``masked (S, N-K)`` int32, ascending.

    Raises:
        ValueError: K outside 1..N, or a shape that does not fit.
        TypeError: a wrong dtype.
    """
    check_seed(seed)
    if sequences < 0:
        raise ValueError(f"sequences={sequences} must be at least 0")
    if not 1 <= tokens <= _INDEX_LIMIT:
        raise ValueError(f"tokens={tokens} must lie in 1..{_INDEX_LIMIT}")
    if not 1 <= visible <= tokens:
        raise ValueError(f"visible={visible} must lie in 1..tokens={tokens}: lower or raise the mask ratio")
    if scores is not None:
        check_tensor("scores", scores, 2, "(S, N)")
        check_shape("scores", scores, (sequences, tokens), "(S, N)")
        check_device("scores", scores, seed.device, "seed")
        scores = scores.detach()
    if valid is not None:
        check_tensor("valid", valid, 2, "(S, N)", (torch.bool,))
        check_shape("valid", valid, (sequences, tokens), "(S, N)")
        check_device("valid", valid, seed.device, "seed")
    name = choose("select_visible", Problem(seed.device.type, torch.float32))
    keep, masked = _op(seed, sequences, tokens, visible, scores, largest, valid, return_masked, name)
    return (keep, masked) if return_masked else keep
