"""The ladder: every rung's training step in one process, checked first, then timed side by side."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..data import PackedSkeletons
from ..models import ModelConfig, SkeletonModel, build_model, count_flops
from .cost import step_flops
from .machine import clocks, environment, known_peak
from .ntu_sized import ntu_sized
from .plain_step import PlainStep
from .rungs import Ladder, Row, Rung, choose_rungs
from .step import FastStep, preparation_on, sample_batch
from .timing import PeakMemory, TimeLeft, duration, give_back, measure, wait

# Largest relative difference between a rung's first loss and that of the same weights, clips and masks in float64.
TOLERANCES = {"float32": 1e-4, "tf32": 2e-3, "float16": 1e-2, "bfloat16": 1e-2}

_EXACT_CHUNK = 8
_REASON_LENGTH = 200
_SCALER_RETRIES = 10


class DisagreementError(RuntimeError):
    """A rung computes something else than the reference; it must not be timed."""


@dataclass(frozen=True)
class LadderOptions:
    """What :func:`run_ladder` runs.

    Attributes:
        sequences: S; by default 256 on a GPU, 8 on a CPU.
        rungs: names, or ``all``; by default all that the device runs in reasonable time
            (``torch.compile`` on a CPU takes minutes and must be asked for).
        rounds: timed updates; by default 20 on a GPU, 5 on a CPU.
        warmup: updates before that are not timed, beside the first; by default 5 on a GPU, 1 on a CPU.
        architecture: settings that both models share (fields of :class:`fastamr.models.ModelConfig`); the papers'
            by default.

    Raises:
        ValueError: a setting that is not shared by the models, or a number that is not positive.
    """

    sequences: int | None = None
    rungs: Sequence[str] = ()
    rounds: int | None = None
    warmup: int | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("sequences", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if self.warmup is not None and self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}, expected 0 or more")
        ModelConfig.from_dict(dict(self.architecture))

    def on(self, device: torch.device) -> LadderOptions:
        """The same with the device's defaults filled in."""
        sequences, rounds, warmup = (256, 20, 5) if device.type == "cuda" else (8, 5, 1)
        return dataclasses.replace(
            self,
            sequences=sequences if self.sequences is None else self.sequences,
            rounds=rounds if self.rounds is None else self.rounds,
            warmup=warmup if self.warmup is None else self.warmup,
        )


def run_ladder(
    options: LadderOptions,
    device: torch.device,
    *,
    report: Callable[[Ladder], None] = lambda ladder: None,
    say: Callable[[str], None] = lambda line: None,
) -> Ladder:
    """Measure the rungs one after another.

    A rung that cannot run, or that disagrees with the reference, is listed with the reason and without a time.

    Args:
        options: what to run.
        device: where.
        report: is called with the ladder so far as soon as a row of it is measured, the last one.
        say: is called with a line when a rung begins and when its first update is done: what runs, the time left.

    Raises:
        ValueError: an unknown rung.
    """
    options = options.on(device)
    chosen, ladder, data = begin(options, device)
    running = [rung for rung, reason in chosen if reason is None]
    flops = update_flops(running, options)
    left = TimeLeft([_updates(rung, options, device) * flops[rung.name] for rung in running])
    for place, (rung, reason) in enumerate(chosen, 1):
        row = Row(rung.name, rung.heading(device), rung.model, rung.fast, rung.is_released, reason)
        if reason is None:
            say(f"{place} of {len(chosen)}, {rung.name}: {_left(left)}")

            def checked(seconds: float, rung: Rung = rung) -> None:
                left.learn(seconds, flops[rung.name])
                say(f"   first update {seconds:.2f} s, checked; {_left(left)}")

            with caught(rung, row):
                _fill(rung, row, options, data, checked)
            left.done()
        ladder.rows.append(row)
        report(ladder)
    return ladder


def begin(
    options: LadderOptions, device: torch.device
) -> tuple[list[tuple[Rung, str | None]], Ladder, PackedSkeletons]:
    """Return the rungs with the reasons why some do not run, a ladder without rows, and the data on the device.

    Args:
        options: with the device's defaults, see :meth:`LadderOptions.on`.
        device: where the rungs run.

    Raises:
        ValueError: an unknown rung.
    """
    assert options.sequences is not None
    chosen, facts = choose_rungs(options.rungs, device), environment(device)
    data = ntu_sized(options.sequences).to(device)
    frames = _build("amr", options.architecture, torch.device("cpu")).frames
    shape = [options.sequences, frames, *data.coords.shape[1:]]
    return chosen, Ladder(facts, options.sequences, shape, dict(options.architecture), []), data


@contextmanager
def caught(rung: Rung, row: Row) -> Iterator[None]:
    """Run a rung inside a ``with`` block, with the back ends that it names; a failure becomes the row's reason."""
    try:
        with ops.backend(**dict(rung.backends)):
            yield
    except Exception as error:
        row.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:_REASON_LENGTH]}"
        row.wrong, row.ms = isinstance(error, DisagreementError), None
    finally:
        if rung.compiled:
            torch.compiler.reset()


def _updates(rung: Rung, options: LadderOptions, device: torch.device) -> int:
    """How many updates a rung makes in all; its check counts as one."""
    assert options.rounds is not None
    assert options.warmup is not None
    return 2 + (preparation_on(device) if rung.fast else 0) + options.warmup + options.rounds


def update_flops(rungs: Sequence[Rung], options: LadderOptions) -> dict[str, float]:
    """FLOPs of an update of one sequence in each rung, linear layers only: what the time left is estimated by."""
    found: dict[tuple[str, bool], float] = {}
    for rung in rungs:
        if (rung.model, rung.is_released) not in found:
            model = build_model(rung.model, _settings(rung, options.architecture))
            forward, trained = (count_flops(model, bodies=1, trained_only=only) for only in (False, True))
            found[rung.model, rung.is_released] = forward + 2.0 * trained
    return {rung.name: found[rung.model, rung.is_released] for rung in rungs}


def _left(left: TimeLeft) -> str:
    seconds = left.seconds()
    return "time left unknown" if seconds is None else f"about {duration(seconds)} left"


def _fill(
    rung: Rung, row: Row, options: LadderOptions, data: PackedSkeletons, checked: Callable[[float], None]
) -> None:
    device = data.coords.device
    assert options.rounds is not None
    assert options.warmup is not None
    memory = PeakMemory(device)
    step = checked_step(rung, row, options, data, memory, checked)
    times = measure(step, device, rounds=options.rounds, warmup=options.warmup)
    row.clocks = clocks(device)
    row.peak_bytes = max((peak for peak in (row.peak_bytes, memory.read()) if peak is not None), default=None)
    fill_in(row, step, times, options)


def fill_in(row: Row, step: PlainStep | FastStep, times: Sequence[float], options: LadderOptions) -> None:
    """Write the times of a step's updates into its row, and what follows from them.

    Args:
        row: receives them.
        step: what was timed.
        times: seconds of each timed update.
        options: with the device's defaults.
    """
    sequences = options.sequences
    assert sequences is not None
    row.recorded = step.is_graph
    row.graph_reason = step.graph_reason if isinstance(step, FastStep) else None
    median = statistics.median(times)
    row.rounds_ms = [seconds * 1e3 for seconds in times]
    row.ms, row.sequences_per_second = median * 1e3, sequences / median
    row.tflop = step_flops(step.model, sequences) / 1e12
    peak = known_peak(next(step.model.parameters()).device)
    row.mfu = None if peak is None else row.tflop * 1e12 / median / peak


def checked_step(
    rung: Rung,
    row: Row,
    options: LadderOptions,
    data: PackedSkeletons,
    memory: PeakMemory,
    checked: Callable[[float], None] = lambda seconds: None,
) -> PlainStep | FastStep:
    """Build the step of a rung, check it, and bring it into its final form; ready to be timed.

    The first update's loss must agree with that of the same weights, clips and visible tokens in float64, and the
    update must change every weight matrix.

    Args:
        rung: the rung.
        row: receives loss, error, seconds of the preparation and, of a graph, the peak memory of its recording.
        options: with the device's defaults, see :meth:`LadderOptions.on`.
        data: where the clips come from.
        memory: of the data's device; restarted here.
        checked: is called with the seconds of the first update once it was found right.

    Raises:
        DisagreementError: the check failed.
    """
    device = data.coords.device
    assert options.sequences is not None
    model = _build(rung.model, _settings(rung, options.architecture), device)
    start = {name: value.cpu().clone() for name, value in model.state_dict().items()}
    step = build_step(rung, model, data, options.sequences)
    memory.restart()
    row.loss, row.prepare_seconds = _first_update(step, device)
    peaks = [memory.read()]
    clips, keep = step.first_batch()
    row.tolerance = TOLERANCES[rung.precision_on(device)]
    row.error = _check(row.loss, exact_loss(model, start, clips, keep), row.tolerance)
    _check_moved(step, start, retries=_SCALER_RETRIES if rung.precision_on(device) == "float16" else 0)
    del start, clips, keep
    checked(row.prepare_seconds)
    give_back()
    memory.restart()
    row.prepare_seconds += _prepare(step, device)
    peaks.append(memory.read())
    if step.is_graph:
        # What is freed inside a graph does not show in a replay: its peak is that of the recording.
        row.peak_bytes = max((peak for peak in peaks if peak is not None), default=None)
    memory.restart()
    return step


def _first_update(step: PlainStep | FastStep, device: torch.device) -> tuple[float, float]:
    """The loss of the first update, and its seconds."""
    began = time.perf_counter()
    loss = float(step())
    wait(device)
    return loss, time.perf_counter() - began


def _prepare(step: PlainStep | FastStep, device: torch.device) -> float:
    """Seconds of the updates until the step has its final form."""
    began = time.perf_counter()
    for _ in range(step.preparation):
        step()
    wait(device)
    return time.perf_counter() - began


def build_step(
    rung: Rung, model: SkeletonModel, data: PackedSkeletons, sequences: int
) -> PlainStep | FastStep:
    """Build the step of a rung.

    Args:
        rung: the rung.
        model: on its device.
        data: on the same device; plain rungs get one batch of clips from it beforehand, the library's own step draws
            a new one in every update.
        sequences: S.
    """
    device = data.coords.device
    precision = rung.precision_on(device)
    if rung.fast:
        model.set_side_branch(rung.branch)
        return FastStep(model, data, sequences=sequences, precision=precision)
    return PlainStep(
        model,
        sample_batch(data, model.frames, sequences),
        attention=rung.attention,
        precision=precision,
        compiled=rung.compiled,
        fused=rung.fused or device.type == "cpu",
        graph=rung.graph,
    )


def exact_loss(model: SkeletonModel, weights: Mapping[str, Tensor], clips: Tensor, keep: Tensor) -> float:
    """The loss of given weights, clips and visible tokens in float64 with the reference back ends.

    Args:
        model: gives the architecture; left as it is.
        weights: its parameters and buffers.
        clips: ``(S, T, V, C)``.
        keep: ``(S, K)``.
    """
    exact = copy.deepcopy(model)
    exact.load_state_dict(weights)
    exact.double()
    total = 0.0
    # A loss that compares the sequences of a batch is not the mean of its parts'.
    chunk = _EXACT_CHUNK if model.spreads else len(clips)
    with ops.reference_only(), torch.no_grad():
        for first in range(0, len(clips), chunk):
            part = slice(first, first + chunk)
            loss = exact(clips[part].double(), keep=keep[part].int())
            total += float(loss) * len(clips[part])
    return total / len(clips)


def _check(loss: float, exact: float, tolerance: float) -> float:
    """The relative difference of a loss; raises where it exceeds the tolerance, or is not finite."""
    error = abs(loss - exact) / abs(exact)
    if not error <= tolerance:
        raise DisagreementError(
            f"the loss is {loss:.6g}, in float64 {exact:.6g}: {error:.2g} apart, {tolerance:g} allowed"
        )
    return error


def _check_moved(step: PlainStep | FastStep, start: Mapping[str, Tensor], *, retries: int) -> None:
    """Raise unless the updates so far changed every weight matrix and left finite numbers.

    A gradient scaler skips updates until it has found its scale, so float16 gets some more of them.
    """
    stuck = _unmoved(step.model, start)
    for _ in range(retries):
        if stuck is None:
            return
        step()
        stuck = _unmoved(step.model, start)
    if stuck is not None:
        raise DisagreementError(f"the update did not change {stuck}, or made it infinite: nothing to time")


def _unmoved(model: SkeletonModel, start: Mapping[str, Tensor]) -> str | None:
    """Name a weight matrix that is as it was, or a parameter that is not finite; None where there is none."""
    for name, parameter in model.named_parameters():
        now = parameter.detach().cpu()
        if not torch.isfinite(now).all() or (now.ndim > 1 and torch.equal(now, start[name])):
            return name
    return None


def _settings(rung: Rung, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture; the released code keeps 74 of 750 tokens, because it rounds down.

    SLiM stays at its own length of clips and patches, and has no fused blocks.
    """
    if rung.model == "slim":
        return {
            name: value
            for name, value in architecture.items()
            if name not in ("frames", "patch_frames", "blocks")
        }
    return {**architecture, "visible_rounding": "down"} if rung.is_released else dict(architecture)


def _build(name: str, settings: Mapping[str, Any], device: torch.device) -> SkeletonModel:
    """The model with weights that depend on nothing but its architecture."""
    torch.manual_seed(0)
    return build_model(name, dict(settings)).to(device).train()
