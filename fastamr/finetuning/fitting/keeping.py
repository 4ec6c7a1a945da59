"""The folder of a classifier that trains: checkpoints, what happened, and signals."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...distributed import World
from ...folders import note_written
from ...progress import say
from ...tracking import TrackedRun, Tracking
from ...training.checkpoint import (
    PREVIOUS_FILE,
    STATE_FILE,
    SUSPECT_FILE,
    Checkpoint,
    capture_step,
    drop_previous,
    go_back,
    load_checkpoint,
    reported,
    restore_step,
    save_checkpoint,
)
from ...training.diverged import Batch, Evidence, NotFinite, Soundness
from ...training.interrupt import StopSignals, under_launcher
from ...training.machine import changed_machine, machine_of
from ...training.metrics.metrics import METRICS_FILE, MetricsLog, environment
from ...training.update.explanation import Explanation
from .classifier_step import Fit

FINISHING = "finishing this update; press Ctrl-C again to stop now"
STATE_FILES = (STATE_FILE, PREVIOUS_FILE, SUSPECT_FILE)


class FitKeeper:
    """Makes the checkpoints of a run, and resumes from the last one.

    Of several processes the first one alone writes; all read.

    Args:
        folder: it exists, and nobody else writes into it.
        plan: what decides the result, plain values by name; a checkpoint of another plan is refused.
        fingerprint: of the data.
        every: epochs between two checkpoints.
        resume: go on from the folder's checkpoint where there is one; otherwise it is removed.
        world: the processes of the run.
        quiet: print no lines.
        track: trackers of the run, see :mod:`fastamr.tracking`.
        command: that trains, for the trackers.
    """

    def __init__(
        self,
        folder: Path,
        plan: Mapping[str, Any],
        fingerprint: str,
        *,
        every: float,
        resume: bool,
        world: World,
        quiet: bool = False,
        track: Sequence[str] = (),
        command: str = "finetune",
    ) -> None:
        self.folder, self.plan, self.fingerprint = folder, json.loads(json.dumps(plan)), fingerprint
        self.every, self.resume, self.world, self.quiet = every, resume, world, quiet
        self.saved_at = self._finite = 0
        self._is_new = False
        self._track, self._command = track, command
        self._metrics: MetricsLog | None = None
        self._tracking: Tracking | None = None
        self._stop: StopSignals | None = None

    @property
    def stop_requested(self) -> bool:
        """Whether a signal asks to end after this update."""
        return self._stop is not None and self._stop.requested

    @contextlib.contextmanager
    def opened(self, fit: Fit) -> Iterator[None]:
        """Take the folder over: let the fit go on from its checkpoint, and answer signals inside.

        Raises:
            ValueError: the checkpoint is damaged, or of another plan; the processes start from different things.
        """
        self.fit = fit
        checkpoint = load_checkpoint(self.folder) if self.resume else None
        self._seconds, speed = 0.0, fit.step.explain()
        self._machine = machine_of(fit.step.device, fit.settings.precision, speed)
        changes = [] if checkpoint is None else self._restore(checkpoint)
        self.world.agree(
            {
                "plan": self.plan,
                "data fingerprint": self.fingerprint,
                "update to go on from": fit.update,
                "record of fastamr tune (FASTAMR_TUNING names one)": speed.tuning,
            }
        )
        self.world.share_tensors([*fit.model.parameters(), *fit.model.buffers()])
        self._soundness = Soundness(fit.model, fit.step.optimizer)
        self._begin = self._since = time.perf_counter()
        if self.world.first:
            self._open_files(checkpoint, speed)
        for change in changes:
            self._warn(f"resumed, but not the same run to the bit: {change}")
        finishing = FINISHING if self.world.first else ""
        try:
            together = self.world.size > 1 or under_launcher()
            with StopSignals(self._cut_short, finishing, together=together) as self._stop:
                yield
                self.world.wait()
        finally:
            self._stop = None  # which holds this object
            if self._tracking is not None:
                self._tracking.close()
            if self._metrics is not None:
                self._metrics.close()
        if fit.update < fit.total:
            raise KeyboardInterrupt(f"stopped after update {fit.update}; continue with --resume")

    def _restore(self, checkpoint: Checkpoint) -> list[str]:
        """Put the fit where the checkpoint was made; return what is not as it was then."""
        fit, scalars = self.fit, checkpoint.scalars
        check_plan(scalars["config"], self.plan)
        if scalars["data"] != self.fingerprint:
            raise ValueError(
                f"cannot resume: the data is not what the run was started on (fingerprint {scalars['data']}, now "
                f"{self.fingerprint}); pass the same data, or name another folder"
            )
        restore_step(fit.step, checkpoint)
        done = scalars.get("fit") or {}
        fit.loss, fit.counted = float(done.get("loss", 0.0)), int(done.get("counted", 0))
        fit.mean = math.nan if done.get("mean") is None else float(done["mean"])
        fit.skipped = int(done.get("skipped", 0))
        self.saved_at, self._seconds = scalars["update"], scalars["seconds"]
        return changed_machine(scalars.get("machine") or {}, self._machine)

    def _open_files(self, checkpoint: Checkpoint | None, speed: Explanation) -> None:
        """Remove what an earlier run has left unless it goes on, and begin the metrics."""
        with reported(self.folder):
            if checkpoint is None:
                for name in STATE_FILES:
                    (self.folder / name).unlink(missing_ok=True)
            for name in STATE_FILES:
                for path in self.folder.glob(f".{name}.*.part"):
                    path.unlink(missing_ok=True)
            note_written(self.folder, *STATE_FILES, METRICS_FILE)
            self._metrics = MetricsLog(self.folder, start=self.fit.update)
            run = TrackedRun(self.folder, self._command, self.plan, self.fit.update, self.fit.total)
            self._tracking = Tracking(self._track, run, self._warn)
        fit = self.fit
        self._write("header", update=fit.update, **environment(fit.step.device), plan=self.plan, updates=fit.total,
                    precision=fit.settings.precision, processes=self.world.size, speed=speed.to_dict())  # fmt: skip

    def _write(self, kind: str, **values: Any) -> None:
        if self._metrics is not None:
            with reported(self.folder):
                self._metrics.log({"kind": kind, **values})
        if self._tracking is not None:
            self._tracking.log({"kind": kind, **values})

    def _warn(self, message: str) -> None:
        if self.world.first and not self.quiet:
            say(f"warning: {message}")
        self._write("warning", update=self.fit.update, message=message)

    def ended_epoch(self, epoch: int) -> None:
        """Note the loss of an epoch, and save where a checkpoint is due."""
        fit = self.fit
        loss = fit.mean if math.isfinite(fit.mean) else None
        rate, now = fit.schedule.at(fit.update - 1), time.perf_counter()
        speed, self._since = fit.stream.count / (now - self._since), now
        self._write(
            "train", update=fit.update, epoch=epoch, loss=loss, lr=rate, seconds=self._time(),
            sequences_per_second=speed,
        )  # fmt: skip
        if self.every > 0 and fit.update < fit.total and epoch % max(1, round(self.every)) == 0:
            self.save()

    def end(self) -> None:
        """Save what the last update has left: of a run that was stopped, or that is done and is tested now."""
        if self.saved_at != self.fit.update:
            self.save()

    def sound(self, update: int) -> None:
        """Note that the losses up to an update are finite: the last checkpoint is of use."""
        self._finite = update
        if self._is_new and self._finite > self.saved_at:
            self._is_new = False
            if self.world.first:
                with reported(self.folder):
                    drop_previous(self.folder)

    def skipped(self, update: int, clips: list[str]) -> None:
        """Note an update that was left out."""
        self._write("skipped", update=update, clips=clips)
        shown = ", ".join(clips[:5]) + (", ..." if len(clips) > 5 else "")
        if self.world.first and not self.quiet:
            say(
                f"warning: update {update} was skipped, its loss or gradients are not finite; its clips: {shown}"
            )

    def save(self) -> None:
        """Write a checkpoint in one piece.

        Raises:
            FloatingPointError: weights or the optimizer's state are of no use; the checkpoint before is kept.
        """
        fit = self.fit
        if self.world.first:
            fault = self._soundness.fault()
            if fault is not None:
                error = NotFinite(fit.update, f"after update {fit.update} {fault}")
                raise FloatingPointError(self.explain(error))
            tensors, scalars = capture_step(fit.step)
            mean = fit.mean if math.isfinite(fit.mean) else None
            scalars |= {
                "seconds": self._time(),
                "machine": self._machine,
                "config": self.plan,
                "data": self.fingerprint,
                "fit": {"loss": fit.loss, "counted": fit.counted, "mean": mean, "skipped": fit.skipped},
            }
            with reported(self.folder):
                save_checkpoint(self.folder, tensors, scalars)
        self.saved_at, self._is_new = fit.update, True

    def explain(self, error: NotFinite) -> str:
        """Keep the bodies of an update that is not finite, go back to a sound checkpoint, and say what happened."""
        if not self.world.first:
            return str(error)
        fit, update = self.fit, error.update - 1
        seed = fit.step.seed.clone()
        seed[1] = update
        fit.stream.advance(update)
        drawn = fit.stream.draw(torch.full_like(fit.step.counter, update), seed[:2])
        bodies = fit.stream.bodies(update)
        count = len(bodies)
        valid = None if drawn.valid is None else drawn.valid[:count]
        batch = Batch(drawn.clips[:count], valid, seed, bodies, {})
        advice = "look for extreme coordinates, lower --recipe.lr"
        if fit.settings.on_nan == "stop":
            advice += ", or leave such updates out with --on-nan skip"
        use = "batch = fastamr.training.diverged.Batch.load(FILE): the bodies as the classifier saw them"
        evidence = Evidence(self.folder, fit.data, self.plan, advice, use)
        return evidence.tell(error, fit.schedule.at(update), batch, self._go_back, self.kept)

    def _go_back(self) -> str:
        suspect = self.saved_at
        if suspect <= 0 or self._finite > suspect or not go_back(self.folder):
            return ""
        checkpoint = load_checkpoint(self.folder)
        assert checkpoint is not None
        self.saved_at = checkpoint.scalars["update"]
        return f"that of update {suspect} led there, and lies in {SUSPECT_FILE}; "

    def kept(self) -> str:
        """Say which checkpoint there is."""
        if self.saved_at <= 0:
            return "nothing was saved yet"
        return f"checkpoint of update {self.saved_at} is kept"

    def remove(self) -> None:
        """Remove the checkpoints of a run whose result is written."""
        if self.world.first:
            with reported(self.folder):
                for name in STATE_FILES:
                    (self.folder / name).unlink(missing_ok=True)

    def _cut_short(self) -> str:
        return f"stopped in update {self.fit.update + 1}; {self.kept()}; continue with --resume"

    def _time(self) -> float:
        return self._seconds + time.perf_counter() - self._begin


def check_plan(before: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where a run was begun with another plan than the one that wants to continue it.

    Args:
        before: the plan that the folder holds.
        plan: the plan now, as JSON gives it back.
    """
    for name, value in plan.items():
        if before.get(name) != value:
            raise ValueError(
                f"cannot resume: {name} was {before.get(name)!r} and is now {value!r}; use the saved value, or name "
                "another folder"
            )
