"""Check every back end of every op against float64, time those that passed, and pick."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import native
from ..host import allowed_cpus
from ..native import cache
from ..ops.common import tuned
from ..ops.common.backends import Problem, candidates, choose
from ..ops.common.record import (
    Measured,
    Record,
    ShapeClass,
    Tile,
    Tried,
    machine_key,
    read_record,
    record_name,
    tile_of,
)
from ..ops.common.tuned import class_of
from .processes import WORKER, Outcome, carry_out, end_all
from .worker import Job

# The built-in choice stays where another is not faster by more than the noise.
_NOISE = 1.03
# Checks beside one another, and the bytes of a GPU that each may need: its context, and float64 operands.
_MOST_AT_ONCE, _BYTES = 12, 3 << 30
# Back ends with Triton kernels inside, and how many times the limit of a check their choice of blocks may take.
_WITH_TILES, _TILES = ("triton", "torch"), 5


@dataclass(frozen=True)
class TuneOptions:
    """How thoroughly to measure.

    Attributes:
        quick: shorter timings.
        limit: seconds that a back end may take for the check, or the timing, of one class of calls; then its process
            is killed.
    """

    quick: bool = False
    limit: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.limit < math.inf:
            raise ValueError(f"limit is {self.limit:g}, expected a positive number of seconds")

    @property
    def budget(self) -> float:
        """Seconds for the timing of a back end in a class."""
        return 0.1 if self.quick else 0.4


@dataclass
class _Class:
    shape: ShapeClass
    problem: Problem
    names: list[str]
    tried: dict[str, Tried]

    def passed(self) -> list[str]:
        return [name for name in self.names if name in self.tried and self.tried[name].failed is None]


class _Tuner:
    """One run of :func:`tune`."""

    def __init__(
        self, device: str, basis: dict[str, Any], options: TuneOptions, say: Callable[[str], None],
        worker: Sequence[str],
    ) -> None:  # fmt: skip
        self.device, self.basis, self.options, self.say, self.worker = device, basis, options, say, worker
        self.tiles: dict[tuple[str, str], Tile] = {}

    def _run(self, kind: str, classes: Sequence[_Class], names: list[list[str]]) -> Outcome:
        shapes = [
            {"op": s.op, "dtype": s.dtype, "features": list(s.features), "sizes": [list(p) for p in s.sizes]}
            for s in (each.shape for each in classes)
        ]
        threads = torch.get_num_threads()
        tiles = [each.to_json() for each in self.tiles.values()]
        job = Job(kind, self.device, threads, self.basis, shapes, names, self.options.budget, tiles)
        limit = self.options.limit * (_TILES if kind == "tiles" else 1)
        return carry_out(job, limit, self.worker)

    def check(self, op: str, name: str, classes: list[_Class]) -> None:
        """Check one back end of an op in all classes where it can run."""
        outcome = self._run("check", classes, [[name]] * len(classes))
        if outcome.by_system:
            self.say(f"{op}: {name} is not compared: its process was killed, perhaps for its memory")
        for number, each in enumerate(classes):
            found = outcome.found.get(number)
            if found is None and outcome.by_system:
                continue
            if found is None:
                why, at = outcome.stopped or "no answer", min(outcome.at, len(classes) - 1)
                each.tried[name] = Tried(
                    failed=why if number == at else f"not checked: {why} at {classes[at].shape.label}"
                )
            elif "failed" in found:
                each.tried[name] = Tried(failed=str(found["failed"]))
            elif "none" in found:
                self.say(f"{each.shape.label}: {name} is not compared: {found['none']}")
            else:
                each.tried[name] = Tried(error=float(found["error"]))
        wrong = [each for each in classes if name in each.tried and each.tried[name].failed]
        if wrong:
            self.say(f"{op}: {name} failed: {wrong[0].tried[name].failed} ({wrong[0].shape.label})")

    def choose_tiles(self, op: str, name: str, classes: list[_Class]) -> None:
        """Let a back end's Triton kernels choose their blocks by timing; they are kept where the check passes again."""
        classes = [each for each in classes if name in each.passed()]
        outcome = self._run("tiles", classes, [[name]] * len(classes)) if classes else Outcome()
        wrong = next((each["failed"] for each in outcome.found.values() if "failed" in each), outcome.stopped)
        if wrong is not None:
            self.say(f"{op}: the blocks of {name} stay those of the table: {wrong}")
            return
        for found in outcome.found.values():
            for values in found.get("tiles", ()):
                tile = tile_of(values, f"{op}, {name}")
                self.tiles[tile.kernel, tile.shape] = tile

    def time(self, classes: list[_Class]) -> None:
        """Time what passed; a class in which the worker stops is tried again, one back end after the other."""
        waiting = [each for each in classes if len(each.passed()) > 1]
        while waiting:
            outcome = self._run("time", waiting, [each.passed() for each in waiting])
            for number, found in outcome.found.items():
                self._note(waiting[number], found)
            if outcome.stopped is None:
                return
            broken, waiting = waiting[min(outcome.at, len(waiting) - 1)], waiting[outcome.at + 1 :]
            self.say(
                f"{broken.shape.label}: {outcome.stopped} while it was timed; its back ends follow one by one"
            )
            for name in broken.passed():
                alone = self._run("time", [broken], [[name]])
                if alone.stopped is not None and not alone.by_system:
                    broken.tried[name] = Tried(failed=f"while it was timed: {alone.stopped}")
                    self.say(f"{broken.shape.op}: {name} failed {broken.tried[name].failed}")
                else:
                    self._note(broken, alone.found.get(0, {}))

    def _note(self, each: _Class, found: dict[str, Any]) -> None:
        if "ms" not in found:
            self.say(
                f"{each.shape.label}: not timed: {found.get('failed') or found.get('none') or 'no answer'}"
            )
        for name, ms in found.get("ms", {}).items():
            cold = found.get("cold_ms", {}).get(name)
            each.tried[name] = Tried(error=each.tried[name].error, ms=ms, cold_ms=cold)


def _time_of(tried: Tried) -> float:
    if tried.ms is None or tried.failed is not None:
        return math.inf
    return tried.ms if tried.cold_ms is None else (tried.ms + tried.cold_ms) / 2


def _pick(each: _Class, failed: set[str]) -> str | None:
    """The fastest back end of a class; the built-in one where no other is faster beyond the noise."""
    times = {name: _time_of(tried) for name, tried in each.tried.items() if name not in failed}
    best = min(times, key=lambda name: times[name], default=None)
    if best is None or times[best] == math.inf:
        return None
    with suppress(RuntimeError):
        own = choose(each.shape.op, each.problem, "auto")
        if times.get(own, math.inf) <= _NOISE * times[best]:
            return own
    return best


def tune(
    calls: Iterable[tuple[str, Problem]],
    basis: dict[str, Any],
    *,
    options: TuneOptions = TuneOptions(),
    say: Callable[[str], None] = lambda line: None,
    worker: Sequence[str] = WORKER,
) -> Record:
    """Find out which back end of each op is right, and which of those is the fastest, at the sizes of these calls.

    Each back end is checked in a process of its own, against float64 with the tolerances of the tests; then those that
    passed are timed side by side.

    Args:
        calls: ops and their problems, all on one type of device, as :func:`fastamr.ops.common.backends.watched` lists
            them.
        basis: sizes of :class:`fastamr.testing.op_sizes.Sizes` where a problem names none, and ``low``, the name of
            the dtype of activations.
        options: how thoroughly.
        say: takes lines on the way.
        worker: command of the worker.

    Returns:
        The record, for this machine.

    Raises:
        ValueError: no call, or calls on several types of devices.
    """
    problems = {
        class_of(op, each.dtype, each.features, each.sizes): each for op, each in calls if not each.refusals
    }
    devices = {each.device_type for each in problems.values()}
    if len(devices) != 1:
        raise ValueError(f"calls on {sorted(devices) or 'no device'}: expected those of one type of device")
    (device,) = devices
    native.why_not(device)  # compiled now, not inside a time limit
    with tuned.using(device, None):
        classes = [_Class(shape, each, candidates(shape.op, each), {}) for shape, each in problems.items()]
        classes = [each for each in classes if len(each.names) > 1]
        tuner = _Tuner(device, basis, options, say, worker)
        jobs: dict[tuple[str, str], list[_Class]] = {}
        for each in classes:
            for name in each.names:
                jobs.setdefault((each.shape.op, name), []).append(each)
        say(
            f"checking {len(jobs)} back ends of {len({op for op, _ in jobs})} ops in {len(classes)} classes of calls"
        )
        try:
            with ThreadPoolExecutor(_at_once(device)) as pool:
                _all(pool, [partial(tuner.check, *names, each) for names, each in jobs.items()])
            if device == "cuda" and not options.quick:
                say("choosing the blocks of kernels")
                for (op, name), those in jobs.items():
                    if name in _WITH_TILES:
                        tuner.choose_tiles(op, name, those)
            say("timing those that passed")
            tuner.time(classes)
        finally:
            end_all()  # where an error or Ctrl-C came between
        measured = []
        for each in classes:
            same = [c for c in classes if (c.shape.op, c.shape.dtype) == (each.shape.op, each.shape.dtype)]
            failed = {name for c in same for name, tried in c.tried.items() if tried.failed is not None}
            tried = {name: each.tried[name] for name in each.names if name in each.tried}
            measured.append(Measured(each.shape, _pick(each, failed), tried))
    made = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return Record(machine_key(device), tuple(measured), made, tuple(tuner.tiles.values()))


def _all(pool: ThreadPoolExecutor, jobs: Sequence[Callable[[], None]]) -> None:
    """Carry the jobs out; where one raises, or the user interrupts, those that run are ended and the rest left."""
    waiting = [pool.submit(job) for job in jobs]
    try:
        for each in waiting:
            each.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_all()
        raise


def _at_once(device: str) -> int:
    """How many checks run beside one another."""
    cpus = allowed_cpus()
    most = cpus // torch.get_num_threads()
    if device == "cuda":
        most = min(cpus, torch.cuda.mem_get_info()[0] // _BYTES)
    return max(1, min(_MOST_AT_ONCE, most))


def saved(record: Record, out: str | Path | None = None) -> tuple[Record, Path]:
    """Write a record, by default where ``auto`` finds it; what an earlier one of this machine knows beside it stays.

    Args:
        record: the record.
        out: its file; None takes the cache.

    Returns:
        What was written, and where.

    Raises:
        OSError: it cannot be written.
    """
    kind = record.key["kind"]
    path = Path(out) if out else cache.writable() / record_name(kind, record.key)
    with suppress(OSError, ValueError):  # there is none, or none that can be read
        record = read_record(path).merged(record)
    record.save(path)
    tuned.forget()
    return record, path
