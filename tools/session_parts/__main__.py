"""Run one part: ``python -m tools.session_parts PART --device cuda --out DIR --seconds 60``, from the checkout."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .common import Context
from .workers import serve

# Part: the module and the function.
PARTS = {
    "machine": "machine.machine",
    "build": "machine.build",
    "warmup": "warmup.warmup",
    "gate1": "gates.gate1",
    "gate2": "gates.gate2",
    "steps": "steps.steps",
    "profile": "steps.profile",
    "products": "products.products",
    "attention": "attention.attention",
    "tune": "machine.tune",
    "again": "steps.again",
    "tests": "suite.tests",
}
# Kind of task: the module and the functions that do one and name it.
TASKS = {
    "gate1": ("gates.check", "gates.label"),
    "warmup": ("warmup.warm", "warmup.label"),
    "rehearsal": (".session_driver.rehearsal.work", ".session_driver.rehearsal.label"),
}


def find(name: str) -> Callable[..., Any]:
    """A function by ``module.function``; only then is the module imported."""
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(
        importlib.import_module(f".{module}", "tools.session_parts"), function
    )
    return found


def main() -> None:
    """Find the function and call it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "work"])
    parser.add_argument("--kind", choices=TASKS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit("no GPU that PyTorch can use: torch.cuda.is_available() is false")
        device = torch.device("cuda", torch.cuda.current_device())
    context = Context(device, given.out.resolve(), given.small, time.monotonic() + given.seconds)
    if given.part == "work":
        do, label = map(find, TASKS[given.kind])
        serve(do, label, context)
    else:
        find(PARTS[given.part])(context)


if __name__ == "__main__":
    main()
