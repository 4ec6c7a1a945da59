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
from ..tables import figure
from ..tracking import TrackedRun, Tracking, wanted
from .checkpoint import reported
from .clips.batches import BatchOrder
from .config import PretrainConfig
from .diverged import NotFinite
from .metrics.collapse import CollapseGuard
from .metrics.metric_ring import Reading
from .metrics.metrics import MetricsLog
from .plan import Forecast, plan_lines
from .update.by_set import losses_by_set
from .update.explanation import Explanation
from .update.schedule import LearningRateSchedule

# So many updates in a row that are not finite are no accident (choice).
MOST_SKIPPED = 20


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
        finite: the last update whose loss was read and is finite, 0 before the first.
        skipped: updates that were left out, because a number in them was not finite.
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
        self._tracking: Tracking | None = None
        self.seconds, self.loss, self.saved_at, self.skipped = 0.0, math.nan, -1, 0
        self.finite = self._in_a_row = 0
        self._guard = CollapseGuard(config.batch_size // config.accumulate)
        self._latest = ""

    def open(
        self,
        header: Mapping[str, Any],
        device: torch.device,
        speed: Explanation,
        complete: Mapping[str, Any],
    ) -> None:
        """Tell the plan, and begin metrics and bar.

        Args:
            header: the facts of the run, for the metrics.
            device: where it runs.
            speed: how its updates run, and what keeps them from being faster.
            complete: the complete configuration, for trackers.
        """
        folder, start = Path(self.config.out), header["update"]
        plan = [*plan_lines(header, folder), *(f"{'speed':<8} {line}" for line in speed.lines())]
        self.say(
            *(textwrap.fill(line, 100, subsequent_indent=" " * 9, break_on_hyphens=False) for line in plan),
            *(f"{kind[:-1]}: {text}" for kind in ("notes", "warnings") for text in header[kind]),
        )
        self._forecast = Forecast(self.config, device, start, self.total)
        if self.writes:
            with reported(folder):
                self._metrics = MetricsLog(folder, start=start)
                self._tracking = Tracking(
                    wanted(self.config.track, self.config.tensorboard),
                    TrackedRun(folder, "pretrain", complete, start, self.total),
                    lambda message: self.warn(start, message),
                )
        self.write("header", **header, speed=speed.to_dict(), plan=plan)
        for note in self._metrics.notes if self._metrics is not None else ():
            self.warn(start, note)
        show = self.config.progress and self.writes
        self._progress = Progress(self.total, self.config.model, start=start, show=show)

    def reopen(self, update: int) -> None:
        """Go on with the metrics of a run that has made its updates, without a header and a bar."""
        with reported(self.config.out):
            self._metrics = MetricsLog(Path(self.config.out), start=update)
        self._progress = Progress(self.total, show=False, name=self.config.model)

    def close(self) -> None:
        """Leave the bar and close the metrics."""
        self._progress.close()
        if self._tracking is not None:
            self._tracking.close()
        if self._metrics is not None:
            self._metrics.close()

    def say(self, *lines: str) -> None:
        """Print lines above the bar."""
        if not self.quiet:
            say("\n".join(lines))

    def write(self, kind: str, **values: Any) -> None:
        """Append a record to the metrics, in the process that writes.

        Raises:
            OSError: it cannot be written; the message says what is kept.
        """
        if self._metrics is not None:
            with reported(self.config.out):
                self._metrics.log({"kind": kind, **values})
        if self._tracking is not None:
            self._tracking.log({"kind": kind, **values})

    def warn(self, update: int, message: str) -> None:
        """Print a warning, and record it."""
        self.say(f"warning: {message}")
        self.write("warning", update=update, message=message)

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

    def log(self, reading: Reading | None) -> list[int]:
        """Check and log losses that have been read.

        Returns:
            The updates that were skipped, because their loss or gradients are not finite.

        Raises:
            NotFinite: a loss is not finite, and such updates are not to be skipped; or all of the last ones were.
        """
        if reading is None:
            return []
        skipped = []
        for update, loss in enumerate(reading.losses, reading.first + 1):
            self._in_a_row = 0 if math.isfinite(loss) else self._in_a_row + 1
            self.finite = self.finite if self._in_a_row else update
            if not self.writes:
                pass  # The process that writes reads the same losses; its word ends them all.
            elif self._in_a_row and self.config.on_nan == "stop":
                raise NotFinite(update, f"the loss became {loss} at update {update}")
            elif self._in_a_row >= MOST_SKIPPED:
                raise NotFinite(
                    update, f"{MOST_SKIPPED} updates in a row were skipped, up to update {update}"
                )
            skipped += [update] if self._in_a_row else []
        count = len(reading.losses)
        end = reading.first + count
        self.seconds += reading.seconds
        self.skipped += len(skipped)
        if len(skipped) == count:
            return skipped
        self.loss = math.fsum(filter(math.isfinite, reading.losses)) / (count - len(skipped))
        terms = losses_by_set(reading.terms)
        speed = count * self.config.batch_size / reading.seconds
        self.write(
            "train",
            update=end,
            epoch=self.order.epoch_at(end),
            loss=self.loss,
            lr=self.schedule.at(end - 1),
            seconds=self.seconds,
            sequences_per_second=speed,
            **terms,
        )
        self._watch(end, terms)
        self._latest = f", loss {self.loss:.4f}, {figure(speed)} sequences/s"
        self._show(end, 0)
        return skipped

    def _watch(self, update: int, terms: dict[str, float]) -> None:
        """Warn of collapsed features; those of a model that has hardly begun to learn are not judged."""
        if update <= self.warmup or not self.writes:
            return
        for message in self._guard.check(terms):
            self.write("warning", update=update, message=message)
            warnings.warn(f"update {update}: {message}", RuntimeWarning, stacklevel=2)

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
            "loss": self.loss if math.isfinite(self.loss) else None,
            "skipped": self.skipped,
            "graph": graph,
        }
