"""What one process of torchrun evaluates: ``python -m tests.evaluation.evaluating FOLDER [FAULT]``, see the tests."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.models.amr import AMRModel

JOBS: dict[str, dict[str, Any]] = {
    "retrieval": {"protocol": "retrieval", "seeds": [0, 3], "batch_size": 7},
    "field": {"protocol": "knn", "bodies": "field", "batch_size": 30},
    "fused": {"protocol": "knn", "fuse": True, "batch_size": 5},
    "detection": {"protocol": "detection", "detection": {"window": 8, "stride": 4, "min_frames": 4}},
}
"""Evaluations by name; 9 clips have 13 bodies, so that some processes have no batch; each half has 4 streams."""


def evaluate_all(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """Carry out all jobs, each with a cache of its own."""
    reports = {}
    for job, options in JOBS.items():
        options = dict(options)
        if options.pop("fuse", False):
            options["fuse"] = [str(folder / f"{name}-second")]
        source = "streams" if job == "detection" else "data"
        reports[job] = evaluate(
            EvaluateConfig(
                checkpoint=str(folder / name), data=[str(folder / f"{source}.safetensors")], device="cpu",
                out=str(folder / name / f"{job}.json"), **options,
            ),
            quiet=True,
        )  # fmt: skip
    return reports


def fail_on_the_second_batch(fault: str) -> None:
    """Have process 1 end in its second batch: by an error, or killed."""
    encode, calls = AMRModel.features, [0]

    def features(self: AMRModel, *arguments: Any, **options: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 2 and os.environ["RANK"] == "1":
            if fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("this batch is broken")
        return encode(self, *arguments, **options)

    AMRModel.features = features  # type: ignore[method-assign]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if len(sys.argv) > 2:
        from fastamr.cli import main

        fail_on_the_second_batch(sys.argv[2])
        words = [
            "--checkpoint",
            str(place / "run"),
            "--data",
            str(place / "data.safetensors"),
            "--device",
            "cpu",
        ]
        sys.exit(main(["evaluate", *words, "--protocol", "knn", "--batch-size", "2"]))
    dist.init_process_group("gloo")  # one for all evaluations, which use it and leave it
    found = evaluate_all(place, "run")
    assert all(bool(report) == (dist.get_rank() == 0) for report in found.values())
    dist.destroy_process_group()
