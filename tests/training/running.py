"""Small runs of pre-training that several files of tests make."""

import json
from pathlib import Path
from typing import Any

from fastamr.training import PretrainConfig


def configure(out: Path, **options: Any) -> PretrainConfig:
    defaults = {
        "model": "tiny",
        "out": str(out),
        "preprocess": [],
        "batch_size": 8,
        "min_frames": 8,
        "updates": 10,
        "log_every": 1,
        "lr": 1e-2,
        "tensorboard": False,
        "progress": False,
        "device": "cpu",
    }
    return PretrainConfig(**{**defaults, **options})


def records(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in records(folder, "train")]


def small(model: str) -> dict[str, Any]:
    """A tiny architecture of each model."""
    settings: dict[str, Any] = {"frames": 24, "width": 8, "depth": 1, "heads": 2}
    settings |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    if model == "asma":
        settings |= {"backbone": "transformer", "projector": 8}
    if model == "gfp":
        settings |= {"levels": [2, 6], "target_width": 8, "target_hidden": 8, "global_hidden": 8}
    if model == "slim":
        settings |= {"prototypes": 16, "head_hidden": 8, "bottleneck": 8, "local_crops": 2}
    return settings
