"""Choose the visible tokens of each sequence."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from .. import reference
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import check_device, check_seed, check_shape, check_tensor
from .common.registration import fake_of
from .common.triton_support import TRITON

declare("select_visible", TRITON, Backend("reference", can_always))

_INDEX_LIMIT = 1 << 24
# What a Triton program holds in its registers and exchanges through shared memory, without spills.
_TRITON_LIMIT = 8192


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
    return_inverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from ..kernels.select_visible import select_visible as run
    else:
        run = reference.select_visible
    return run(
        seed,
        sequences,
        tokens,
        visible,
        scores=scores,
        largest=largest,
        valid=valid,
        return_masked=return_masked,
        return_inverse=return_inverse,
    )


@fake_of(_op)
def _(
    seed: Tensor, sequences: int, tokens: int, visible: int, return_masked: bool, return_inverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    keep = seed.new_empty((sequences, visible), dtype=torch.int32)
    masked = keep.new_empty((sequences, tokens - visible if return_masked else 0))
    return keep, masked, keep.new_empty((sequences, tokens if return_inverse else 0))


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
    return_inverse: Literal[False] = False,
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
    return_masked: bool = False,
    return_inverse: bool = False,
) -> tuple[Tensor, ...]: ...


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
    return_inverse: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """Choose ``visible`` of ``tokens`` tokens for each sequence, uniformly or driven by scores.

    Every back end returns the identical choice for a seed: token ``n`` of sequence ``s`` draws word ``(s, n)`` of
    Philox-4x32-10; the smallest words win, the index breaks ties. With scores, Gumbel noise made from that word is
    added (Gumbel top-K) and the smallest sums win, as in MAMP, or the largest.

    Args:
        seed: ``(2,)`` int64, key and counter, on the device of the result; or ``(3,)``, where the third is the number
            of the first sequence (0 otherwise).
        sequences: S, at least 0.
        tokens: N, 1 to 2**24.
        visible: K, 1 to N.
        scores: ``(S, N)`` log-weights; None chooses uniformly.
        largest: keep the largest perturbed scores instead of the smallest.
        valid: ``(S, N)`` bool; invalid tokens are chosen only when nothing else is left.
        return_masked: also return the complement.
        return_inverse: also return where each token went.

    Returns:
        ``keep (S, K)`` int32, ascending; with ``return_masked`` also ``masked (S, N-K)`` int32, ascending; with
        ``return_inverse`` also, and last, ``inverse (S, N)`` int32: a token's position in ``keep``, or -1.

    Raises:
        ValueError: K outside 1..N, or a shape that does not fit.
        TypeError: a wrong dtype.
    """
    check_seed(seed, may_shift=True)
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
    refusals = (f"more than {_TRITON_LIMIT} tokens",) if tokens > _TRITON_LIMIT else ()
    dtype = torch.float32 if scores is None else scores.dtype
    name = choose("select_visible", Problem(seed.device.type, dtype, (), {"sequences": sequences}, refusals))
    keep, masked, inverse = _op(
        seed, sequences, tokens, visible, scores, largest, valid, return_masked, return_inverse, name
    )
    outputs = (keep, *(masked,) * return_masked, *(inverse,) * return_inverse)
    return keep if len(outputs) == 1 else outputs
