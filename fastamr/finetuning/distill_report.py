"""What a distillation reports: accuracy kept, parameters, latency, size of the file; as JSON and as a table."""

from __future__ import annotations

import dataclasses
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..devices import versions
from ..models import ActionClassifier
from ..tables import aligned, mean_text
from .distill_config import DistillConfig
from .model_cost import cpu_latency, file_bytes

_LABELS = {"teacher": "teacher", "distilled": "student, distilled", "labels": "student, labels only"}


def build_report(
    config: DistillConfig,
    data: dict[str, Any],
    clips: dict[str, int],
    *,
    teacher: tuple[ActionClassifier, Path, float],
    student: tuple[ActionClassifier, Path],
    runs: Mapping[str, Sequence[dict[str, Any]]],
) -> dict[str, Any]:
    """Put the results of a distillation together; latency is measured here.

    Args:
        config: the configuration.
        data: what describes the data.
        clips: ``train`` (labelled), ``test`` and, where there are some, ``unlabelled``.
        teacher: the teacher on the CPU, its folder, and its test accuracy in percent.
        student: the student on the CPU and its folder.
        runs: results of the students by kind, in the order of the seeds.

    Returns:
        ``config``, ``versions``, ``data``, ``clips``, ``results`` (accuracy, mean and per seed, of ``teacher``,
        ``distilled`` and ``labels``), ``kept`` (points lost, percent of the teacher's accuracy, points gained over the
        labels alone), ``cost`` (parameters, percent fewer, bytes of the files) and ``latency`` (None when off).
    """
    big, big_folder, accuracy = teacher
    small, small_folder = student
    results: dict[str, Any] = {"teacher": {"accuracy": accuracy, "per_seed": [accuracy]}}
    for kind, done in runs.items():
        values = [run["accuracy"] for run in done]
        results[kind] = {"accuracy": statistics.fmean(values), "per_seed": values, "runs": list(done)}
    reached, alone = results["distilled"]["accuracy"], results["labels"]["accuracy"]
    counts = {"teacher": big.num_parameters(), "student": small.num_parameters()}
    latency = None
    if config.latency:
        latency = cpu_latency({"teacher": big, "student": small})
        for entry in latency["batches"].values():
            entry["speed_up"] = entry["milliseconds"]["teacher"] / entry["milliseconds"]["student"]
    return {
        "config": dataclasses.asdict(config),
        "student": dataclasses.asdict(config.student_config()),
        "recipe": dataclasses.asdict(config.student_recipe()),
        "versions": versions(),
        "machine": platform.machine(),
        "data": data,
        "clips": clips,
        "results": results,
        "kept": {
            "points_lost": accuracy - reached,
            "percent": 100.0 * reached / accuracy if accuracy else None,
            "points_over_labels": reached - alone,
        },
        "cost": {
            "parameters": counts,
            "percent_fewer": 100.0 * (1 - counts["student"] / counts["teacher"]),
            "bytes": {"teacher": file_bytes(big_folder), "student": file_bytes(small_folder)},
        },
        "latency": latency,
    }


def format_report(report: dict[str, Any]) -> str:
    """Return the report as text: a table, and a line on what is kept."""
    latency = report["latency"]
    sizes = [] if latency is None else list(latency["batches"])
    lines = [["", "accuracy", "parameters", "file", *(f"{size} clip{'s'[: size != '1']}" for size in sizes)]]
    for row, label in _LABELS.items():
        one = "teacher" if row == "teacher" else "student"
        cost = report["cost"]
        lines.append(
            [
                label,
                mean_text(report["results"][row]["per_seed"], "+-"),
                f"{cost['parameters'][one]:,}",
                f"{cost['bytes'][one] / 1e6:.2f} MB",
                *(f"{latency['batches'][size]['milliseconds'][one]:.1f} ms" for size in sizes),
            ]
        )
    kept, clips = report["kept"], report["clips"]
    speed = "".join(
        f", {entry['speed_up']:.1f}x faster with {size}"
        for size, entry in (latency or {"batches": {}})["batches"].items()
    )
    beside = f", {clips['unlabelled']} without a label" if clips.get("unlabelled") else ""
    text = [
        aligned(lines),
        "",
        f"{clips['train']} training and {clips['test']} test clips{beside}; "
        f"{report['cost']['percent_fewer']:.1f} % fewer parameters{speed}",
        f"points lost against the teacher: {kept['points_lost']:.2f}; "
        f"won over the labels alone: {kept['points_over_labels']:.2f}",
    ]
    if latency is not None:
        text.append(
            f"latency: CPU, {latency['threads']} threads, float32, median of rounds in which both take turns"
        )
    return "\n".join(text)
