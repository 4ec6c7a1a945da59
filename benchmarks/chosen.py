"""The last lines of a benchmark run: each op's chosen back end beside the best other form, and a step's speed-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from fastamr import ops
from fastamr.benchmarking import RUNGS
from fastamr.benchmarking.ladder import Ladder
from fastamr.benchmarking.ladder_report import last_line, ratio_lines
from fastamr.benchmarking.rungs import Row
from fastamr.ops.common.backends import Problem, choose, watched
from fastamr.tables import aligned, figure

# Medians of one form in one run differ by so much without a reason.
NOISE = 0.1
# What parts the cases of an op beside its shape and dtype.
_PARTS = ("stage", "kind", "method", "backward", "case", "precision", "storage", "rows")

Timed = tuple[float, dict[str, Any]]
"""Median seconds and ``extra_info`` of a case."""


def automatic(
    op: str, function: Callable[[], object], device: torch.device, dtype: torch.dtype | str
) -> str | None:
    """Return the back end that ``auto`` takes for a call; None for what is no op of the library.

    Args:
        op: name of the case, which begins with the op's.
        function: makes the call; where it names a back end, its problem is put to ``auto`` all the same.
        device: where it runs.
        dtype: that it computes in, for a function that calls no op.
    """
    known = [name for name in ops.availability(device.type) if op.startswith(name)]
    if not known:
        return None
    name = max(known, key=len)
    with watched() as calls:
        function()
    problems = [problem for called, problem, _ in calls if called == name]
    kind = getattr(torch, str(dtype).removeprefix("torch."), torch.float32)
    return choose(name, problems[-1] if problems else Problem(device.type, kind), "auto")


def op_lines(cases: Iterable[Timed]) -> list[str]:
    """A line for each op and dtype: its worst case, the chosen back end beside the best other form.

    Args:
        cases: of all benchmarks; those that are no op are passed over.
    """
    groups: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    chosen: dict[tuple[str, str, str], dict[str, str]] = {}
    for seconds, info in cases:
        if info.get("auto") is not None:
            group = (info["op"], info["dtype"], "GPU" if "in_graph" in info else "CPU")
            case = " ".join(map(str, [*info["shape"], *(info[part] for part in _PARTS if part in info)]))
            # On a GPU the time on the device counts, not that of the launches.
            seconds = info.get("device_us_cold", seconds * 1e6) / 1e6
            groups.setdefault(group, {}).setdefault(case, {})[info["backend"]] = seconds
            chosen.setdefault(group, {})[case] = info["auto"]
    lines, alone = [], []
    for group, found in groups.items():
        compared = [
            line for case, times in found.items() if (line := _compared(case, times, chosen[group][case]))
        ]
        if compared:
            lines.append(_line(group, compared))
        else:
            alone.append(" ".join(group[:2]))
    table = [
        ["op", "dtype", "on", "cases", "auto", "us", "best other", "us", "ratio", "", "worst case"],
        *lines,
    ]
    text = aligned(table, left=(0, 1, 2, 4, 6, 9, 10)).splitlines() if lines else []
    if alone:
        text.append(f"nothing to compare with here: {', '.join(sorted(alone))}")
    return text


def _compared(case: str, times: dict[str, float], auto: str) -> tuple[float, list[str]] | None:
    """The time of the chosen form over that of the best other one, with the words of the line; None for one form."""
    others = {form: seconds for form, seconds in times.items() if form != auto}
    if not others:
        return None
    best = min(others, key=lambda form: others[form])
    if auto not in times:
        return 0.0, [auto, "not timed", best, figure(others[best] * 1e6), "", "", case]
    ratio = times[auto] / others[best]
    words = [auto, figure(times[auto] * 1e6), best, figure(others[best] * 1e6), f"{ratio:.2f}"]
    return ratio, [*words, "slower" if ratio > 1 + NOISE else "", case]


def _line(group: tuple[str, str, str], compared: Sequence[tuple[float, list[str]]]) -> list[str]:
    slower = sum(ratio > 1 + NOISE for ratio, _ in compared)
    count = f"{slower} of {len(compared)} slower" if slower else str(len(compared))
    return [*group, count, *max(compared, key=lambda each: each[0])[1]]


def ladder_lines(cases: Iterable[Timed]) -> list[str]:
    """The speed-up over SkeletonMAE (released, best PyTorch, by the same step) and over plain AMR, for each device.

    Args:
        cases: of all benchmarks; those that are no rung are passed over.
    """
    rungs = {rung.name: rung for rung in RUNGS}
    ladders: dict[str, Ladder] = {}
    for seconds, info in cases:
        if info.get("rung_name") in rungs:
            rung = rungs[info["rung_name"]]
            row = Row(rung.name, info["rung"], rung.model, rung.fast, rung.is_released, ms=seconds * 1e3)
            device = info["device"]
            ladder = ladders.setdefault(device, Ladder({}, info["shape"][0], info["shape"], {}, []))
            ladder.rows.append(row)
    lines = []
    for device, ladder in ladders.items():
        lines.append(f"{device}, {' x '.join(map(str, ladder.clip_shape))} (S x T x V x C)")
        lines += [*ratio_lines(ladder), last_line(ladder)]
    return lines
