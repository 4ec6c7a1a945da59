"""A process of ``fastamr tune``: checks one back end, or times several; what it finds it writes line by line.

A back end may hang, or end the process: what was written before counts, and the parent knows where it stopped.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..memory import is_exhausted
from ..ops.common.backends import backend, first_problem, reference_only
from ..ops.common.record import ShapeClass, dtype_named, tile_of
from ..ops.common.tuned import class_of, take_tiles
from ..testing.checking import cast, compare, copied, results, tensors, tolerance
from ..testing.op_cases import CASES, Case
from ..testing.op_sizes import Sizes
from .clock import best_seconds, captured, device_seconds

MARK = "@tune "
# How much larger than the reference's own error, in the same dtype, that of a back end may be.
_FACTOR = 2.0
# Sizes of weights' gradients and of the layers whose weights they are; the first of a block's four is fc2's.
_RENAMED = {"outputs": "hidden", "inputs": "width", "outputs0": "width", "inputs0": "hidden"}


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do.

    Attributes:
        kind: ``check``; ``tiles``, a check in which kernels choose their blocks by timing; or ``time``.
        device: type of the device.
        threads: of a CPU.
        basis: sizes where a class names none, and the dtype of activations as ``low``.
        shapes: the classes.
        backends: for each class, the back ends.
        budget: seconds for the timing of a back end in a class.
        tiles: blocks of kernels that were chosen before, as :class:`fastamr.ops.common.record.Tile` has them.
    """

    kind: str
    device: str
    threads: int
    basis: dict[str, Any]
    shapes: list[dict[str, Any]]
    backends: list[list[str]]
    budget: float
    tiles: list[dict[str, Any]] = field(default_factory=list)


def main() -> None:
    """Carry out the job that standard input holds as JSON."""
    job = Job(**json.loads(sys.stdin.read()))
    torch.set_num_threads(job.threads)
    _tell(-1, state="ready")
    take_tiles([tile_of(each, "tiles") for each in job.tiles])
    work = {"check": _check, "tiles": _check, "time": _time}[job.kind]
    for number, names in enumerate(job.backends):
        given = job.shapes[number]
        shape = ShapeClass(
            given["op"], given["dtype"], tuple(given["features"]), tuple(map(tuple, given["sizes"]))
        )
        _tell(number, state="begun")
        try:
            cases = matching(shape, job.basis, job.device)
            found = work(job, cases, names) if cases else {"none": "no kind of call is known of these sizes"}
        except Exception as error:
            # Whatever a back end raises is its failure, unless the call is too large for this machine.
            kind = "none" if isinstance(error, _NoTruth) or is_exhausted(error) else "failed"
            found = {kind: f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        if job.kind == "tiles":
            found |= {"tiles": tuned_tiles()}
        _tell(number, state="done", **found)
    os._exit(0)  # what libraries do at the end of a process says nothing of the back end


def tuned_tiles() -> list[dict[str, Any]]:
    """The blocks that this process's kernels chose by timing; none where Triton is not installed."""
    try:
        from ..kernels import launch
    except ImportError:
        return []
    return launch.tuned()


def _tell(number: int, **values: Any) -> None:
    print(MARK + json.dumps({"number": number, **values}), flush=True)


def matching(shape: ShapeClass, basis: dict[str, Any], device: str) -> list[tuple[Case, Sizes]]:
    """The kinds of calls, each with sizes, of which an op sees this class.

    Args:
        shape: the class.
        basis: see :class:`Job`.
        device: type of the device.
    """
    known = {each.name for each in fields(Sizes)}
    sizes = {_RENAMED.get(name, name): size for name, size in shape.sizes}
    sizes = {name: size for name, size in sizes.items() if name in known}
    rest = {name: value for name, value in basis.items() if name != "low"}
    found = []
    for case in CASES:
        if case.op != shape.op or not hasattr(ops, case.name):
            continue
        # Some ops see the dtype of clips or weights, others that of activations.
        for low in dict.fromkeys((basis.get("low", shape.dtype), shape.dtype)):
            dtypes = {"low": dtype_named(low), "stored": dtype_named(shape.dtype)}
            made = Sizes(**{**rest, **sizes, **dtypes, "device": device, "grad": True})
            try:
                asked = first_problem(case.bind(case.arguments(replace(made, filled=False))))
            except (ValueError, TypeError, RuntimeError):  # no call of these sizes
                continue
            if asked is not None and class_of(case.op, asked.dtype, asked.features, asked.sizes) == shape:
                found.append((case, made))
                break
    return found


class _NoTruth(Exception):
    """The reference could not be computed, so nothing is known of the back end."""


def _check(job: Job, cases: list[tuple[Case, Sizes]], names: list[str]) -> dict[str, Any]:
    """Compare a back end with float64, in every kind of call of the class."""
    (name,) = names
    worst = 0.0
    for case, sizes in cases:
        given, truth = _truth(case, sizes)
        found = results(case, copied(given), name)
        errors = compare(found, truth)
        for place, error in _too_large(found, errors):
            with reference_only():
                peer = results(case, copied(given), "reference")
            allowed = max(tolerance(found[place]), _FACTOR * compare(peer, truth)[place])
            # Whole numbers, as of chosen tokens, may follow the reference's own rounding.
            same = found[place].shape == peer[place].shape and torch.equal(found[place], peer[place])
            if not (same or error <= allowed < float("inf")):
                how = f"is off by {error:.3g} of the truth, allowed {allowed:.3g}"
                what = f"result {place} {how if error < float('inf') else 'is not finite, or another one'}"
                return {"failed": f"wrong: {case.label}: {what}"}
        worst = max(worst, *errors)
    return {"error": worst}


def _truth(case: Case, sizes: Sizes) -> tuple[dict[str, Any], list[Tensor]]:
    """Arguments, the same in every process, and what the reference makes of them in float64."""
    try:
        torch.manual_seed(0)
        given = case.arguments(sizes)
        with reference_only():
            return given, results(case, cast(given, torch.float64), "reference")
    except Exception as error:
        raise _NoTruth(f"{case.label}: {error}") from error


def _too_large(found: list[Tensor], errors: list[float]) -> list[tuple[int, float]]:
    pairs = (
        enumerate(zip(found, errors, strict=True))
        if len(found) == len(errors)
        else [(0, (found[0], errors[0]))]
    )
    return [(place, error) for place, (value, error) in pairs if not error <= tolerance(value)]


def _time(job: Job, cases: list[tuple[Case, Sizes]], names: list[str]) -> dict[str, Any]:
    """Milliseconds of a call forward and backward, of each back end."""
    torch.manual_seed(0)
    calls = {name: partial(_all, [_call(case, case.arguments(sizes), name) for case, sizes in _once(cases)])
             for name in names}  # fmt: skip
    if job.device != "cuda":
        best = best_seconds(calls, job.budget)
        return {"ms": {name: seconds * 1e3 for name, seconds in best.items()}}
    device, times = torch.device("cuda", torch.cuda.current_device()), dict[str, dict[str, float]]()
    replays = {name: captured(call, device) for name, call in calls.items()}
    for kind, flush in (("ms", False), ("cold_ms", True)):
        times[kind] = {
            name: device_seconds(replay, device, flush=flush, rounds=20) * 1e3
            for name, replay in replays.items()
        }
    return times


def _all(calls: list[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _once(cases: list[tuple[Case, Sizes]]) -> list[tuple[Case, Sizes]]:
    """Each function once; a backward of its own counts only where autograd does not run it with the forward."""
    functions: dict[str, tuple[Case, Sizes]] = {}
    for case, sizes in cases:
        functions.setdefault(case.name, (case, sizes))
    plain = functions.get(cases[0][0].op)
    if plain is not None and any(each.requires_grad for each in tensors(plain[0].arguments(plain[1]))):
        return [plain]
    return list(functions.values())


def _call(case: Case, given: dict[str, Any], name: str) -> Callable[[], object]:
    """A call, with the gradients of what asks for them."""
    function = case.bind(given)
    leaves = [each for each in tensors(given) if each.requires_grad]
    with backend(**{case.op: name}):
        found = [each for each in tensors(function()) if each.requires_grad]
    upstream = [torch.ones_like(each) for each in found]

    def call() -> None:
        with backend(**{case.op: name}):
            made = tensors(function())
        if upstream:
            torch.autograd.grad(
                [each for each in made if each.requires_grad], leaves, upstream, allow_unused=True
            )

    return call


if __name__ == "__main__":
    main()
