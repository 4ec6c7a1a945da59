"""Results of benchmarks as they lie in files: those of ``fastamr bench`` and of pytest-benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .noise import Rounds
from .values import flat, listing, mapping, maybe, number, plain, positive, text

RESULT_FILES = ("quick.json", "ladder.json", "profile.json")
"""What ``fastamr bench`` leaves in its folder."""

KINDS = {
    "quick": "fastamr bench quick",
    "ladder": "fastamr bench ladder",
    "profile": "fastamr bench profile",
    "pytest": "pytest-benchmark",
}
_FACTS = ("fastamr", "python", "torch", "cuda", "triton", "device_name", "device", "threads", "load")
_MOST_ROUNDS = 100_000


@dataclass(frozen=True)
class Timing:
    """One thing that was timed.

    Attributes:
        key: by which two files are compared.
        title: what it is called.
        rounds: its times; None where it has none.
        reason: why it has none.
        form: ``model, fastamr`` or ``model, plain PyTorch`` of a rung; "" of others.
        facts: what else is known of it, numbers by name.
        notes: the same, texts.
    """

    key: str
    title: str
    rounds: Rounds | None
    reason: str = ""
    form: str = ""
    facts: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A file of results.

    Attributes:
        file: its path.
        kind: one of :data:`KINDS`.
        environment: versions, device, date.
        sizes: what was measured: two files can be compared where these are the same.
        timings: in the file's order.
        ratios: of a ladder: a rung, what it is held against, how many times as fast it is.
        projected: of ``quick``: a form of the step, how much of it, how long it takes.
        note: a sentence that belongs to it.
        load: processes that wanted to run for each core when it was measured.
    """

    file: str
    kind: str
    environment: dict[str, str]
    sizes: dict[str, str]
    timings: list[Timing]
    ratios: list[list[str]] = field(default_factory=list)
    projected: list[list[str]] = field(default_factory=list)
    note: str = ""
    load: float | None = None


def kind_of(values: object) -> str | None:
    """Return the kind of results that a JSON file holds, or None for what is none."""
    if not isinstance(values, dict):
        return None
    if "benchmarks" in values and "machine_info" in values:
        return "pytest"
    kind = values.get("kind")
    return kind if isinstance(kind, str) and kind in _READERS else None


def read_result(kind: str, values: dict[str, Any], file: str) -> Result:
    """Return a file of a kind of :data:`KINDS`.

    Raises:
        ValueError: something in it is not what it should be.
        KeyError: something is missing.
    """
    return _READERS[kind](values, file)


def _environment(values: dict[str, Any]) -> tuple[dict[str, str], float | None]:
    facts = mapping(values["environment"], "environment")
    shown = {name: plain(facts[name]) for name in _FACTS if facts.get(name) is not None}
    when = " ".join(plain(facts[name]) for name in ("date", "time") if name in facts)
    return {**shown, "date": when}, maybe(facts.get("load"))


def _read_ladder(values: dict[str, Any], file: str) -> Result:
    from ..benchmarking.ladder_report import RATIOS
    from ..benchmarking.timing import duration
    from ..tables import times_text

    environment, load = _environment(values)
    sizes = {
        "sequences": plain(values["sequences"]),
        "clips (S x T x V x C)": plain(values["clip_shape"]),
        **flat(mapping(values["architecture"], "architecture"), "model."),
    }
    ratios = []
    for entry in listing(values["ratios"], "ratios"):
        for name, words in RATIOS.items():
            one = entry.get(name)
            told = (
                "not measured"
                if one is None
                else f"{times_text(positive(one['times'], 'times'))} ({text(one['against'], 'against')})"
            )
            ratios.append([text(entry["rung"], "rung"), words, told])
    projected = []
    for each in listing(values.get("projections", []), "projections"):
        for total in listing(each["totals"], "totals"):
            seconds = duration(number(total["seconds"], "seconds"))
            projected.append([text(each["title"], "title"), text(total["what"], "what"), seconds])
    timings = [_rung(row) for row in listing(values["rows"], "rows")]
    return Result(file, values["kind"], environment, sizes, timings, ratios, projected, load=load)


def _rung(row: dict[str, Any]) -> Timing:
    name, title = text(row["name"], "name"), text(row["title"], "title")
    reason = plain(row.get("reason")) if row.get("reason") is not None else ""
    facts = {
        key: found
        for key in ("sequences_per_second", "peak_bytes", "mfu", "prepare_seconds", "error")
        if (found := maybe(row.get(key))) is not None
    }
    rounds = None
    if row["ms"] is not None:
        rounds = _rounds(row["rounds_ms"], positive(row["ms"], f"ms of {name}"), f"rounds_ms of {name}")
    model = {"amr": "AMR", "skeleton_mae": "SkeletonMAE"}.get(row["model"], plain(row["model"]))
    form = f"{model}, {'fastamr' if row['fast'] else 'plain PyTorch'}"
    eager = plain(row["graph_reason"]) if row.get("graph_reason") is not None else ""
    return Timing(name, title, rounds, reason, form, facts, {"graph_reason": eager} if eager else {})


def _rounds(values: object, median: float, what: str) -> Rounds:
    times = [positive(value, what) for value in listing(values, what)[:_MOST_ROUNDS]]
    return Rounds.of(times, median) if times else Rounds(median)


def _read_profile(values: dict[str, Any], file: str) -> Result:
    environment, load = _environment(values)
    launches = {name: number(count, name) for name, count in mapping(values["launches"], "launches").items()}
    timings = [
        Timing("update", "an update under the profiler", Rounds(positive(values["wall_ms"], "wall_ms"))),
        Timing("busy", "of that, busy", Rounds(number(values["busy_ms"], "busy_ms"))),
        Timing("gaps", "of that, gaps", Rounds(number(values["gap_ms"], "gap_ms"))),
    ]
    for row in listing(values["kernels"], "kernels"):
        name = text(row["name"], "name of a kernel")
        facts = {key: number(row[key], f"{key} of {name[:60]}") for key in ("calls", "share")}
        ms = number(row["ms"], f"ms of {name[:60]}")
        timings.append(Timing(f"kernel {name}", name, Rounds(ms), facts=facts, form="kernel"))
    told = ", ".join(f"{count:g} {name}" for name, count in launches.items())
    note = f"Launches an update: {told or 'none'}; {plain(values['updates'])} updates were profiled."
    sizes = {"step": text(values["what"], "what")}
    return Result(file, "profile", environment, sizes, timings, note=note, load=load)


def _read_pytest(values: dict[str, Any], file: str) -> Result:
    machine = mapping(values["machine_info"], "machine_info")
    timings: list[Timing] = []
    extras: dict[str, str] = {}
    for row in listing(values["benchmarks"], "benchmarks"):
        name = text(row["fullname"], "fullname")
        extra = mapping(row.get("extra_info", {}), f"extra_info of {name[:60]}")
        extras |= {key: plain(extra[key]) for key in _FACTS if key in extra} | (
            {"device_name": plain(extra["device"])} if "device" in extra else {}
        )
        known = {key: plain(extra[key]) for key in ("op", "shape", "dtype", "backend") if extra.get(key)}
        timings.append(
            Timing(name, text(row["name"], "name"), _statistics(row["stats"], name[:60]), notes=known)
        )
    cpu = mapping(machine.get("cpu", {}), "cpu")
    facts = {
        **extras,
        "python": plain(machine.get("python_version", "unknown")),
        "processor": plain(cpu.get("brand_raw", machine.get("processor", "unknown"))),
        "system": plain(machine.get("system", "unknown")),
        "date": plain(values.get("datetime", "unknown")),
    }
    facts.pop("device", None)
    return Result(file, "pytest", facts, {}, timings)


def _statistics(stats: object, name: str) -> Rounds:
    """Rounds of a case, milliseconds; the file may keep them all, or their statistics."""
    given = mapping(stats, f"stats of {name}")
    if given.get("data"):
        times = [
            1e3 * number(value, f"data of {name}") for value in listing(given["data"], f"data of {name}")
        ]
        return Rounds.of(times[:_MOST_ROUNDS], 1e3 * number(given["median"], f"median of {name}"))
    median, low, high, mean, deviation = (
        1e3 * number(given[key], f"{key} of {name}") for key in ("median", "q1", "q3", "mean", "stddev")
    )
    return Rounds(median, (), int(number(given["rounds"], f"rounds of {name}")), low, high, mean, deviation)


_READERS: dict[str, Callable[[dict[str, Any], str], Result]] = {
    "quick": _read_ladder,
    "ladder": _read_ladder,
    "profile": _read_profile,
    "pytest": _read_pytest,
}
