"""What a run tells while it goes on: metrics, progress bar, estimate of its time, and lines on standard error."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..progress import Progress, say
from .clips.batches import BatchOrder
from .config import PretrainConfig
from .metrics.collapse import CollapseGuard
from .metrics.metric_ring import Reading
from .metrics.metrics import MetricsLog
from .plan import Forecast, plan_lines
from .update.explanation import Explanation
from .update.schedule import LearningRateSchedule


class RunReport:
    """Writes and shows how a run goes, and checks the losses that it is given.

    Args:
        config: the run's configuration.
        order: its batches.
        schedule: its learning rate.
        total: updates of the whole run.
        warmup: updates of its warm-up.
        quiet: print no lines.
        writes: write metrics, show the bar and warn; of several processes the first one does.

    Attributes:
        seconds: time of the updates that were logged, without probes and checkpoints.
        loss: the last one that was logged.
        saved_at: update of the last checkpoint, -1 before the first.
    """

    def __init__(
        self,
        config: PretrainConfig,
        order: BatchOrder,
        schedule: LearningRateSchedule,
        total: int,
        warmup: int,
        *,
        quiet: bool,
        writes: bool = True,
    ) -> None:
        self.config, self.order, self.schedule = config, order, schedule
        self.total, self.warmup, self.quiet, self.writes = total, warmup, quiet, writes
        self._metrics: MetricsLog | None = None
        self.seconds, self.loss, self.saved_at = 0.0, math.nan, -1
        self._guard = CollapseGuard(config.batch_size // config.accumulate)
        self._latest = ""

    def open(self, header: Mapping[str, Any], device: torch.device, speed: Explanation) -> None:
        """Tell the plan, and begin metrics and bar.

        Args:
            header: the facts of the run, for the metrics.
            device: where it runs.
            speed: how its updates run, and what keeps them from being faster.
        """
        folder, start = Path(self.config.out), header["update"]
        plan = [*plan_lines(header, folder), *(f"{'speed':<8} {line}" for line in speed.lines())]
        self.say(
            *(textwrap.fill(line, 100, subsequent_indent=" " * 9, break_on_hyphens=False) for line in plan),
            *(f"{kind[:-1]}: {text}" for kind in ("notes", "warnings") for text in header[kind]),
        )
        self._forecast = Forecast(self.config, device, start, self.total)
        if self.writes:
            self._metrics = MetricsLog(folder, start=start, tensorboard=self.config.tensorboard)
        self.write("header", **header, speed=speed.to_dict(), plan=plan)
        show = self.config.progress and self.writes
        self._progress = Progress(self.total, self.config.model, start=start, show=show)

    def close(self) -> None:
        """Leave the bar and close the metrics."""
        self._progress.close()
        if self._metrics is not None:
            self._metrics.close()

    def say(self, *lines: str) -> None:
        """Print lines above the bar."""
        if not self.quiet:
            say("\n".join(lines))

    def write(self, kind: str, **values: Any) -> None:
        """Append a record to the metrics."""
        if self._metrics is not None:
            self._metrics.write(kind, **values)

    def start_clock(self) -> None:
        """Time the updates from now on."""
        self._forecast.start()

    def moved(self, update: int) -> None:
        """Show that an update has been issued; say how long the run takes when that is known."""
        self._show(update, 1)
        estimate = self._forecast.after(update)
        if estimate is not None:
            self.say(*estimate.lines)
            self.write("estimate", update=update, **estimate._asdict())

    def _show(self, update: int, moved: int) -> None:
        epoch, epochs = self.order.epoch_at(update), self.order.epoch_at(self.total)
        self._progress.advance(moved, f"epoch {epoch:.2f} of {epochs:.2f}{self._latest}")

    def log(self, reading: Reading | None) -> None:
        """Check and log losses that have been read.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        if reading is None:
            return
        for update, loss in enumerate(reading.losses, reading.first + 1):
            if not math.isfinite(loss):
                raise FloatingPointError(self._not_finite(update, loss))
        count = len(reading.losses)
        end = reading.first + count
        self.loss = math.fsum(reading.losses) / count
        self.seconds += reading.seconds
        speed = count * self.config.batch_size / reading.seconds
        self.write(
            "train",
            update=end,
            epoch=self.order.epoch_at(end),
            loss=self.loss,
            lr=self.schedule.at(end - 1),
            seconds=self.seconds,
            sequences_per_second=speed,
            **reading.terms,
        )
        self._watch(end, reading.terms)
        self._latest = f", loss {self.loss:.4f}, {speed:,.0f} sequences/s"
        self._show(end, 0)

    def _watch(self, update: int, terms: dict[str, float]) -> None:
        """Warn of collapsed features; those of a model that has hardly begun to learn are not judged."""
        if update <= self.warmup or not self.writes:
            return
        for message in self._guard.check(terms):
            self.write("warning", update=update, message=message)
            warnings.warn(f"update {update}: {message}", RuntimeWarning, stacklevel=2)

    def _not_finite(self, update: int, loss: float) -> str:
        rate = self.schedule.at(update - 1)
        return (
            f"the loss became {loss} at update {update} (learning rate {rate:.3g}); {self.kept()}; "
            "look for extreme coordinates, lower --lr, or set --clip-grad 1"
        )

    def kept(self) -> str:
        """Say which checkpoint there is."""
        if self.saved_at <= 0:
            return "nothing was saved yet"
        return f"checkpoint of update {self.saved_at} is kept"

    def summary(self, update: int, graph: str) -> dict[str, Any]:
        """Return updates, epochs and the time that the updates took (without probes and checkpoints).

        Args:
            update: updates made.
            graph: whether they were recorded, or why not.
        """
        return {
            "updates": update,
            "epochs": self.order.epoch_at(update),
            "seconds": self.seconds,
            "sequences_per_second": update * self.config.batch_size / self.seconds,
            "loss": self.loss,
            "graph": graph,
        }
