"""The update in every form: attention, side branch, weight gradients, products; and the profile of two of them."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fastamr import native, ops
from fastamr.benchmarking import profile_step
from fastamr.benchmarking.ladder import TOLERANCES, exact_loss
from fastamr.benchmarking.machine import clocks
from fastamr.benchmarking.ntu_sized import ntu_sized
from fastamr.benchmarking.step import FastStep
from fastamr.benchmarking.timing import PeakMemory, measure, wait
from fastamr.data import PackedSkeletons
from fastamr.models import SkeletonModel, build_model
from fastamr.ops.common.backends import choose, watched

from .common import PLAIN, PRODUCTS, Context, free, say, told, usable

_REPLAYS, _PROFILED, _SHOWN = 50, 5, 40
# What each choice may be, most telling first; the side branch is a GPU's.
_CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "cuda": {
        "attention": ("cuda", "sdpa"),
        "products": ("triton", "torch"),
        "gradients": ("torch", "triton"),
        "branch": (False, True),
    },
    "cpu": {
        "attention": ("cpp", "sdpa"),
        "products": ("cpp", "triton"),
        "gradients": ("torch",),
        "branch": (False,),
    },
}


@dataclass(frozen=True)
class Form:
    """How an update is made; None leaves the choice to ``auto``.

    Attributes:
        attention: back end of the attention.
        products: back end of the products with a pass at their end and of the row passes, where they have it.
        gradients: back end of the weights' gradients.
        branch: the weights' gradients on a second branch of the graph.
    """

    attention: str | None = None
    products: str | None = None
    gradients: str | None = None
    branch: bool = False

    @property
    def name(self) -> str:
        """In words."""
        if self == Form():
            return "default"
        words = [f"{name} {value}" for name, value in asdict(self).items() if value is not None]
        return ", ".join(words)

    def backends(self, context: Context) -> dict[str, str]:
        """What it names, by op.

        Raises:
            LookupError: a back end that this device does not have.
        """
        wanted = {
            "visible_attention": self.attention,
            "weight_gradient": self.gradients,
            PRODUCTS[0]: self.products,
        }
        for op, name in wanted.items():
            if name is not None and name not in usable(op, context):
                raise LookupError(f"{op} has no back end {name} that is ready here")
        rest = {op: self.products for op in PRODUCTS if self.products in usable(op, context)}
        return {op: name for op, name in (wanted | rest).items() if name is not None}


def forms(context: Context) -> Iterator[Form]:
    """The default, and every combination."""
    yield Form()
    choices = _CHOICES[context.device.type]
    for values in itertools.product(*choices.values()):
        yield Form(**dict(zip(choices, values, strict=True)))


class Updates:
    """Builds updates of one model on the same data, and knows what the first one's loss must be."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._data: PackedSkeletons = ntu_sized(context.sequences).to(context.device)
        self._exact: float | None = None

    def step(self, branch: bool) -> FastStep:
        """A new step, always with the same weights."""
        context = self.context
        torch.manual_seed(0)
        model = build_model("amr", context.architecture).to(context.device).train()
        model.set_side_branch(branch)
        return FastStep(model, self._data, sequences=context.sequences, precision=context.precision)

    def exact(self, step: FastStep) -> float:
        """The first update's loss in float64, for a step that was not called yet."""
        if self._exact is None:
            model: SkeletonModel = step.model
            self._exact = exact_loss(model, model.state_dict(), *step.first_batch())
        return self._exact


def steps(context: Context) -> None:
    """Time the update in every form."""
    updates, took = Updates(context), 0.0
    _wait_for_attention(context)
    for form in forms(context):
        if context.left < 1.5 * took:
            say(form=asdict(form), name=form.name, skipped="no time was left")
            continue
        began = time.monotonic()
        with told(form=asdict(form), name=form.name):
            _time(updates, form)
        free(context)
        took = time.monotonic() - began


def again(context: Context) -> None:
    """The default once more: after tuning it may be another."""
    with told(name="default"):
        _time(Updates(context), Form())


def _wait_for_attention(context: Context) -> None:
    """The CUDA attention is compiled beside the first parts; load it, so that it counts as there."""
    if context.on_gpu and (reason := native.why_not("cuda")) is not None:
        say(op="visible_attention", backend="cuda", skipped=reason, text=f"no CUDA attention: {reason}")


def _time(updates: Updates, form: Form) -> None:
    """Check the first loss, bring the update into its final form, and time it."""
    context = updates.context
    about = {"form": asdict(form), "name": form.name}
    try:
        named = form.backends(context)
    except LookupError as error:
        return say(**about, skipped=str(error))
    memory, began = PeakMemory(context.device), time.perf_counter()
    with ops.backend(**named):
        step = updates.step(form.branch)
        exact = updates.exact(step)
        with watched() as calls:
            first = float(step())
        used = {f"{op}={choose(op, problem, name)}" for op, problem, name in calls}
        for _ in range(step.preparation):
            step()
        wait(context.device)
        prepared = time.perf_counter() - began
        times = measure(step, context.device, rounds=3 if context.small else _REPLAYS)
        last = float(step())
    apart = abs(first - exact) / abs(exact)
    plain = sorted(name for name in used if name.partition("=")[2] in PLAIN)
    ms = statistics.median(times) * 1e3
    spread = (min(times) * 1e3, max(times) * 1e3)
    recorded = "" if step.is_graph or not context.on_gpu else f", NOT recorded: {step.graph_reason}"
    right = apart <= TOLERANCES[context.precision] and not recorded
    return say(
        **about,
        ok=right,
        uses=sorted(name for name in used if name not in plain and not name.endswith("=fused")),
        plain=plain,
        ms=ms,
        least_ms=spread[0],
        most_ms=spread[1],
        sequences_per_second=context.sequences / ms * 1e3,
        error_of_loss=apart,
        last_loss=last,
        recorded=step.is_graph,
        graph_reason=step.graph_reason,
        prepare_seconds=prepared,
        peak_bytes=memory.read(),
        clocks=clocks(context.device),
        text=f"{ms:7.3f} ms ({spread[0]:.3f} to {spread[1]:.3f})  {form.name}{recorded}",
    )


def profile(context: Context) -> None:
    """The kernels of the default update and of the fastest that ``steps`` found."""
    best = fastest(context)
    updates = Updates(context)
    for form in dict.fromkeys([Form(), *([] if best is None else [best])]):
        with told(name=form.name):
            _profile(updates, form)
        free(context)
    if best is None:
        say(skipped="no form of the update was measured and right: only the default is profiled")


def fastest(context: Context) -> Form | None:
    """The fastest form among this session's results that is right and that the gates let through; None without one."""
    found: list[tuple[float, Form]] = []
    try:
        lines = (context.out / "results.jsonl").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        result = json.loads(line)
        if result["part"] == "session" and "parts" in result:
            found = []  # of an earlier session
        if result["part"] == "steps" and result.get("ok") and result.get("gate"):
            found.append((result["ms"], Form(**result["form"])))
    return min(found, key=lambda each: each[0])[1] if found else None


def _profile(updates: Updates, form: Form) -> None:
    context = updates.context
    _wait_for_attention(context)
    with ops.backend(**form.backends(context)):
        step = updates.step(form.branch)
        trace = context.out / f"trace_{'default' if form == Form() else 'fastest'}.json"
        found = profile_step(
            step, context.device, updates=_PROFILED, warmup=step.preparation + 1, trace=trace, what=form.name
        )
    calls = sum(row.calls for row in found.kernels)
    say(
        name=form.name,
        wall_ms=found.wall_ms,
        busy_ms=found.busy_ms,
        gap_ms=found.gap_ms,
        launches=found.launches,
        kernels=calls,
        text=f"{form.name}: {calls:.0f} kernels, {found.busy_ms:.2f} ms busy, {found.gap_ms:.2f} ms gaps",
    )
    for row in found.kernels[:_SHOWN]:
        say(name=form.name, kernel=row.name[:200], calls=row.calls, ms=row.ms, share=row.share)
    for row in found.kernels[:10]:
        say(text=f"  {row.share:6.1%} {row.ms:8.3f} ms {row.calls:5.0f} x {row.name[:100]}")
