"""Products one by one: the library's against every back end and every tile of the kernels, each in a graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from fastamr import ops
from fastamr.testing.checking import backends_of, copied
from fastamr.testing.op_cases import Arguments, Case
from fastamr.testing.op_sizes import Sizes

from . import candidates
from .common import PLAIN, Context, free, milliseconds, say, told
from .judging import Judge, product_cases


def products(context: Context) -> None:
    """Every kind of call on flat rows that a step of pre-training has, until time is up."""
    waiting = [(case, sizes) for case, sizes in product_cases(context) if not case.variant]
    while waiting and context.left > 0:
        case, sizes = waiting.pop(0)
        with told(case=case.label, sizes=sizes.label):
            measure_call(context, case, sizes)
        free(context)
    if waiting:
        say(text=f"no time was left for {len(waiting)} calls: {', '.join(case.label for case, _ in waiting)}")


def alone(given: Arguments) -> Callable[[], object] | None:
    """The library's bare product of these arguments, a floor for every form that is made of it; None without one."""
    if "pairs" in given:
        parts = [alone({"upstream": upstream, "x": x}) for upstream, x in given["pairs"]]
        return lambda: [part() for part in parts if part is not None]
    x, weight, upstream = (given.get(name) for name in ("x", "weight", "upstream"))
    if x is not None and weight is not None:
        return lambda: torch.mm(x, weight.T)
    if upstream is not None and weight is not None:
        return lambda: torch.mm(upstream, weight)
    if upstream is not None and x is not None and "gamma" not in given:
        return lambda: torch.mm(upstream.T, x)
    return None


def flops(case: Case, sizes: Sizes) -> float:
    """Operations of the product that a call holds; 0 for one without."""
    if alone(case.arguments(sizes)) is None:
        return 0.0
    # The four weights of a block: two of the inner size, one square, one of three widths.
    inner = 2 * sizes.hidden + 4 * sizes.width if case.name == "weight_gradients" else sizes.hidden
    return 2.0 * sizes.rows * sizes.width * inner


def forms_of(context: Context, case: Case, sizes: Sizes) -> list[tuple[str, int]]:
    """Back ends that can run a call, each with the number of its candidate, 0 where there is no choice."""
    found = []
    for backend in backends_of(case, context.device.type, context.dtype):
        if backend not in PLAIN:
            tiles = candidates.of(case, sizes) if backend == "triton" else []
            found += [(backend, place) for place in range(max(len(tiles), 1))]
    return found


def measure_call(context: Context, case: Case, sizes: Sizes) -> None:
    """One call: the bare product, each back end, each tile; one line of the summary."""
    fields = {"case": case.label, "sizes": sizes.label, "rows": sizes.rows, "inner": sizes.hidden}
    judge = Judge(case, sizes)
    given, work = copied(judge.given), flops(case, sizes)
    floor = alone(given)
    words = []
    if floor is not None:
        found = milliseconds(floor, context)
        say(**fields, form="bare product", **found, tflops=work / found["ms"] / 1e9)
        words.append(f"bare product {found['ms']:.4f}")
    tiles = candidates.of(case, sizes) if "triton" in backends_of(case, context.device.type) else []
    for backend, place in forms_of(context, case, sizes):
        form = f"{backend}#{place}" if place else backend
        about = fields | {"form": form, "uses": [f"{case.op}={backend}"]}
        if backend == "triton" and tiles:
            about["tiles"] = candidates.in_words(tiles[place])
        with told(**about):
            found = measure_form(context, judge, given, backend, place)
            say(**about, **found, tflops=work / found["ms"] / 1e9)
            words.append(f"{form} {found['ms']:.4f}{'' if found['ok'] else ' WRONG'}")
    say(**fields, text=f"{case.label}, {sizes.label}, ms: {', '.join(words)}")


def measure_form(
    context: Context, judge: Judge, given: Arguments, backend: str, place: int
) -> dict[str, Any]:
    """Judge and time one form of a call."""
    triton = candidates.taking(place) if backend == "triton" else contextlib.nullcontext()
    with triton, ops.backend(**{judge.case.op: backend}):
        worst = judge.worst(backend)
        found = milliseconds(judge.case.bind(given), context)
    return {"ok": worst <= 1.0, "of_the_allowed_error": worst, **found}
