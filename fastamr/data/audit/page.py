"""The audit as one HTML page with histograms; it loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  background: #fff; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; margin: .6rem 0 } td, th { padding: .15rem .7rem; text-align: right }
td:first-child, th:first-child, td.text { text-align: left } tr + tr { border-top: 1px solid #e4e4e4 }
th { font-weight: 600; background: #f3f3f3 } li.leak, li.nan, li.labels { font-weight: 600 }
svg { display: block; margin: .6rem 0; max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif }
.bar { fill: #3b6ea5 } .axis { stroke: #555 } .note { color: #555 }
"""
_WIDTH, _HEIGHT, _LEFT, _BELOW = 760, 220, 56, 42


def format_page(report: dict[str, Any], title: str) -> str:
    """Return the whole page.

    Args:
        report: what :func:`~fastamr.data.audit.audit` returns.
        title: its heading, for example the file's name.
    """
    counts, data = report["counts"], report["data"]
    findings = "".join(
        f'<li class="{escape(item["kind"])}"><b>{escape(item["kind"])}</b>: {escape(item["text"])}</li>'
        for item in report["findings"]
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{data['clips']:,} clips, {data['bodies']:,} bodies, {data['frames']:,} frames; layout "
        f"{escape(str(data['layout']))} ({data['joints']} joints, {data['channels']} channels, {data['dtype']}).</p>",
        f"<p>Pre-processing: {escape(_steps(data['steps']))}.</p>",
        f"<h2>Findings</h2>{f'<ul>{findings}</ul>' if findings else '<p>None.</p>'}",
        "<h2>Duplicates</h2>" + _duplicates(report["duplicates"]),
        "<h2>Lengths</h2>" + _lengths(counts["lengths"]),
        "<h2>Classes</h2>" + _bars([(row["name"], row["clips"]) for row in counts["classes"]], "clips"),
        _halves("class", counts["classes"]),
    ]
    for name, rows in counts["columns"].items():
        parts.append(
            f"<h2>Column {escape(name)}</h2>" + _bars([(row["name"], row["clips"]) for row in rows], "clips")
        )
        parts.append(_halves(name, rows))
    parts.append("<h2>Quality</h2>" + _quality(report["quality"]))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _steps(steps: Sequence[dict[str, Any]]) -> str:
    texts = [
        step["name"] + "".join(f" {name}={value}" for name, value in step.items() if name != "name")
        for step in steps
    ]
    return "; ".join(texts) or "none"


def _lengths(lengths: dict[str, Any]) -> str:
    edges, counts = lengths["histogram"]["edges"], lengths["histogram"]["counts"]
    inner, high = _WIDTH - _LEFT - 10, _HEIGHT - _BELOW - 14
    step, most = inner / len(counts), max(counts)
    shapes = []
    for place, number in enumerate(counts):
        tall = high * number / most
        x, y = _LEFT + place * step, 14 + high - tall
        tip = f"{edges[place]} to {edges[place + 1] - 1} frames: {number:,} clips"
        shapes.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{y:.1f}" width="{max(step - 2, 1):.1f}" height="{tall:.1f}">'
            f"<title>{tip}</title></rect>"
        )
        if place % max(1, len(counts) // 8) == 0:
            shapes.append(f'<text x="{x:.1f}" y="{28 + high}">{edges[place]}</text>')
    bottom = 14 + high
    shapes += [
        f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{_WIDTH - 10}" y2="{bottom}"/>',
        f'<line class="axis" x1="{_LEFT}" y1="14" x2="{_LEFT}" y2="{bottom}"/>',
        f'<text x="{_LEFT - 6}" y="20" text-anchor="end">{most:,}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{_LEFT + inner / 2}" y="{_HEIGHT - 2}" text-anchor="middle">frames of a clip</text>',
        f'<text x="12" y="{14 + high / 2}" transform="rotate(-90 12 {14 + high / 2})" '
        'text-anchor="middle">clips</text>',
    ]
    note = (
        "{shortest} to {longest} frames, median {median}, 90 % within {percent_5} to {percent_95}; "
        "{single_frame} clips of a single frame."
    ).format(**lengths)
    return f"<p>{note}</p>" + _svg(_WIDTH, _HEIGHT, shapes, "histogram of clip lengths")


def _bars(rows: Sequence[tuple[str, int]], unit: str) -> str:
    """Return horizontal bars with names and numbers."""
    if not rows:
        return "<p>None.</p>"
    most, height = max(max(number for _, number in rows), 1), 20 * len(rows) + 24
    left = min(300, 20 + 7 * max(len(name) for name, _ in rows))
    shapes = []
    for place, (name, number) in enumerate(rows):
        y, wide = 4 + 20 * place, (_WIDTH - left - 90) * number / most
        shapes.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(_short(name))}</text>')
        shapes.append(f'<rect class="bar" x="{left}" y="{y}" width="{wide:.1f}" height="16"/>')
        shapes.append(f'<text x="{left + wide + 6:.1f}" y="{y + 13}">{number:,}</text>')
    shapes.append(f'<text x="{left}" y="{height - 4}">{escape(unit)}</text>')
    return _svg(_WIDTH, height, shapes, f"{unit} by name")


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _svg(width: int, height: int, shapes: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">' + "".join(shapes) + "</svg>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _halves(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return training and test clips by value and split; nothing where there is no split."""
    splits = list(rows[0]["splits"]) if rows else []
    if not splits:
        return ""
    lines = [
        [row["name"], f"{row['clips']:,}", *("{:,} / {:,}".format(*row["splits"][split]) for split in splits)]
        for row in rows
    ]
    return _table([name, "clips", *(f"{split} (train / test)" for split in splits)], lines)


def _quality(quality: dict[str, Any]) -> str:
    names = {
        "not_finite": "coordinates that are NaN or infinite",
        "empty_frames": "empty frames",
        "repeated_frames": "repeated frames",
        "zero_joints": "joints at the origin",
        "joint_jumps": "jumps of single joints",
        "body_jumps": "jumps of whole bodies",
        "freezes": "frozen joints (frames)",
    }
    rows = [[text, f"{quality[key]['total']:,}", f"{quality[key]['clips']:,}"] for key, text in names.items()]
    parts = [_table(["what", "total", "clips"], rows)]
    for key, text in (("joint_jumps", "jumps"), ("freezes", "frozen frames")):
        by_joint = quality[key]["by_joint"]
        if any(by_joint.values()):
            parts.append(f"<p>{text.capitalize()} by joint</p>" + _bars(list(by_joint.items()), text))
    if quality["farthest_jumps"]:
        rows = [
            [jump["clip"], str(jump["frame"]), jump["joint"], f"{jump['body_sizes']:.2f}"]
            for jump in quality["farthest_jumps"]
        ]
        parts.append(_table(["farthest jumps: clip", "frame", "joint", "body sizes"], rows))
    return "".join(parts)


def _duplicates(found: dict[str, Any]) -> str:
    near = found["near"]
    pairs = (
        f"{len(near['pairs']):,} pairs of near copies" if near["searched"] else "near copies not looked for"
    )
    parts = [
        f"<p>{found['exact']['copies']:,} exact copies in {found['exact']['groups']:,} groups; {pairs}.</p>"
    ]
    if found["splits"]:
        rows = [
            [
                name,
                f"{split['test']:,}",
                f"{split['exact_copies_of_training']:,} ({100 * split['exact_share']:.1f} %)",
                f"{split['near_copies_of_training']:,} ({100 * split['near_share']:.1f} %)",
            ]
            for name, split in found["splits"].items()
        ]
        parts.append(
            _table(["split", "test clips", "exact copies of training", "near copies of training"], rows)
        )
    for name, split in found["splits"].items():
        if split["by_class"]:
            parts.append(f"<p>Leaked test clips of split {escape(name)} by class</p>")
            parts.append(_bars(list(split["by_class"].items()), "clips"))
            rows = [list(pair) for pair in split["examples"]]
            parts.append(_table(["for example: test clip", "training clip"], rows))
    return "".join(parts)
