"""Which back end runs an op, why not the others, and how a user chooses.

``auto`` takes what ``fastamr tune`` measured as the fastest, see :mod:`.tuned`; where nothing was measured, the first
back end of an op's list that can run the call. What failed the check of ``fastamr tune`` it never takes. A back end
named by the environment variable ``FASTAMR_BACKEND`` or by :func:`backend` either runs or raises with the reason.
Inside :func:`reference_only`, where something is computed to be compared with, nobody's choice counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from ...errors import unknown_name
from . import tuned
from .planning import planned_device

NAMES = ("auto", "reference", "materialised", "sdpa", "torch", "triton", "cpp", "cuda", "fused")


@dataclass(frozen=True)
class Problem:
    """What a back end is asked to run.

    Attributes:
        device_type: of the tensors.
        dtype: of the tensors.
        features: names of the op's optional features in use; each back end judges them.
        sizes: sizes that matter to the choice, by name; an absent one is unknown.
        refusals: in words, what about the call no fast form of the op covers; only its plain form can run it.
    """

    device_type: str
    dtype: torch.dtype
    features: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backend:
    """One way to run an op.

    ``why_not(problem)`` is None if it can, else the reason. ``automatic_on`` lists the device types on which ``auto``
    may take it (None: all); ``slower_because(problem)`` is None unless ``auto`` should pass it over all the same;
    one that ``is_baseline`` is there to be compared with and never taken by ``auto``.
    """

    name: str
    why_not: Callable[[Problem], str | None]
    automatic_on: tuple[str, ...] | None = None
    slower_because: Callable[[Problem], str | None] | None = None
    is_baseline: bool = False


@dataclass(frozen=True)
class Choice:
    """Which back end runs a call, and why no faster one does.

    Attributes:
        op: the op, or the name of a stack of blocks.
        backend: the back end that runs.
        faster: each back end that would be faster on this device, with the reason why it does not run; empty where
            the call is as fast as it gets.
        source: who chose: ``built in``, ``measured`` (by ``fastamr tune``), or ``named`` (by the caller or the user).
    """

    op: str
    backend: str
    faster: dict[str, str] = field(default_factory=dict)
    source: str = "built in"


_TABLE: dict[str, dict[str, Backend]] = {}


def can_always(problem: Problem) -> str | None:
    """The answer of a back end that runs everything."""
    return None


def declare(op: str, *choices: Backend) -> None:
    """Declare an op's back ends, fastest first; ``auto`` tries those that allow it in this order."""
    _TABLE[op] = {choice.name: choice for choice in choices}


def _parse(text: str) -> dict[str, str]:
    """Read ``"triton"`` or ``"visible_attention=sdpa,motion_entropy=reference"`` into ``{op or '*': name}``."""
    chosen: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        op, _, name = part.rpartition("=")
        if name not in NAMES:
            raise unknown_name("backend", name, NAMES)
        chosen[op or "*"] = name
    return chosen


# Process-wide on purpose: torch.compile can guard on a module's dictionary but not read a context variable.
_selected: dict[str, str] = _parse(os.environ.get("FASTAMR_BACKEND", ""))


@contextmanager
def backend(name: str | None = None, **per_op: str) -> Iterator[None]:
    """Choose back ends inside a ``with`` block, for the whole process.

    Args:
        name: for every op that has it, for example ``"reference"``.
        per_op: for single ops, for example ``visible_attention="sdpa"``.

    Raises:
        ValueError: an unknown back end or op, or an op without that back end.
    """
    global _selected
    chosen = dict(per_op) if name is None else {"*": name, **per_op}
    for op, choice in chosen.items():
        if choice not in NAMES:
            raise unknown_name("backend", choice, NAMES)
        if op != "*" and op not in _TABLE:
            raise unknown_name("op", op, _TABLE)
        if op != "*" and choice != "auto" and choice not in _TABLE[op]:
            raise unknown_name(f"backend of {op}", choice, ("auto", *_TABLE[op]))
    before = _selected
    _selected = {**before, **chosen}
    try:
        yield
    finally:
        _selected = before


# Process-wide like the selection.
_reference_only = False


@contextmanager
def reference_only() -> Iterator[None]:
    """Run every op's reference inside a ``with`` block, whatever a caller, a model or ``FASTAMR_BACKEND`` names.

    For results that others are compared with: a back end that is to be judged must not compute its own truth.
    """
    global _reference_only
    before, _reference_only = _reference_only, True
    try:
        yield
    finally:
        _reference_only = before


def _is_automatic(choice: Backend, problem: Problem) -> bool:
    if choice.automatic_on is not None and problem.device_type not in choice.automatic_on:
        return False
    return choice.slower_because is None or choice.slower_because(problem) is None


def _asked_for(op: str, name: str | None) -> str:
    """The caller's choice, else the user's for this op, else the user's for all ops where this one has it."""
    if _reference_only:
        return "reference"
    if name is None:
        name = _selected.get(op, "")
        if not name:
            general = _selected.get("*", "auto")
            name = general if general in _TABLE[op] else "auto"
    return name


# Calls of choose since watched() was entered; None while nobody looks.
_seen: list[tuple[str, Problem, str | None]] | None = None


@contextmanager
def watched() -> Iterator[list[tuple[str, Problem, str | None]]]:
    """List the calls of :func:`choose` inside a ``with`` block: op, problem and the name that the caller gave."""
    global _seen
    before, _seen = _seen, []
    try:
        yield _seen
    finally:
        _seen = before


def _as_planned(problem: Problem) -> Problem:
    device = planned_device()
    return problem if device is None else replace(problem, device_type=device)


def _measured(op: str, problem: Problem) -> str | None:
    """The back end that ``fastamr tune`` found to be the fastest, if there is one and it can run the call."""
    if torch.compiler.is_compiling():  # sizes may be symbols
        return None
    found = tuned.tuning(problem.device_type)
    name = found.backend(op, problem.dtype, problem.features, problem.sizes)
    choice = _TABLE[op].get(name) if name is not None else None
    return None if choice is None or choice.why_not(problem) is not None else choice.name


def _failed(op: str, problem: Problem) -> Collection[str]:
    """Names of the back ends that failed the check of ``fastamr tune``."""
    if torch.compiler.is_compiling():
        return tuned.failed_names(op, problem.device_type, problem.dtype)
    return tuned.tuning(problem.device_type).failed(op, problem.dtype)


def _built_in(op: str, problem: Problem) -> str:
    """The first back end of the list that ``auto`` may take, can run the call and did not fail its check."""
    failed = _failed(op, problem)
    for choice in _TABLE[op].values():
        if choice.name not in failed and _is_automatic(choice, problem) and choice.why_not(problem) is None:
            return choice.name
    if failed:
        raise RuntimeError(
            f"no back end can run {op} for {problem}: {', '.join(failed)} failed the check of fastamr tune; run it "
            "again, or set FASTAMR_TUNING=off"
        )
    raise RuntimeError(f"no back end can run {op} for {problem}")


def candidates(op: str, problem: Problem) -> list[str]:
    """The back ends that ``fastamr tune`` compares for a call: all that can run it on this device."""
    found = []
    for choice in _TABLE[op].values():
        elsewhere = choice.automatic_on and problem.device_type not in choice.automatic_on
        if not (choice.is_baseline or elsewhere) and choice.why_not(problem) is None:
            found.append(choice.name)
    return found


class _Asked(BaseException):
    """Ends a call where it asks for its back end."""


class _First(list[tuple[str, Problem, str | None]]):
    def append(self, item: tuple[str, Problem, str | None]) -> None:
        super().append(item)
        raise _Asked


def first_problem(call: Callable[[], object]) -> Problem | None:
    """The problem that a call first asks a back end for; it ends there. None where it asks for none."""
    global _seen
    before, _seen = _seen, _First()
    try:
        call()
        return None
    except _Asked:
        return _seen[0][1]
    finally:
        _seen = before


def choose(op: str, problem: Problem, name: str | None = None) -> str:
    """Return the name of the back end that runs this call.

    Args:
        op: the op's name.
        problem: the call.
        name: a back end named by the caller; None takes the user's choice.

    Raises:
        ValueError: the op has no such back end.
        RuntimeError: the named back end cannot run the call; the message carries the reason.
    """
    if _seen is not None:
        _seen.append((op, problem, name))
    problem = _as_planned(problem)
    table = _TABLE[op]
    name = _asked_for(op, name)
    if name == "auto":
        measured = _measured(op, problem)
        return _built_in(op, problem) if measured is None else measured
    if name not in table:
        raise unknown_name(f"backend of {op}", name, ("auto", *table))
    reason = table[name].why_not(problem)
    if reason is not None:
        raise RuntimeError(f"backend {name!r} cannot run {op}: {reason}; choose 'auto' or another back end")
    return name


def explain(op: str, problem: Problem, name: str | None = None) -> Choice:
    """Return what :func:`choose` returns for this call, and why it is not a faster back end.

    A back end that ``auto`` passes over because it is slower there does not count as faster.

    Args:
        op: the op's name.
        problem: the call.
        name: a back end named by the caller; None takes the user's choice.

    Raises:
        ValueError, RuntimeError: as :func:`choose`.
    """
    used = choose(op, problem, name)
    problem = _as_planned(problem)
    source = "named"
    if _asked_for(op, name) == "auto":
        source = "built in" if _measured(op, problem) is None else "measured"
    who = "FASTAMR_BACKEND or fastamr.backend" if name is None else "the caller"
    failed = tuned.tuning(problem.device_type).failed(op, problem.dtype)
    faster: dict[str, str] = {}
    for choice in _TABLE[op].values():
        if choice.name == used:
            break
        if not _is_automatic(choice, problem):
            continue
        reason = choice.why_not(problem)
        if reason is None and choice.name in failed:
            reason = f"it failed its check by fastamr tune: {failed[choice.name]}"
        if source != "measured" or choice.name in failed:
            faster[choice.name] = reason or f"{who} names {used!r}; leave it at 'auto'"
    return Choice(op, used, faster, source)


def availability(device_type: str, dtype: torch.dtype = torch.float32) -> dict[str, dict[str, str | None]]:
    """For each op and back end the reason why it cannot run on a device, or None if it can."""
    problem = Problem(device_type, dtype)
    return {
        op: {name: entry.why_not(problem) for name, entry in table.items()} for op, table in _TABLE.items()
    }
