"""Draw which residual branches each sequence keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import reference
from ..reference.drop_path_scales import rate_table
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import check_seed
from .common.registration import fake_of
from .common.triton_support import TRITON

declare("drop_path_scales", TRITON, Backend("reference", can_always))

_MOST_BRANCHES = 4096


@torch.library.custom_op("fastamr::drop_path_scales", mutates_args=())
def _op(seed: Tensor, rates: Sequence[float], sequences: int, backend: str) -> Tensor:
    if backend == "triton":
        from ..kernels.drop_path_scales import drop_path_scales as kernel

        return kernel(seed, rate_table(rates, seed.device), sequences)
    return reference.drop_path_scales(seed, rates, sequences)


@fake_of(_op)
def _(seed: Tensor, rates: Sequence[float], sequences: int) -> Tensor:
    return seed.new_empty((len(rates), sequences), dtype=torch.float32)


def drop_path_scales(
    seed: Tensor, rates: Sequence[float], sequences: int, *, backend: str | None = None
) -> Tensor:
    """Factors of residual branches: 0 where a sequence drops the branch, ``1 / (1 - rate)`` where it keeps it.

    Every back end gives the identical factors for a seed: branch ``r`` of sequence ``s`` draws word ``(s, r)`` of
    Philox-4x32-10 and is dropped where that is below ``rate * 2**32``. So a branch's factors depend neither on the
    other branches' rates nor on how many sequences there are. Nothing waits for a GPU.

    Args:
        seed: ``(2,)`` int64, key and counter, on the device of the result; or ``(3,)``, where the third is the number
            of the first sequence (0 otherwise).
        rates: R shares of dropped sequences, each at least 0 and below 1.
        sequences: S, at least 0.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``(R, S)`` float32.

    Raises:
        ValueError: a rate or a number of sequences out of range, a seed of another shape.
        TypeError: a wrong dtype.
        RuntimeError: the named back end cannot run the call.
    """
    check_seed(seed, may_shift=True)
    if sequences < 0:
        raise ValueError(f"sequences={sequences} must be at least 0")
    for rate in rates:
        if not 0 <= rate < 1:
            raise ValueError(f"rates holds {rate}: each must be at least 0 and below 1, for example 0.1")
    refusals = (f"more than {_MOST_BRANCHES} branches",) if len(rates) > _MOST_BRANCHES else ()
    problem = Problem(seed.device.type, torch.float32, (), {"sequences": sequences}, refusals)
    return _op(seed, list(rates), sequences, choose("drop_path_scales", problem, backend))
