"""A few rungs of the ladder, each checked first, then timed in turns until the time is up."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..ladder import LadderOptions, begin, caught, checked_step, fill_in, update_flops
from ..machine import matmul_rate
from ..plain_step import PlainStep
from ..rungs import RUNGS, Ladder, Row, Rung, choose_rungs
from ..step import FastStep, preparation_on
from ..timing import PeakMemory, duration, measure

# In the order in which they are prepared: what the answer needs most comes first.
_WANTED = {
    "cpu": (
        "fastamr-fp32", "amr-fp32", "mae-fp32", "mae-sdpa-fp32", "fastamr-bf16", "amr-bf16", "mae-sdpa",
        "fastmae-fp32", "fastmae-bf16",
    ),
    "cuda": ("fastamr-bf16", "amr-bf16", "mae-fp32", "mae-sdpa", "amr-tf32", "mae-tf32", "fastmae-bf16"),
}  # fmt: skip
# Without these there is no answer: they are never left out.
_NEEDED = 3
# Of the time, for building, checking and first updates; what is left is for the turns.
_PREPARING = 0.6
# Updates that building, the first update, its check in float64 and the one before the turns cost.
_CHECKING = 4
_FEWEST_TURNS, _MOST_TURNS = 2, 20
# An update takes about so many times as long as its linear layers' FLOPs at the rate of one large float32 product.
_SLOWER, _CPU_SEQUENCES = 3.0, (8, 4, 2)
_TELL_EVERY = 5.0


@dataclass(frozen=True)
class QuickOptions:
    """What :func:`run_quick` runs.

    Attributes:
        sequences: S; by default 256 on a GPU, on a CPU 8, or as many fewer as its products are too slow for 8.
        seconds: how long it may take; a rung that would not fit is left out, which the table says.
        architecture: settings that both models share; the papers' by default.

    Raises:
        ValueError: a setting that is not shared by the models, or a number that is not positive.
    """

    sequences: int | None = None
    seconds: float = 100.0
    architecture: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}, expected more than 0")
        self.ladder()

    def ladder(self) -> LadderOptions:
        """The same as options of the ladder, without warm-up."""
        return LadderOptions(self.sequences, rounds=1, warmup=0, architecture=self.architecture)


@dataclass
class _Runner:
    """A rung that is ready to be timed."""

    rung: Rung
    row: Row
    step: PlainStep | FastStep
    times: list[float] = field(default_factory=list)


def run_quick(
    options: QuickOptions, device: torch.device, *, say: Callable[[str], None] = lambda line: None
) -> Ladder:
    """Prepare and check the rungs one after another, then time one update of each in turns.

    What else the machine does falls on all of them alike. A rung that cannot run, that disagrees with float64, or for
    which the time does not suffice, is listed with the reason. ``torch.compile`` has no place here: it takes longer.

    Args:
        options: what to run.
        device: where.
        say: is called with a line of progress.

    Returns:
        The rungs in the ladder's order.
    """
    began = time.perf_counter()
    given = options.ladder().on(device)
    chosen = {rung.name: (rung, reason) for rung, reason in choose_rungs((), device)}
    wanted = [chosen[name] for name in _WANTED[device.type]]
    flops = update_flops([rung for rung, _ in wanted], given)
    if options.sequences is None and device.type == "cpu":
        running = sum(flops[rung.name] for rung, reason in wanted if reason is None)
        given = dataclasses.replace(given, sequences=_fitting(running, options.seconds, device))
    _, ladder, data = begin(given, device)
    ready: list[_Runner] = []
    pace = 0.0  # seconds a FLOP, of the slowest rung so far
    for place, (rung, reason) in enumerate(wanted, 1):
        row = Row(rung.name, rung.heading(device), rung.model, rung.fast, rung.is_released, reason)
        ladder.rows.append(row)
        passed = time.perf_counter() - began
        updates = _CHECKING + (preparation_on(device) if rung.fast else 0)
        expected = passed + updates * flops[rung.name] * pace
        if reason is None and place > _NEEDED and expected > _PREPARING * options.seconds:
            row.reason = f"left out: it would not fit into {options.seconds:g} s here (--seconds allows more)"
        if row.reason is None:
            left = duration(max(0.0, options.seconds - passed))
            say(f"{place} of {len(wanted)}, {rung.name}: built and checked, at most {left} left in all")
            with caught(rung, row):
                step = checked_step(rung, row, given, data, PeakMemory(device))
                (seconds,) = measure(step, device, rounds=1)
                pace = max(pace, seconds / flops[rung.name])
                ready.append(_Runner(rung, row, step))
    _take_turns(ready, device, began + options.seconds, say)
    for runner in ready:
        if runner.row.reason is None:
            fill_in(runner.row, runner.step, runner.times, given)
    order = [rung.name for rung in RUNGS]
    ladder.rows.sort(key=lambda row: order.index(row.name))
    return ladder


def _fitting(flops: float, seconds: float, device: torch.device) -> int:
    """How many sequences of an update a CPU computes in time.

    Args:
        flops: of one update of one sequence in all rungs.
        seconds: for everything.
        device: the CPU.
    """
    rate = matmul_rate(device, torch.float32, size=1024)
    a_sequence = (_CHECKING + _FEWEST_TURNS) * flops * _SLOWER / rate
    return next((count for count in _CPU_SEQUENCES if count * a_sequence <= seconds), 1)


def _take_turns(
    ready: Sequence[_Runner], device: torch.device, end: float, say: Callable[[str], None]
) -> None:
    """Time one update of each rung after the other, and so on until the end; at least twice."""
    longest, told = 0.0, float("-inf")
    for turn in range(1, _MOST_TURNS + 1):
        now = time.perf_counter()
        if turn > _FEWEST_TURNS and now + longest > end:
            return
        if now - told > _TELL_EVERY:
            say(f"timed in turns: turn {turn}, at most {duration(max(0.0, end - now))} left")
            told = now
        for runner in ready:
            if runner.row.reason is None:
                with caught(runner.rung, runner.row):
                    runner.times += measure(runner.step, device, rounds=1)
        longest = max(longest, time.perf_counter() - now)
