"""Runs and results as their commands write them, small and by hand, and what reads a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, quantiles, stdev
from typing import Any

ENVIRONMENT = {
    "fastamr": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "device": "cpu", "device_name": "CPU one",
    "threads": 2, "cuda": None, "load": 0.1, "date": "2026-11-30", "time": "10:00:00+0000",
}  # fmt: skip


def rung(name: str, times: list[float] | None, **more: Any) -> dict[str, Any]:
    row = {
        "name": name, "title": f"rung {name}", "model": "amr", "fast": True, "released": False, "reason": None,
        "ms": None if times is None else sorted(times)[len(times) // 2], "rounds_ms": times or [],
        "prepare_seconds": 0.5, "sequences_per_second": 8.0, "peak_bytes": 1 << 20, "mfu": None, "tflop": 1.0,
        "loss": 1.0, "error": 1e-7, "clocks": None, "recorded": False, "graph_reason": None, "wrong": False,
    }  # fmt: skip
    return row | more


def ladder(*rows: dict[str, Any], kind: str = "ladder", **more: Any) -> dict[str, Any]:
    values = {
        "kind": kind, "environment": ENVIRONMENT, "sequences": 2, "clip_shape": [2, 24, 25, 3],
        "architecture": {"width": 16}, "rows": list(rows),
        "ratios": [{"rung": "a", "released": {"against": "b", "times": 2.5}, "skeleton_mae": None, "amr": None}],
        "flops": "linear layers",
    }  # fmt: skip
    if kind == "quick":
        totals = [{"what": "400 epochs", "updates": 10, "epochs": 400, "seconds": 7200.0, "projected": True}]
        values["projections"] = [{"rung": "a", "title": "rung a", "totals": totals}]
    return values | more


def profile(**more: Any) -> dict[str, Any]:
    kernels = [
        {"name": f"aten::k{place}", "calls": 3.0, "ms": 9.0 - place, "share": (9 - place) / 45}
        for place in range(9)
    ]
    values = {
        "kind": "profile", "environment": ENVIRONMENT, "what": "amr, 2 sequences", "updates": 2, "wall_ms": 50.0,
        "busy_ms": 45.0, "gap_ms": 5.0, "launches": {"outermost operators": 12.0}, "kernels": kernels,
    }  # fmt: skip
    return values | more


def case(name: str, times: list[float], *, keep: bool = True) -> dict[str, Any]:
    """A case of pytest-benchmark, seconds; it keeps its rounds, or their statistics alone."""
    low, median, high = quantiles(times, n=4, method="inclusive")
    stats = {
        "min": min(times), "max": max(times), "mean": fmean(times), "stddev": stdev(times), "rounds": len(times),
        "median": median, "q1": low, "q3": high, "iqr": high - low,
    }  # fmt: skip
    extra = {"device": "CPU one", "torch": "2.13.0", "op": "attention", "shape": [2, 30], "dtype": "float32"}
    return {
        "group": None, "name": name, "fullname": f"benchmarks/bench_a.py::{name}", "params": None,
        "extra_info": extra, "stats": stats | ({"data": times} if keep else {}),
    }  # fmt: skip


def pytest_json(*cases: dict[str, Any]) -> dict[str, Any]:
    machine = {"python_version": "3.11.7", "system": "Linux", "cpu": {"brand_raw": "One"}}
    return {"machine_info": machine, "benchmarks": list(cases), "datetime": "2026-11-30T10:00:00"}


def config(**more: Any) -> dict[str, Any]:
    architecture = {"target": "motion", "normalize": "sequence", "width": 16}
    return {
        "model": "amr", "architecture": architecture, "data": ["a.safetensors"], "split": "official", "lr": 0.001,
        "seed": 0, "out": "somewhere",
    } | more  # fmt: skip


def metrics(*, sets: tuple[str, ...] = (), updates: int = 6, loss: float = 1.0) -> list[dict[str, Any]]:
    header = {
        **ENVIRONMENT, "kind": "header", "update": 0, "platform": "Linux", "started": "2026-11-30T10:00:00",
        "precision": "float32", "parameters": 6096, "updates": updates,
    }  # fmt: skip
    train = [
        {
            "kind": "train", "update": place, "epoch": place / 2, "loss": loss / place, "lr": 1e-3, "seconds": place,
            "sequences_per_second": 100.0, **{f"loss/{name}": loss for name in sets},
        }
        for place in range(1, updates + 1)
    ]  # fmt: skip
    probe = {
        "kind": "probe",
        "update": 4,
        "epoch": 2.0,
        "knn_1": 40.0,
        **{f"probe/{name}": 30.0 for name in sets},
    }
    warning = {"kind": "warning", "update": 3, "message": "the features of 'x' have collapsed"}
    return [header, *train, probe, warning]


def write_run(folder: Path, settings: dict[str, Any] | None = None, records: list[Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(settings or config()))  # JSON is YAML
    lines = [json.dumps(record) + "\n" for record in (metrics() if records is None else records)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def classifier(**more: Any) -> dict[str, Any]:
    return {
        "config": {"data": ["a.safetensors"], "split": "official", "seed": 0, "out": "x", "recipe": {}},
        "recipe": {"epochs": 3}, "clips": {"train": 20, "test": 10}, "parameters": 1234, "accuracy": 62.5,
        "warnings": ["few clips"], "versions": {},
    } | more  # fmt: skip


def distillation(**more: Any) -> dict[str, Any]:
    return {
        "config": {"teacher": "t", "data": ["a.safetensors"], "split": None, "seeds": [0, 1]},
        "student": {"width": 8}, "recipe": {"epochs": 2}, "warnings": [], "latency": None,
        "results": {
            name: {"accuracy": 50.0, "per_seed": [40.0, 60.0]} for name in ("teacher", "distilled", "labels")
        },
        "cost": {"parameters": {"teacher": 5000, "student": 700}},
    } | more  # fmt: skip


def evaluation(**more: Any) -> dict[str, Any]:
    return {
        "config": {"checkpoint": "runs/a", "data": ["ntu.safetensors"], "protocol": "all"},
        "model": {"name": "amr"}, "split": {"name": "official"}, "versions": {"torch": "2.13.0"}, "device": "cpu",
        "results": {
            "raw": {"knn_1": {"accuracy": 30.0, "per_seed": [30.0]}},
            "encoder": {"knn_1": {"accuracy": 60.0, "per_seed": [58.0, 62.0]}, "logistic": None},
        },
    } | more  # fmt: skip


class PageReader(HTMLParser):
    """What a page holds: its tags, which must all be closed, and its text."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return "\n".join(self.words)

    def row(self, first: str) -> list[str]:
        """The cells of the first table row that begins with a text."""
        return next(row for row in self.rows if row and row[0] == first)
