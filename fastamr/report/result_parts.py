"""What a report says of benchmarks: each result, and two of one kind side by side, with what differs beyond noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..benchmarking.ladder_report import memory_text
from ..pages import Cell, Chart, Mark, Part, Table, Text
from ..tables import figure, times_text
from .charts import draw_bars
from .noise import LEVEL, compare
from .results import KINDS, Result, Timing

BUSY = 0.5
"""With so many waiting processes for each core times do not hold, as ``fastamr bench`` warns."""

_MOST_BARS = 40
_MOST_KERNELS = 15
_MARKS: dict[str, Mark] = {"slower": "worse", "faster": "better"}


def result_parts(results: Sequence[Result]) -> Iterator[Part]:
    """Yield the parts about results of benchmarks, those of one kind together."""
    for kind, what in KINDS.items():
        same = [result for result in results if result.kind == kind]
        blocks: list[Table | Text | Chart] = []
        for result in same:
            blocks += _result(result)
        yield Part(f"Results of {what}", blocks)
        for later in same[1:]:
            yield Part(f"Compared: {later.file} against {same[0].file}", list(_comparison(same[0], later)))


def time_text(ms: float) -> str:
    """Return milliseconds in the unit that suits them: ``12.3 µs``, ``4.56 ms``, ``1.23 s``."""
    if abs(ms) < 0.1:
        return f"{figure(1e3 * ms)} µs"
    return f"{figure(ms)} ms" if abs(ms) < 10_000 else f"{figure(ms / 1e3)} s"


def _result(result: Result) -> Iterator[Table | Text | Chart]:
    where = ", ".join(
        result.environment[name] for name in ("device_name", "date") if result.environment.get(name)
    )
    if result.kind == "profile":
        yield from _profile(result, where)
        return
    timed = [timing for timing in result.timings if timing.rounds is not None]
    if result.kind != "pytest" and 0 < len(timed) <= _MOST_BARS:
        bars = [(one.title, [(one.form, one.rounds.median)]) for one in timed if one.rounds is not None]
        yield draw_bars(
            f"one pre-training step: {result.file}", bars, "milliseconds of one update", time_text, where
        )
    yield Table(
        _rows(result.timings), left=(0,), title=f"{result.file} ({where})", folded=len(timed) > _MOST_BARS
    )
    missing = [
        [one.title, one.reason or "the file does not say"] for one in result.timings if one.rounds is None
    ]
    for rows, title in (
        ([["rung", "against", "times as fast"], *result.ratios], "speed-ups"),
        (
            [["form of the step", "what", "time"], *result.projected],
            "projected, not measured: NTU RGB+D 60 there",
        ),
        ([["what", "why"], *missing], f"{len(missing)} without a time"),
    ):
        if len(rows) > 1:
            yield Table(rows, left=(0, 1), title=title, folded=rows[0][1] == "why")
    yield from _busy(result)


def _rows(timings: Sequence[Timing]) -> list[list[str]]:
    """A table of what was timed; columns that nothing fills are left out."""
    notes = list(dict.fromkeys(name for one in timings for name in one.notes if name != "graph_reason"))
    facts = {
        "sequences_per_second": ("sequences/s", figure),
        "peak_bytes": ("peak memory", lambda value: memory_text(int(value))),
        "mfu": ("MFU", lambda value: f"{value:.1%}"),
        "error": ("loss error", lambda value: f"{value:.1e}"),
    }
    known = [name for name in facts if any(name in one.facts for one in timings)]
    rows = [["what", "median", "middle half", "rounds", *(facts[name][0] for name in known), *notes]]
    for one in timings:
        if one.rounds is None:
            continue
        half = f"{time_text(one.rounds.low)} to {time_text(one.rounds.high)}" if one.rounds.count else "-"
        cells = [facts[name][1](one.facts[name]) if name in one.facts else "-" for name in known]
        cells += [one.notes.get(name, "-") for name in notes]
        rows.append([one.title, time_text(one.rounds.median), half, str(one.rounds.count or "-"), *cells])
    return rows


def _profile(result: Result, where: str) -> Iterator[Table | Text]:
    sums = [one for one in result.timings if one.form != "kernel"]
    kernels = [one for one in result.timings if one.form == "kernel"]
    told = "; ".join(f"{one.title}: {time_text(one.rounds.median)}" for one in sums if one.rounds is not None)
    yield Text(f"{result.file}: {result.sizes['step']} ({where}). {told}.")
    yield Text(result.note)
    for first, last, title in (
        (0, _MOST_KERNELS, "kernels and operators by time"),
        (_MOST_KERNELS, len(kernels), f"{len(kernels) - _MOST_KERNELS} more"),
    ):
        shown = kernels[first:last]
        rows = [["name", "share", "time", "calls"]]
        for one in shown:
            assert one.rounds is not None
            share, calls = one.facts["share"], one.facts["calls"]
            rows.append([one.title, f"{share:.1%}", time_text(one.rounds.median), f"{calls:g}"])
        if shown:
            shares = [max(0.0, one.facts["share"]) for one in shown]
            yield Table(rows, left=(0,), numbers=shares, title=title, folded=first > 0)
    yield from _busy(result)


def _busy(result: Result) -> Iterator[Text]:
    if result.load is not None and result.load >= BUSY:
        yield Text(
            f"{result.file}: other processes kept the machine busy ({result.load:.1f} wanted to run for each core): "
            "times do not hold",
            "warning",
        )


def _comparison(first: Result, later: Result) -> Iterator[Table | Text | Chart]:
    """Two results of one kind; where something else was measured, differences are told and none is marked."""
    other = _differences(first.sizes, later.sizes)
    if other:
        yield Text(f"Not the same was measured ({other}): nothing is marked.", "warning")
    moved = _differences(first.environment, later.environment, leave=("date", "load"))
    machine = first.environment.get("device_name") != later.environment.get("device_name")
    if moved:
        yield Text(f"Measured on: {moved}." + (" Another machine: nothing is marked." if machine else ""))
    yield from (*_busy(first), *_busy(later))
    before = {one.key: one for one in first.timings}
    shared = [(before[one.key], one) for one in later.timings if one.key in before]
    pairs = [(one, two) for one, two in shared if one.rounds is not None and two.rounds is not None]
    if first.kind == "profile":
        pairs.sort(key=lambda pair: -abs(_median(pair[1]) - _median(pair[0])))
        pairs = pairs[: 2 * _MOST_KERNELS]
    rows, counts = _compared(pairs, marked=not (other or machine))
    slower, faster = counts["slower"], counts["faster"]
    if first.kind != "profile" and not (other or machine):
        yield Text(f"{slower} slower and {faster} faster beyond noise, of {len(pairs)} in both files.")
    if pairs:
        yield Table(rows, left=(0, 1))
    for result, others in ((first, later), (later, first)):
        known = {one.key for one in others.timings}
        alone = [one.title for one in result.timings if one.key not in known]
        if alone:
            more = f" and {len(alone) - 20} more" if len(alone) > 20 else ""
            yield Text(f"only in {result.file}: {', '.join(alone[:20])}{more}")
    yield Text(_rule(first.kind))


def _compared(
    pairs: Sequence[tuple[Timing, Timing]], *, marked: bool
) -> tuple[list[list[str | Cell]], dict[str, int]]:
    rows: list[list[str | Cell]] = [["what", "verdict", "second / first", "first", "second"]]
    counts = {"slower": 0, "faster": 0}
    for one, two in pairs:
        assert one.rounds is not None
        assert two.rounds is not None
        verdict = compare(one.rounds, two.rounds) if marked else "not judged"
        if verdict in counts:
            counts[verdict] += 1
        ratio = times_text(two.rounds.median / one.rounds.median) if one.rounds.median else "-"
        told = {"slower": "SLOWER beyond noise", "faster": "faster beyond noise"}.get(verdict, verdict)
        cells = [time_text(one.rounds.median), time_text(two.rounds.median)]
        rows.append([two.title, Cell(told, _MARKS.get(verdict, "")), ratio, *cells])
    return rows, counts


def _median(timing: Timing) -> float:
    return timing.rounds.median if timing.rounds is not None else 0.0


def _rule(kind: str) -> str:
    if kind == "profile":
        return "The largest differences. A profile holds sums and no single rounds, so nothing is marked."
    return (
        "Beyond noise: the middle halves of the rounds do not meet, and chance would part them so in fewer than "
        f"{LEVEL:.0%} of all cases (rank sums; of files without single rounds Welch's test of the means). Rounds of "
        "one process share its luck: measure again before you act on one mark."
    )


def _differences(first: dict[str, str], later: dict[str, str], leave: Sequence[str] = ()) -> str:
    names = [name for name in dict.fromkeys([*first, *later]) if name not in leave]
    found = [name for name in names if first.get(name) != later.get(name)]
    return "; ".join(f"{name} {first.get(name, '-')} and {later.get(name, '-')}" for name in found)
