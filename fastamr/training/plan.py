"""What a run says of itself before it starts, and how long it takes, told from its first updates."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..skeleton import BODY
from .config import PretrainConfig, model_config_class
from .metrics.metric_ring import Mark
from .update.recording import PREPARING

_TIMED = 9
# A first update of more seconds gives a first guess.
_LONG = 5.0
_HOUR = 3600.0
# Up to how many seconds a unit of time is used, the unit, and its seconds.
_UNITS = (
    (0.1, "ms", 1e-3), (90.0, "s", 1.0), (1.5 * _HOUR, "min", 60.0), (48 * _HOUR, "h", _HOUR),
    (math.inf, "days", 24 * _HOUR),
)  # fmt: skip


def plan_lines(header: Mapping[str, Any], folder: Path) -> list[str]:
    """Return what a run is about to do, in aligned lines.

    Args:
        header: the header of the run's metrics, as the run writes it.
        folder: the run's folder.
    """
    half = "all clips" if header["train_on"] == "all" or not header["split"] else f"split {header['split']}"
    done = f", {header['update']:,} of them done" if header["update"] else ""
    epochs = header["updates"] / header["updates_per_epoch"]
    lines = {
        "model": f"{header['model']}, {header['parameters']:,} parameters",
        "tokens": f"N = {header['tokens']:,} a sequence, K = {header['visible']:,} visible",
        "data": f"{header['clips']:,} of {header['all_clips']:,} clips ({half}), {header['sequences']:,} sequences "
        f"(bodies: {header['bodies']})",
        **({"sets": _sets(header)} if "sets" in header else {}),
        **({"held out": _held_out(header)} if "held_out" in header else {}),
        "batch": f"{header['batch_size']:,} sequences{_shares(header)}",
        "length": f"{header['updates']:,} updates = {epochs:,.4g} epochs of {header['updates_per_epoch']:,}{done}",
        "device": f"{header['device_name']}, {header['precision']}",
        **({"memory": header["memory"]} if "memory" in header else {}),
        "out": str(folder),
    }
    return [f"{name:<8} {text}" for name, text in lines.items()]


def _sets(header: Mapping[str, Any]) -> str:
    """Return what a run draws from each of several sets, in words."""
    temperature = header["mixture"]
    how = "shuffled together" if temperature is None else f"temperature {temperature:g}"
    return f"{how}; " + "; ".join(
        f"{one['name']}: {one['sequences']:,} sequences, {100 * one['share']:.3g} % of a batch, "
        f"{one['passes']:,.3g} passes"
        for one in header["sets"]
    )


def _held_out(header: Mapping[str, Any]) -> str:
    """Return which sets a run never trains on, in words."""
    return "; ".join(f"{one['name']}: {one['clips']:,} clips" for one in header["held_out"])


def _shares(header: Mapping[str, Any]) -> str:
    """Return how the processes share a batch, in words."""
    count = header.get("processes", 1)
    if count == 1:
        return ""
    return f" over all processes: {count} x {header['batch_size'] // count:,} (--batch-size and --lr are as given)"


def in_words(seconds: float) -> str:
    """Return a time in one unit, with two digits: ``41 ms``, ``0.36 s``, ``12 min``, ``31 h``, ``28 days``."""
    unit, size = next((unit, size) for limit, unit, size in _UNITS if seconds < limit)
    count = seconds / size
    return f"{count:.2g} {unit}" if count < 10 else f"{count:,.0f} {unit}"


class Estimate(NamedTuple):
    """How long a run takes.

    Attributes:
        each: seconds of an update.
        seconds: of all updates that were to be made when the run started or went on, without probes.
        lines: the same in words; on a CPU with a warning where it is long.
    """

    each: float
    seconds: float
    lines: list[str]


class Forecast:
    """Times the first updates of a run; the device is never waited for.

    On a CPU a first update of more than five seconds gives a first guess.

    Args:
        config: the run's configuration.
        device: where it runs.
        start: updates made before.
        total: updates of the whole run.
    """

    def __init__(self, config: PretrainConfig, device: torch.device, start: int, total: int) -> None:
        self.config, self.device = config, device
        self.updates, self._total = total - start, total
        self._first = start + PREPARING.get(device.type, 1)
        # Profiled updates, and the one in which the profile is written, are slower.
        self._before = self._first + (config.profile + 1 if config.profile else 0)
        self._last = self._before + _TIMED
        self._to: Mark | None = None
        self._warned: list[str] = []

    def start(self) -> None:
        """Note that the first update begins now."""
        self._begin = Mark(self.device)

    def after(self, update: int) -> Estimate | None:
        """Return an estimate where one is due.

        Args:
            update: updates made; called once after each.
        """
        if update == self._before:
            self._from = Mark(self.device)
        if update == self._first and self.device.type == "cpu" and self.updates > 1:
            seconds = self._begin.until(Mark(self.device))
            if seconds > _LONG:
                return self._estimate(seconds, "first guess: ", "as the first one")
        elif update == self._last and update < self._total:
            self._to = Mark(self.device)
        if self._to is None or not self._to.reached():
            return None
        each = self._from.until(self._to) / _TIMED
        self._to = None
        return self._estimate(each, "", f"measured over updates {self._before + 1} to {self._last}")

    def _estimate(self, each: float, kind: str, how: str) -> Estimate:
        seconds = each * self.updates
        lines = [
            f"{kind}about {in_words(seconds)} for {self.updates:,} updates ({in_words(each)} each, {how})"
        ]
        if self.device.type == "cpu" and not self._warned:
            self._warned = _warnings(self.config, seconds)
            lines += self._warned
        return Estimate(each, seconds, lines)


def _warnings(config: PretrainConfig, seconds: float) -> list[str]:
    """Return what to say of a run that takes long on a CPU."""
    if seconds <= _HOUR:
        return []
    lines = [
        "warning: this takes more than an hour on a CPU; Ctrl-C saves the run, --resume auto continues it"
    ]
    if seconds > 2 * _HOUR:
        lines.append(_smaller(config))
    return lines


def _smaller(config: PretrainConfig) -> str:
    """Name the command of a smaller run, for a model of the papers' size in data that a command can name."""
    if not config.data or config.model_config().width < model_config_class(config.model)().width:
        return "for a shorter run set fewer epochs, or a smaller width or depth of the model"
    body = config.architecture.get("layout") == BODY.name
    preset = "body-small" if body and config.model == "amr" else "small"
    words = ["fastamr", "pretrain", "--model", config.model, "--preset", preset, "--data", *config.data]
    words += ["--split", config.split] if config.split else []
    words += ["--train-on", config.train_on] if config.train_on != "train" else []
    if body and preset == "small":
        words += ["--layout", BODY.name]
    if preset == "body-small" and len(config.data) == 1:
        words += ["--mixture", "null"]
    words += ["--out", f"{config.out}-small"]
    other = "" if preset == "body-small" else " (or with --preset compact)"
    return f"a smaller model that a CPU trains{other}: {shlex.join(words)}"
