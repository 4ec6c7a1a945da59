"""Gates: each op and back end against float64, and whole updates. What a gate did not let through is marked."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
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
from fastamr.models import SkeletonModel, build_model
from fastamr.testing import relative_error
from fastamr.testing.checking import backends_of

from .common import PLAIN, Context, free, say, told
from .judging import Judge, all_cases
from .workers import spread

_TASK_SECONDS, _UPDATES, _CHUNK = 50.0, 20, 8
# A gradient's relative error in all, or twice that of plain PyTorch in the same precision where that is more.
_GRADIENT = {"float32": 1e-4, "bfloat16": 2e-2}


def _tasks(context: Context) -> list[list[Any]]:
    """``[number of the case, back end]``; the CUDA attention's library may be compiled meanwhile, so it comes last."""
    with native.load.without_compiling():
        found = [
            [number, backend]
            for number, (case, _) in enumerate(all_cases(context))
            for backend in backends_of(case, context.device.type, context.dtype)
            if backend not in PLAIN and backend != "cuda"
        ]
    if context.on_gpu:
        found += [
            [number, "cuda"]
            for number, (case, _) in enumerate(all_cases(context))
            if case.op == "visible_attention"
        ]
    return found


def label(context: Context, task: list[Any]) -> dict[str, Any]:
    """What a task is about."""
    case, sizes = all_cases(context)[task[0]]
    return {"gates": [f"{case.op}={task[1]}"], "case": case.label, "sizes": sizes.label, "backend": task[1]}


def gate1(context: Context) -> None:
    """Each op and back end against float64, in several processes."""
    tasks = _tasks(context)
    spread("gate1", tasks, context, seconds=_TASK_SECONDS, label=lambda task: label(context, task))


def check(context: Context, task: list[Any]) -> None:
    """One task of gate 1: what comes out, and all gradients."""
    case, sizes = all_cases(context)[task[0]]
    fields, backend = label(context, task), task[1]
    if backend == "cuda" and (reason := native.why_not("cuda")) is not None:
        return say(**fields, skipped=reason, text=f"{case.label}, cuda: {reason}")
    try:
        worst = Judge(case, sizes, seed=task[0]).worst(backend)
    except RuntimeError as error:
        if "cannot run" not in str(error):
            raise
        del fields["gates"]
        return say(**fields, skipped=str(error))
    finally:
        free(context)
    # A line of the summary for what is wrong; the others are in the results.
    text = f"{case.label}, {sizes.label}, {backend}: {worst:.2f} of the allowed error"
    return say(
        **fields,
        ok=worst <= 1.0,
        of_the_allowed_error=worst,
        **({} if worst <= 1.0 else {"text": text}),
    )


def gate2(context: Context) -> None:
    """Whole updates: every rung of the library's own step against float64; recorded against eager; ``graph=True``."""
    data = ntu_sized(context.sequences).to(context.device)
    options = LadderOptions(sequences=context.sequences, architecture=context.architecture).on(context.device)
    for check in (_check_gradients, _check_recorded):
        with told(check=check.__name__):
            check(context, data)
        free(context)
    # Last the one whose library may still be compiled.
    for rung in sorted(RUNGS, key=lambda rung: bool(rung.backends)):
        if rung.fast and (rung.precision == context.precision or rung.only == "cuda"):
            fields = {"gates": [f"update={rung.name}"], "rung": rung.name}
            with told(**fields):
                _check_rung(context, rung, options, data, fields)
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


def _check_gradients(context: Context, data: Any) -> None:
    """The gradients of the step's first update, against those of float64 and of plain PyTorch in its precision."""
    torch.manual_seed(0)
    model = build_model("amr", context.architecture).to(context.device).train()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    step = FastStep(model, data, sequences=context.sequences, precision=context.precision)
    step()
    found = {name: value.grad.double() for name, value in model.named_parameters() if value.grad is not None}
    clips, keep = step.first_batch()
    truth = _gradients(model, start, clips, keep, torch.float64)
    peer = _gradients(model, start, clips, keep, context.dtype)
    # Some are 0 but for rounding (the bias of keys): a parameter's error is measured by the mean size of all.
    usual = _size(truth.values()) / math.sqrt(len(truth))
    errors = {
        name: ((found[name] - exact).norm() / max(exact.norm().item(), usual)).item()
        for name, exact in truth.items()
    }
    worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    whole = _size(found[name] - exact for name, exact in truth.items()) / _size(truth.values())
    plain = _size(peer[name] - exact for name, exact in truth.items()) / _size(truth.values())
    allowed = max(_GRADIENT[context.precision], 2 * plain)
    say(
        check="gradients",
        gates=["update=gradients"],
        ok=whole <= allowed and errors[worst] <= 4 * allowed,
        error=whole,
        error_of_plain_torch=plain,
        allowed=allowed,
        worst_parameter=worst,
        worst_error=errors[worst],
        text=f"gradients of one update: {whole:.1e} from float64 (plain PyTorch {plain:.1e}, {allowed:.1e} allowed)",
    )


def _size(gradients: Iterable[Tensor]) -> float:
    return math.sqrt(sum(each.double().square().sum().item() for each in gradients))


def _gradients(
    model: SkeletonModel, start: Mapping[str, Tensor], clips: Tensor, keep: Tensor, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Gradients of plain PyTorch, in float64 or with autocast to a dtype, some sequences at a time."""
    exact = copy.deepcopy(model)
    exact.load_state_dict(start)
    exact = exact.double() if dtype == torch.float64 else exact
    exact.zero_grad(set_to_none=True)
    low = dtype in (torch.bfloat16, torch.float16)
    with ops.reference_only(), torch.autocast(clips.device.type, dtype=dtype if low else None, enabled=low):
        for first in range(0, len(clips), _CHUNK):
            part = slice(first, first + _CHUNK)
            given = clips[part].to(torch.float64 if dtype == torch.float64 else torch.float32)
            loss = exact(given, keep=keep[part].int()) * (len(given) / len(clips))
            loss.backward()
    return {name: value.grad.double() for name, value in exact.named_parameters() if value.grad is not None}
