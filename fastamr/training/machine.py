"""What a run's numbers depend on besides its settings: device, threads, precision, versions and back ends."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
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
    names = [name for name in now if name != "backends"]
    found = list(_changes("", names, before, now))
    ops = {**before.get("backends", {}), **now["backends"]}
    return found + list(_changes("the back end of ", ops, before.get("backends", {}), now["backends"]))


def _changes(
    what: str, names: Iterable[str], before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterable[str]:
    for name in names:
        if before.get(name) != now.get(name):
            yield f"{what}{name} was {before.get(name)} and is now {now.get(name)}"
