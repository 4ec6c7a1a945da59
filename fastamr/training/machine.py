"""What a run's numbers depend on besides its settings: device, threads, precision, versions and back ends."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch

from ..devices import processor, versions
from .update.explanation import Explanation
from .update.precision import precision_name


def machine_of(device: torch.device, precision: str, speed: Explanation) -> dict[str, Any]:
    """Return what JSON can hold of the machine, for a checkpoint.

    Args:
        device: where the run computes.
        precision: as in the configuration.
        speed: how its updates run.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    backends: dict[str, list[str]] = {}
    for choice in [*speed.stacks, *speed.ops]:
        known = backends.setdefault(choice.op, [])
        known += [] if choice.backend in known else [choice.backend]
    return {
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "precision": precision_name(precision, device),
        "record of fastamr tune": speed.tuning or "none",
        **{key: value for key, value in versions().items() if key in ("torch", "fastamr")},
        "platform": platform.machine(),
        "backends": {name: " and ".join(sorted(known)) for name, known in backends.items()},
    }


def changed_machine(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between the machine of a checkpoint and this one, in words.

    Args:
        before: from :func:`machine_of`; empty = not known, as in checkpoints of before.
        now: the same of this process.
    """
    if not before:
        return []
    found = _changes({name: value for name, value in now.items() if name != "backends"}, before)
    # An op that only one of the two runs is part of a stack that the other runs as a whole.
    backends = _changes(now["backends"], before.get("backends", {}))
    return found + ([f"the back end of {', that of '.join(backends)}"] if backends else [])


def _changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {before[name]} and is now {value}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
