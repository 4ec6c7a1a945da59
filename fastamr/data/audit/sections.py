"""The audit as tables and sentences, which the text and the page both show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...documents import printable

QUALITY = {
    "not_finite": "coordinates NaN or infinite",
    "empty_frames": "empty frames",
    "repeated_frames": "repeated frames",
    "zero_joints": "joints at the origin",
    "joint_jumps": "jumps of single joints",
    "body_jumps": "jumps of whole bodies",
    "freezes": "frozen joints (frames)",
}


class Section(NamedTuple):
    """A part of the audit.

    Attributes:
        title: its heading on a page.
        intro: a sentence before the table, or "".
        rows: the table; the first row is its head unless ``has_head`` is False.
        left: columns that begin at the left, the others are numbers.
        numbers: of each row below the head, drawn as bars; none without a drawing.
        notes: lines below the table.
        has_head: whether the first row names the columns.
    """

    title: str
    intro: str = ""
    rows: Sequence[Sequence[str]] = ()
    left: tuple[int, ...] = (0,)
    numbers: Sequence[int] = ()
    notes: Sequence[str] = ()
    has_head: bool = True


def sections(report: dict[str, Any]) -> Iterator[Section]:
    """Yield the parts of an audit in the order of the text, the findings last.

    Args:
        report: what :func:`~fastamr.data.audit.audit` returns.
    """
    counts = report["counts"]
    yield _facts(report)
    unlabelled = {"name": "(unlabelled)", "clips": counts["unlabelled"], "splits": {}}
    yield _clips_by("class", [*counts["classes"], *([unlabelled] if counts["unlabelled"] else [])])
    for name, rows in counts["columns"].items():
        yield _clips_by(name, rows)
    yield _splits(counts)
    yield _lengths(counts["lengths"])
    yield _quality(report["quality"])
    yield _duplicates(report["duplicates"])
    found = [[finding["kind"], finding["text"]] for finding in report["findings"]]
    yield Section("findings", "" if found else "none", found, left=(0, 1), has_head=False)


def _facts(report: dict[str, Any]) -> Section:
    data, counts, trunk = report["data"], report["counts"], report["body_size"]["trunk"]
    fps, many = data["fps"], counts["columns_of_many_values"]
    bodies = ", ".join(
        f"{clips:,} of {number} {'body' if number == '1' else 'bodies'}"
        for number, clips in counts["bodies"].items()
    )
    rows = [
        [
            "layout",
            f"{data['layout']}, {data['joints']} joints, {data['channels']} channels, {data['dtype']}",
        ],
        ["clips", f"{data['clips']:,} ({bodies})"],
        ["frames", f"{data['frames']:,} of all bodies"],
        ["body size", "unknown" if trunk is None else f"trunk of {trunk:.3g} (median)"],
        ["frame rate", fps if isinstance(fps, str) else ", ".join(f"{one:g}" for one in fps) + " per second"],
        ["pre-processing", "; ".join(map(_step, data["steps"])) or "none"],
        ["left out", f"{len(data['dropped_clips']):,} clips"],
        ["other columns", ", ".join(f"{name} ({each:,} values)" for name, each in many.items()) or "none"],
    ]
    return Section("", rows=rows, left=(0, 1), has_head=False)


def _step(step: dict[str, Any]) -> str:
    options = ", ".join(f"{name}={value}" for name, value in step.items() if name != "name")
    return f"{step['name']}({options})" if options else str(step["name"])


def _clips_by(what: str, rows: Sequence[dict[str, Any]]) -> Section:
    """Clips by value, with training / test clips for each split."""
    splits = list(rows[0]["splits"]) if rows else []
    table = [[what, "clips", *splits]]
    for row in rows:
        halves = ["{:,} / {:,}".format(*row["splits"][split]) if row["splits"] else "" for split in splits]
        table.append([row["name"], f"{row['clips']:,}", *halves])
    intro = f"clips by {printable(what)}" + (", and train / test clips of each split" if splits else "")
    return Section(f"{what}: clips", intro, table, numbers=[row["clips"] for row in rows])


def _splits(counts: dict[str, Any]) -> Section:
    if not counts["splits"]:
        return Section("splits", "no split: the file does not say which clips train and which test")
    rows = [["split", "train", "test", "neither", "in both halves"]]
    for name, split in counts["splits"].items():
        shared = [
            f"{column} {values['in_both_halves']} of {values['values']}"
            for column, values in split["columns"].items()
            if values["values"] > 1 and column in counts["columns"]
        ]
        sizes = [f"{split[key]:,}" for key in ("train", "test", "in_neither")]
        rows.append([name, *sizes, ", ".join(shared) or "-"])
    return Section("splits", rows=rows, left=(0, -1))


def _lengths(lengths: dict[str, Any]) -> Section:
    edges, numbers = lengths["histogram"]["edges"], lengths["histogram"]["counts"]
    intro = (
        "frames of a clip: {shortest} to {longest}, median {median}, 90 % within {percent_5} to "
        "{percent_95}, {single_frame} of a single frame".format(**lengths)
    )
    rows = [
        [f"{low} to {high - 1}", f"{number:,}"]
        for low, high, number in zip(edges[:-1], edges[1:], numbers, strict=True)
    ]
    return Section("lengths", intro, [["frames", "clips"], *rows], left=(), numbers=numbers)


def _quality(quality: dict[str, Any]) -> Section:
    rows = [["quality", "total", "clips", "most in"]]
    for key, name in QUALITY.items():
        row = quality[key]
        most = ", ".join(f"{clip} ({number:,})" for clip, number in list(row["most"].items())[:2])
        rows.append([name, f"{row['total']:,}", f"{row['clips']:,}", most or "-"])
    notes = [
        *_most("joints that jump most", quality["joint_jumps"]["by_joint"]),
        *_most("joints that freeze most", quality["freezes"]["by_joint"]),
        *_most("joints marked as unseen", quality["unseen_joints"]),
    ]
    if quality["centred_joints"]:
        notes.append("at the origin in every frame (centred): " + ", ".join(quality["centred_joints"]))
    return Section("quality", rows=rows, left=(0, -1), notes=notes)


def _most(what: str, by_joint: dict[str, int]) -> list[str]:
    """Return one line with the four largest numbers, or none where all are 0."""
    largest = sorted(by_joint.items(), key=lambda item: -item[1])[:4]
    shown = [f"{joint} {number:,}" for joint, number in largest if number]
    return [f"{what}: {', '.join(shown)}"] if shown else []


def _duplicates(found: dict[str, Any]) -> Section:
    near = found["near"]
    searched = f"{len(near['pairs']):,} pairs" if near["searched"] else "not looked for"
    intro = (
        f"duplicates: {found['exact']['copies']:,} exact copies in {found['exact']['groups']:,} groups; "
        f"near copies: {searched}"
    )
    limited = near["bodies_with_more_candidates_than_compared"]
    notes = []
    if limited:
        notes.append(
            f"({limited:,} bodies have more look-alikes than were compared; a near copy of these may be missing)"
        )
    rows = []
    if found["splits"]:
        intro += "\ntest clips that are copies of training clips:"
        rows = [["split", "test", "exact copies", "near copies", "repeats in train", "in test"]]
    for name, split in found["splits"].items():
        copies = [
            f"{split[f'{kind}_copies_of_training']:,} ({100 * split[f'{kind}_share']:.1f} %)"
            for kind in ("exact", "near")
        ]
        repeats = [f"{split[f'exact_copies_within_{half}']:,}" for half in ("training", "test")]
        rows.append([name, f"{split['test']:,}", *copies, *repeats])
        if split["by_class"]:
            by_class = list(split["by_class"].items())[:8]
            classes = ", ".join(f"{label} {number:,}" for label, number in by_class)
            pairs = "; ".join(f"{test} = {train}" for test, train in split["examples"][:3])
            notes.append(f"{name}: by class {classes}; for example {pairs}")
    return Section("duplicates", intro, rows, notes=notes)
