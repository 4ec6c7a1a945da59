"""Gates: each op and back end against float64, and whole updates. What a gate did not let through is marked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastamr import native, ops
from fastamr.benchmarking import RUNGS, LadderOptions
from fastamr.benchmarking.ladder import TOLERANCES, Row, checked_step
from fastamr.benchmarking.ntu_sized import ntu_sized
from fastamr.benchmarking.rungs import Rung, why_not
from fastamr.benchmarking.step import FastStep
from fastamr.benchmarking.timing import PeakMemory
from fastamr.models import build_model
from fastamr.testing import relative_error
from fastamr.testing.calls import backends_of, cast, copied, results
from fastamr.testing.op_cases import CASES, Arguments, Case
from fastamr.testing.op_sizes import Sizes

from .common import PLAIN, Context, free, say, told
from .workers import spread

# Relative errors that a result of this dtype may have; or twice the error of plain PyTorch where that is more.
_ALLOWED = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}
# Ids and flags that may differ from the reference's in the same dtype: ties that float32 rounds either way.
_MAY_DIFFER = 1e-3
# Ops on flat rows: their cases run with the sizes of every product, see Context.product_sizes.
ROW_OPS = ("linear_gelu", "linear_residual_norm", "row_linear", "row_norm", "weight_gradient")
_CUDA_SECONDS, _UPDATES = 50.0, 20


def _attention_cases(context: Context) -> Iterator[Case]:
    """Self-attention of 75 tokens and cross-attention of 125 to 75, as the paper's model has them."""
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

    for cross, shape in ((False, f"{visible}x{visible}"), (True, f"{queries}x{visible}")):
        yield dataclasses.replace(plain, variant=shape, arguments=lambda s, cross=cross: arguments(s, cross))
        yield dataclasses.replace(into, variant=shape, arguments=lambda s, cross=cross: backward(s, cross))


def cases(context: Context) -> list[tuple[Case, Sizes]]:
    """Every kind of call with the sizes that it is checked at; attention, which may wait for a compiler, last."""
    first, last = [], []
    for case in CASES:
        if case.op in ROW_OPS:
            first += [(case, sizes) for sizes in context.product_sizes()]
        else:
            (last if case.op == "visible_attention" else first).append((case, context.sizes()))
    return first + last + [(case, context.sizes()) for case in _attention_cases(context)]


def _tasks(context: Context) -> list[list[Any]]:
    """``[number of the case, back end]``; the CUDA attention's library may be compiled meanwhile, so it comes last."""
    with native.load.without_compiling():
        found = [
            [number, backend]
            for number, (case, _) in enumerate(cases(context))
            for backend in backends_of(case, context.device.type, context.dtype)
            if backend not in PLAIN and backend != "cuda"
        ]
    if context.on_gpu:
        found += [
            [number, "cuda"]
            for number, (case, _) in enumerate(cases(context))
            if case.op == "visible_attention"
        ]
    return found


def label(context: Context, task: list[Any]) -> dict[str, Any]:
    """What a task is about."""
    case, sizes = cases(context)[task[0]]
    return {"gates": [f"{case.op}={task[1]}"], "case": case.label, "sizes": sizes.label, "backend": task[1]}


def gate1(context: Context) -> None:
    """Each op and back end against float64, in several processes."""
    named = [label(context, task) for task in _tasks(context)]
    tasks = _tasks(context)
    by_task = {tuple(task): fields for task, fields in zip(tasks, named, strict=True)}
    spread("gate1", tasks, context, seconds=_CUDA_SECONDS, label=lambda task: by_task[tuple(task)])


def check(context: Context, task: list[Any]) -> None:
    """One task of gate 1: what comes out, and all gradients."""
    case, sizes = cases(context)[task[0]]
    fields, backend = label(context, task), task[1]
    if backend == "cuda" and (reason := native.why_not("cuda")) is not None:
        return say(**fields, ok=False, error=reason, text=f"{case.label}, cuda: {reason}")
    torch.manual_seed(task[0])
    given = case.arguments(dataclasses.replace(sizes, grad=True))
    truth = results(case, cast(given, torch.float64), "reference")
    peer = results(case, copied(given), "reference")
    try:
        found = results(case, copied(given), backend)
    except RuntimeError as error:
        if "cannot run" not in str(error):
            raise
        del fields["gates"]
        return say(**fields, skipped=str(error))
    ratios = [_ratio(*three) for three in zip(found, truth, peer, strict=True)]
    # NaN is the worst.
    worst = max((math.inf if math.isnan(ratio) else ratio for ratio in ratios), default=0.0)
    text = f"{case.label}, {sizes.label}, {backend}: {worst:.2f} of the allowed error"
    return say(**fields, ok=worst <= 1.0, of_the_allowed_error=worst, text=text)


def _ratio(found: Tensor, truth: Tensor, peer: Tensor) -> float:
    """The error of a result over what it may be."""
    if found.shape != truth.shape:
        return math.inf
    if not found.is_floating_point():
        return (found != peer).double().mean().item() / _MAY_DIFFER if found.numel() else 0.0
    allowed = max(_ALLOWED.get(found.dtype, 1e-12), 2 * relative_error(peer, truth))
    return relative_error(found, truth) / allowed


def gate2(context: Context) -> None:
    """Whole updates: every rung of the library's own step against float64; recorded against eager; ``graph=True``."""
    data = ntu_sized(context.sequences).to(context.device)
    options = LadderOptions(sequences=context.sequences, architecture=context.architecture).on(context.device)
    for rung in RUNGS:
        if rung.fast and (rung.precision == context.precision or rung.only == "cuda"):
            fields = {"gates": [f"update={rung.name}"], "rung": rung.name}
            with told(**fields):
                _check_rung(context, rung, options, data, fields)
            free(context)
    with told(check="eager against recorded"):
        _check_recorded(context, data)
    free(context)


def _check_rung(
    context: Context, rung: Rung, options: LadderOptions, data: Any, fields: dict[str, Any]
) -> None:
    reason = why_not(rung, context.device, named=True)
    if reason is not None:
        return say(**fields, skipped=reason)
    row = Row(rung.name, rung.title, rung.model, rung.fast, rung.is_released)
    with ops.backend(**dict(rung.backends)):
        step = checked_step(rung, row, options, data, PeakMemory(context.device))
    assert isinstance(step, FastStep)
    recorded = step.is_graph or not context.on_gpu
    text = f"{rung.name}: loss {row.error:.1e} from float64, {row.tolerance:g} allowed"
    if not recorded:
        text += f", NOT recorded: {step.graph_reason}"
    return say(
        **fields,
        ok=recorded,
        loss=row.loss,
        error_of_loss=row.error,
        tolerance=row.tolerance,
        recorded=step.is_graph,
        graph_reason=step.graph_reason,
        prepare_seconds=row.prepare_seconds,
        text=text,
    )


def _check_recorded(context: Context, data: Any) -> None:
    """Losses of 20 updates and the weights after them; ``graph=True`` raises where it cannot be recorded."""
    if not context.on_gpu:
        say(check="graph=True", skipped="CUDA graphs need an NVIDIA GPU")
    found: list[tuple[Tensor, Tensor]] = []
    for graph in (False, True if context.on_gpu else "auto"):
        torch.manual_seed(0)
        model = build_model("amr", context.architecture).to(context.device).train()
        step = FastStep(model, data, sequences=context.sequences, precision=context.precision, graph=graph)
        losses = torch.stack([step().clone() for _ in range(_UPDATES)])
        found.append((losses, torch.cat([value.detach().flatten().clone() for value in model.parameters()])))
        del step, model
        free(context)
    (losses, weights), (other_losses, other_weights) = found
    apart = (losses - other_losses).abs().div(losses.abs()).max().item()
    same = bool(torch.equal(losses, other_losses) and torch.equal(weights, other_weights))
    say(
        check="eager against recorded",
        updates=_UPDATES,
        ok=apart <= TOLERANCES[context.precision],
        losses_apart=apart,
        weights_apart=relative_error(other_weights, weights),
        same_bits=same,
        text=f"{_UPDATES} updates, eager against recorded: losses {apart:.1e} apart, same bits: {same}",
    )
