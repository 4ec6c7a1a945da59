"""How far results may be from float64, and which calls are judged at which sizes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastamr.testing import relative_error
from fastamr.testing.checking import cast, copied, results
from fastamr.testing.op_cases import CASES, Arguments, Case
from fastamr.testing.op_sizes import Sizes

from .common import Context

# Relative errors that a result of this dtype may have, or twice the error of plain PyTorch where that is more. Sums of
# 32,000 rows in float32 keep 1e-5; TF32, a lost row and a value that was rounded to 16 bits are far beyond it.
_ALLOWED = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
# Ids and flags that may differ from the reference's in the same dtype: ties that float32 rounds either way.
_MAY_DIFFER = 1e-3
# Ops on flat rows, with the inner sizes that the paper's model has for them; each at the rows of encoder and decoder.
INNER = {
    "linear_gelu": (1024,),
    "linear_gelu_backward": (1024,),
    "linear_residual_norm": (1024, 256),
    "linear_residual_norm_backward": (1024, 768, 256),
    "row_linear": (768, 256),
    "row_linear_backward": (768, 256),
    "row_norm": (256,),
    "row_norm_backward": (256,),
    "weight_gradient": (1024, 768, 256),
    "weight_gradients": (1024,),
}


def ratio(found: Tensor, truth: Tensor, peer: Tensor) -> float:
    """The error of a result over what it may be; above 1 it is wrong.

    Args:
        found: the result.
        truth: in float64.
        peer: of the reference in the result's dtype.
    """
    if found.shape != truth.shape:
        return math.inf
    if not found.is_floating_point():
        return (found != peer).double().mean().item() / _MAY_DIFFER if found.numel() else 0.0
    allowed = max(_ALLOWED.get(found.dtype, 1e-12), 2 * relative_error(peer, truth))
    return relative_error(found, truth) / allowed


class Judge:
    """Judges back ends by one call: the same arguments for all, the truth computed once.

    Args:
        case: the kind of call.
        sizes: of its arguments.
        seed: of their values.
    """

    def __init__(self, case: Case, sizes: Sizes, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.case = case
        self.given = case.arguments(dataclasses.replace(sizes, grad=True))
        self._truth = results(case, cast(self.given, torch.float64), "reference")
        self._peer = results(case, copied(self.given), "reference")

    def worst(self, backend: str) -> float:
        """The largest :func:`ratio` of all that comes out of a call, gradients included.

        Raises:
            RuntimeError: the back end cannot run the call.
        """
        found = results(self.case, copied(self.given), backend)
        ratios = [ratio(*three) for three in zip(found, self._truth, self._peer, strict=True)]
        # NaN is the worst.
        return max((math.inf if math.isnan(each) else each for each in ratios), default=0.0)


def attention_cases(context: Context) -> list[Case]:
    """Self-attention of 75 tokens and cross-attention of 125 to 75, as the paper's model has them, and backwards."""
    heads, size = (2, 16) if context.small else (8, 32)
    visible, queries = (6, 4) if context.small else (75, 125)
    plain, into = (
        next(case for case in CASES if case.name == name)
        for name in ("visible_attention", "visible_attention_backward_into")
    )

    def arguments(s: Sizes, cross: bool) -> Arguments:
        q = s.leaf(s.sequences, *((queries,) if cross else (visible, 3)), heads, size, dtype=s.low)
        kv = s.leaf(s.sequences, visible, 2, heads, size, dtype=s.low) if cross else None
        return plain.arguments(s) | {"q": q, "kv": kv, "scale": size**-0.5}

    def backward(s: Sizes, cross: bool) -> Arguments:
        given = copied(arguments(dataclasses.replace(s, grad=False), cross))
        out, lse = torch.ops.fastamr.visible_attention(**given, backend="reference")
        targets = {"dq": torch.empty_like(given["q"]), "dkv": copied(given["kv"])}
        columns = None if cross else s.normal(3, heads, size)
        saved = {"grad": s.normal(*out.shape, dtype=s.low), "out": out, "lse": lse, "columns": columns}
        return saved | given | targets

    def at(case: Case, make: Callable[[Sizes, bool], Arguments], cross: bool) -> Case:
        shape = f"{queries if cross else visible}x{visible}"
        return dataclasses.replace(case, variant=shape, arguments=lambda s: make(s, cross))

    return [at(*each, cross) for cross in (False, True) for each in ((plain, arguments), (into, backward))]


def product_cases(context: Context) -> Iterator[tuple[Case, Sizes]]:
    """Every kind of call on flat rows, with the sizes of the paper's model."""
    for case in CASES:
        for inner in INNER.get(case.name, ())[: 1 if context.small else None]:
            for sizes in context.row_sizes(inner):
                yield case, sizes


@functools.cache
def all_cases(context: Context) -> list[tuple[Case, Sizes]]:
    """Every kind of call with the sizes that it is checked at; attention, which may wait for a compiler, last."""
    others = [case for case in CASES if case.name not in INNER]
    last = [case for case in others if case.op == "visible_attention"]
    small = [(case, context.sizes()) for case in others if case not in last]
    return [
        *small,
        *product_cases(context),
        *((case, context.sizes()) for case in (*attention_cases(context), *last)),
    ]
