"""What a user does on one day, in one process: ``python a_day.py FOLDER [COMMAND ...]``; every command must succeed.

It runs in environments of their own, so it uses the installed package and the standard library alone. Without commands:
all of them.
"""

from __future__ import annotations

import csv
import importlib
import math
import os
import pkgutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

CLASSES, TAKES, FRAMES = ("wave", "squat"), 6, 16


def fastamr(*words: str) -> None:
    """Run a command of the command line."""
    from fastamr import cli

    start = time.perf_counter()
    code = cli.main(words)
    print(
        f"[{time.perf_counter() - start:.1f} s] fastamr {' '.join(words)}: {code}",
        file=sys.stderr,
        flush=True,
    )
    if code:
        sys.exit(f"fastamr {words[0]} ended with {code}")


def modules() -> None:
    """Import every module of the package; the kernels, which need Triton, may say so."""
    import fastamr as package

    count = 0
    for found in pkgutil.walk_packages(package.__path__, "fastamr."):
        # A library for torch to load is no module of Python.
        if found.name == "fastamr.__main__" or found.name.startswith("fastamr.native.visible_attention_"):
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if not found.name.startswith("fastamr.kernels.") or error.name != "triton":
                raise
        count += 1
    print(f"{count} modules")


def motion() -> None:
    """Write CSV files of two classes, a row a joint, in metres."""
    from fastamr.skeleton import get_layout

    layout = get_layout("ntu25")
    for one, name in enumerate(CLASSES):
        folder = Path("moves", name)
        folder.mkdir(parents=True)
        for take in range(TAKES):
            with (folder / f"p{take}.csv").open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(["frame", "joint", "x", "y", "z"])
                for frame in range(FRAMES):
                    for joint, title in enumerate(layout.joints):
                        swing = math.sin(frame * (0.3 + 0.2 * one) + joint + take)
                        rows.writerow([frame, title, 0.02 * swing, 0.05 * joint, 2 + 0.02 * math.cos(swing)])
    fastamr("import", "moves", "d.safetensors", "--fps", "30", "--layout", "ntu25", "--labels", "folder")
    fastamr("split", "d.safetensors", "--test", "0.5")
    fastamr("check", "d.safetensors")


TINY = ("--preset", "small", "--batch-size", "3", "--device", "cpu", "--split", "mine")


def training() -> None:
    """Pre-train, break off, resume."""
    run = ("pretrain", "--data", "d.safetensors", "--out", "run", *TINY)
    fastamr(*run, "--updates", "2")
    fastamr(*run, "--updates", "3", "--resume", "auto")


def results() -> None:
    """Evaluate, train a classifier, predict, list."""
    used = ("--checkpoint", "run", "--data", "d.safetensors", "--split", "mine", "--device", "cpu")
    fastamr("evaluate", *used, "--protocol", "knn")
    fastamr("finetune", *used, "--recipe.epochs", "1", "--out", "classifier")
    fastamr("predict", os.path.join("moves", "wave", "p1.csv"), "--model", "classifier")
    fastamr("table", "run")


PARTS: dict[str, Callable[[], None]] = {
    "modules": modules,
    "info": lambda: fastamr("info"),
    "motion": motion,
    "training": training,
    "results": results,
}

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    for part in sys.argv[2:] or PARTS:
        PARTS[part]()
