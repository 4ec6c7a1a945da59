"""The audit as a readable table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_BAR = 30
_MOST_ROWS = 130
_MOST_SPLITS = 6


def format_audit(report: dict[str, Any], title: str = "") -> str:
    """Return what ``fastamr check`` prints.

    Args:
        report: what :func:`~fastamr.data.audit.audit` returns.
        title: the first line, for example the file's name.
    """
    parts = [title] if title else []
    parts += [
        _facts(report),
        _counts(report["counts"]),
        *(_column(name, rows) for name, rows in report["counts"]["columns"].items()),
        _splits(report),
        _histogram(report["counts"]["lengths"]),
        _quality(report["quality"]),
        _duplicates(report["duplicates"]),
        _findings(report["findings"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _facts(report: dict[str, Any]) -> str:
    data, counts = report["data"], report["counts"]
    steps = [_step(step) for step in data["steps"]] or ["none"]
    fps = data["fps"]
    bodies = ", ".join(
        f"{clips:,} of {number} {'body' if number == '1' else 'bodies'}"
        for number, clips in counts["bodies"].items()
    )
    many = counts["columns_of_many_values"]
    rows = [
        (
            "layout",
            f"{data['layout']}, {data['joints']} joints, {data['channels']} channels, {data['dtype']}",
        ),
        ("clips", f"{data['clips']:,} ({bodies})"),
        ("frames", f"{data['frames']:,} of all bodies"),
        (
            "frame rate",
            fps if isinstance(fps, str) else ", ".join(f"{rate:g}" for rate in fps) + " per second",
        ),
        ("pre-processing", "; ".join(steps)),
        ("left out", f"{len(data['dropped_clips']):,} clips"),
        (
            "other columns",
            ", ".join(f"{name} ({number:,} values)" for name, number in many.items()) or "none",
        ),
    ]
    return "\n".join(f"{name:<16}{value}" for name, value in rows)


def _step(step: dict[str, Any]) -> str:
    options = ", ".join(f"{name}={value}" for name, value in step.items() if name != "name")
    return f"{step['name']}({options})" if options else str(step["name"])


def _counts(counts: dict[str, Any]) -> str:
    rows = list(counts["classes"])
    if counts["unlabelled"]:
        rows.append({"name": "(unlabelled)", "clips": counts["unlabelled"], "splits": {}})
    return _table("class", rows, list(counts["splits"]))


def _column(name: str, rows: list[dict[str, Any]]) -> str:
    return _table(name, rows, list(rows[0]["splits"]) if rows else [])


def _table(what: str, rows: list[dict[str, Any]], splits: Sequence[str]) -> str:
    """Return clips by value, with training / test clips for each split (of the first six, to fit a terminal)."""
    shown = list(splits)[:_MOST_SPLITS]
    lines = [[what, "clips", *shown]]
    for row in rows[:_MOST_ROWS]:
        halves = ["{} / {}".format(*row["splits"].get(split, ("", ""))) for split in shown]
        lines.append([row["name"], f"{row['clips']:,}", *halves])
    text = _aligned(lines)
    if shown:
        text = text.replace("\n", "  (train / test)\n", 1)
    hidden = len(rows) - _MOST_ROWS
    return text + (f"\n... and {hidden} more (see --json)" if hidden > 0 else "")


def _splits(report: dict[str, Any]) -> str:
    splits = report["counts"]["splits"]
    if not splits:
        return "no split: the file does not say which clips train and which test"
    lines = [["split", "train", "test", "neither", "in both halves"]]
    for name, split in splits.items():
        shared = [
            f"{column} {values['in_both_halves']} of {values['values']}"
            for column, values in split["columns"].items()
            if values["values"] > 1 and column in report["counts"]["columns"]
        ]
        sizes = [f"{split[key]:,}" for key in ("train", "test", "in_neither")]
        lines.append([name, *sizes, ", ".join(shared) or "-"])
    return _aligned(lines, last_left=True)


def _histogram(lengths: dict[str, Any]) -> str:
    edges, counts = lengths["histogram"]["edges"], lengths["histogram"]["counts"]
    lines = [
        "frames of a clip: {shortest} to {longest}, median {median}, 90 % within {percent_5} to "
        "{percent_95}, {single_frame} of a single frame".format(**lengths)
    ]
    for low, high, number in zip(edges[:-1], edges[1:], counts, strict=True):
        bar = "#" * -(-_BAR * number // max(counts))
        lines.append(f"{low:>7} to {high - 1:<5} {bar:<{_BAR}} {number:,}")
    return "\n".join(lines)


def _quality(quality: dict[str, Any]) -> str:
    names = {
        "not_finite": "coordinates NaN or infinite",
        "empty_frames": "empty frames",
        "repeated_frames": "repeated frames",
        "zero_joints": "joints at the origin",
        "joint_jumps": "jumps of single joints",
        "body_jumps": "jumps of whole bodies",
        "freezes": "frozen joints (frames)",
    }
    lines = [["quality", "total", "clips", "most in"]]
    for key, name in names.items():
        row = quality[key]
        most = ", ".join(f"{clip} ({number:,})" for clip, number in list(row["most"].items())[:2])
        lines.append([name, f"{row['total']:,}", f"{row['clips']:,}", most or "-"])
    notes = []
    for key, what in (("joint_jumps", "jump most"), ("freezes", "freeze most")):
        notes += _most(f"joints that {what}", quality[key]["by_joint"])
    notes += _most("joints marked as unseen", quality["unseen_joints"])
    if quality["centred_joints"]:
        notes.append("at the origin in every frame (centred): " + ", ".join(quality["centred_joints"]))
    return "\n".join([_aligned(lines, last_left=True), *notes])


def _most(what: str, by_joint: dict[str, int]) -> list[str]:
    """Return one line with the four largest numbers, or none where all are 0."""
    largest = sorted(by_joint.items(), key=lambda item: -item[1])[:4]
    shown = [f"{joint} {number:,}" for joint, number in largest if number]
    return [f"{what}: {', '.join(shown)}"] if shown else []


def _duplicates(found: dict[str, Any]) -> str:
    near = found["near"]
    searched = f"{len(near['pairs']):,} pairs" if near["searched"] else "not looked for"
    lines = [
        f"duplicates: {found['exact']['copies']:,} exact copies in {found['exact']['groups']:,} groups; "
        f"near copies: {searched}"
    ]
    limited = near["bodies_with_more_candidates_than_compared"]
    if limited:
        lines.append(
            f"({limited:,} bodies have more look-alikes than were compared; a near copy of these may be missing)"
        )
    if found["splits"]:
        table = [["split", "test", "exact copies", "near copies", "repeats in train", "in test"]]
        for name, split in found["splits"].items():
            table.append(
                [
                    name,
                    f"{split['test']:,}",
                    f"{split['exact_copies_of_training']:,} ({100 * split['exact_share']:.1f} %)",
                    f"{split['near_copies_of_training']:,} ({100 * split['near_share']:.1f} %)",
                    f"{split['exact_copies_within_training']:,}",
                    f"{split['exact_copies_within_test']:,}",
                ]
            )
        lines += ["test clips that are copies of training clips:", _aligned(table)]
    for name, split in found["splits"].items():
        if split["by_class"]:
            classes = ", ".join(
                f"{label} {number:,}" for label, number in list(split["by_class"].items())[:8]
            )
            pairs = "; ".join(f"{test} = {train}" for test, train in split["examples"][:3])
            lines.append(f"{name}: by class {classes}; for example {pairs}")
    return "\n".join(lines)


def _findings(findings: list[dict[str, str]]) -> str:
    if not findings:
        return "findings: none"
    return "\n".join(["findings", *(f"  {finding['kind']:<12}{finding['text']}" for finding in findings)])


def _aligned(lines: Iterable[Sequence[str]], *, last_left: bool = False) -> str:
    """Return rows as columns: the first left, the others right (the last one left where it is text)."""
    rows = [list(row) for row in lines]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            text.ljust(width) if place == 0 or (last_left and place == last) else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
