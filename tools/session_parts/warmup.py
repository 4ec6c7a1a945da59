"""Compiles what the later parts launch: Triton's kernels at the paper's shapes, with all tiles, into one cache."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from fastamr.testing.checking import backends_of, copied, results

from . import candidates
from .common import Context, free, say
from .judging import INNER, all_cases
from .workers import spread

_TASK_SECONDS = 60.0


def _tasks(context: Context) -> list[list[int]]:
    """``[number of the case, number of the candidate]``; the defaults first, which everything needs."""
    runs = [
        number
        for number, (case, _) in enumerate(all_cases(context))
        if "triton" in backends_of(case, context.device.type, context.dtype)
    ]
    chosen = [number for number in runs if all_cases(context)[number][0].name in INNER]
    others = [
        [number, place]
        for number in chosen
        for place in range(1, len(candidates.of(*all_cases(context)[number])))
    ]
    return [[number, 0] for number in runs] + others


def label(context: Context, task: list[int]) -> dict[str, Any]:
    """What a task is about."""
    case, sizes = all_cases(context)[task[0]]
    return {"case": case.label, "sizes": sizes.label, "candidate": task[1]}


def warmup(context: Context) -> None:
    """All kernels, in several processes; what does not compile is a result, the rest one line."""
    tasks, began = _tasks(context), time.monotonic()
    if not tasks:
        return say(skipped="Triton cannot run here")
    spread("warmup", tasks, context, seconds=_TASK_SECONDS, label=lambda task: label(context, task))
    seconds = time.monotonic() - began
    return say(
        tasks=len(tasks), seconds=seconds, text=f"{len(tasks)} calls compiled and run in {seconds:.0f} s"
    )


def warm(context: Context, task: list[int]) -> None:
    """Run one call, forward and backward, with one candidate."""
    number, place = task
    case, sizes = all_cases(context)[number]
    given = case.arguments(dataclasses.replace(sizes, grad=True))
    began = time.monotonic()
    with candidates.taking(place):
        results(case, copied(given), "triton")
    free(context)  # waits
    say(**label(context, task), seconds=time.monotonic() - began)
