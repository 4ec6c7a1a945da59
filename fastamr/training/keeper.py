"""The checkpoints of a run: what it goes on from, when it saves, and where it goes back to when it diverges."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..devices import versions
from ..folders import note_written
from ..ops.common.tuned import tuning
from .checkpoint import (
    RUN_FILES,
    SUSPECT_FILE,
    Checkpoint,
    capture_step,
    changed_settings,
    clear_run,
    clear_unfinished,
    drop_previous,
    go_back,
    load_checkpoint,
    reported,
    restore_step,
    restore_training,
    save_checkpoint,
)
from .diverged import Batch, Evidence, NotFinite, Soundness
from .machine import changed_machine, machine_of
from .report import RunReport
from .run import Run
from .update.explanation import Explanation
from .update.profiling import PROFILE_FILES


class Keeper:
    """Loads and saves a run, and keeps what shows why one diverged.

    Args:
        run: the run.
        report: says what happens, and knows which losses were read.

    Attributes:
        changes: settings that differ between the checkpoint and what is asked for, in words.
    """

    def __init__(self, run: Run, report: RunReport) -> None:
        self.run, self.report = run, report
        self.changes: list[str] = []
        self._machine_before: dict[str, Any] = {}
        self._is_new = False  # the last checkpoint: no loss has shown yet that it is of use

    def begin(self, speed: Explanation) -> list[str]:
        """Look at machine and weights before the first update; return what is not as it was in the checkpoint.

        Args:
            speed: how the updates run.
        """
        self._machine = machine_of(self.run.device, self.run.config.precision, speed)
        self._soundness = Soundness(self.run.model, self.run.step.optimizer)
        return [*self.changes, *changed_machine(self._machine_before, self._machine)]

    def settle(self) -> None:
        """Let the older checkpoint go where a loss has shown that the last one is of use."""
        if self._is_new and self.report.finite > self.report.saved_at:
            self._is_new = False
            with reported(self.run.folder):
                drop_previous(self.run.folder)

    def open_folder(self) -> None:
        """Take the folder over: resume the run in it, or replace it, then write the complete configuration.

        With several processes all of them read it, and the first one alone changes it, after all have read.
        """
        run = self.run
        checkpoint = load_checkpoint(run.folder) if run.config.resume else None
        if checkpoint is not None:
            self._restore(checkpoint)
        run.world.agree(
            {
                "version": versions(),
                "configuration": run.complete_config().to_dict(),
                "data fingerprint": run.fingerprint,
                "update to go on from": run.update,
                "record of fastamr tune (FASTAMR_TUNING names one)": tuning(run.device.type).digest,
            }
        )
        run.world.share_tensors([*run.model.parameters(), *run.model.buffers()])
        if not run.world.first:
            return
        if checkpoint is None and run.config.overwrite:
            kept = clear_run(run.folder)
            if kept:
                self.report.say(
                    f"note: {', '.join(kept)} in {run.folder} stays: nothing says that a run wrote it"
                )
        clear_unfinished(run.folder)
        with reported(run.folder):
            note_written(run.folder, *RUN_FILES, *(PROFILE_FILES if run.config.profile else ()))
            run.complete_config().save(run.folder / "config.yaml")

    def _restore(self, checkpoint: Checkpoint) -> None:
        run = self.run
        scalars = checkpoint.scalars
        self.changes = changed_settings(scalars, run.complete_config().to_dict(), run.fingerprint)
        self._machine_before = scalars.get("machine") or {}
        if scalars["update"] > run.total:
            raise ValueError(
                f"the run in {run.folder} is at update {scalars['update']} already, past the {run.total} "
                "that are asked for: ask for more epochs"
            )
        restore_step(run.step, checkpoint)
        self.report.seconds, self.report.saved_at = scalars["seconds"], scalars["update"]
        loss = scalars.get("loss")
        self.report.loss, self.report.skipped = math.nan if loss is None else loss, scalars.get("skipped", 0)

    def save(self) -> None:
        """Write the checkpoint, then the model for ``from_pretrained``; each file in one piece.

        Of several processes, whose weights are the same, the first one looks at them and writes.

        Raises:
            NotFinite: the weights or the optimizer's state are of no use; nothing is written.
        """
        run = self.run
        if not run.world.first:
            self.report.saved_at = run.update
            return
        self._look_at_file()
        fault = self._soundness.fault()
        if fault is not None:
            raise NotFinite(run.update, f"after update {run.update} {fault}")
        tensors, scalars = capture_step(run.step)
        scalars |= {
            "seconds": self.report.seconds,
            "loss": self.report.loss if math.isfinite(self.report.loss) else None,
            "skipped": self.report.skipped,
            "machine": self._machine,
            "config": run.complete_config().to_dict(),
            "data": run.fingerprint,
        }
        with reported(run.folder):
            save_checkpoint(run.folder, tensors, scalars)
            self.report.saved_at, self._is_new = run.update, True
            run.model.save_pretrained(run.folder)

    def _look_at_file(self) -> None:
        """Say where a file that the run trains on was written to meanwhile."""
        run = self.run
        for file in run.files:
            if not file.changed():
                continue
            message = (
                f"{file.path} was written to while the run trained on it: updates up to {run.update} may have "
                "seen other data than the run began with; put the file back and start again, or go on knowingly"
            )
            self.report.say(f"warning: {message}")
            self.report.write("warning", update=run.update, message=message)

    def explain(self, error: NotFinite) -> str:
        """Keep the clips of the update, go back to a sound checkpoint, and return what to say of it."""
        run = self.run
        advice = "look for extreme coordinates, lower --lr, set --clip-grad 1"
        if run.config.on_nan == "stop" and error.update > self.report.finite:
            advice += ", or leave such updates out with --on-nan skip"
        evidence = Evidence(run.folder, run.data, run.complete_config().to_dict(), advice)
        rate = run.schedule.at(error.update - 1)
        return evidence.tell(error, rate, self._batch(error.update), self._go_back, self.report.kept)

    def _go_back(self) -> str:
        """Leave a checkpoint that led to bad numbers for the one before, and say so; nothing where it did not."""
        run, suspect = self.run, self.report.saved_at
        if suspect <= 0 or self.report.finite > suspect or not go_back(run.folder):
            return ""
        checkpoint = load_checkpoint(run.folder)
        assert checkpoint is not None
        restore_training(run.model, run.step.optimizer, checkpoint.tensors)
        run.model.save_pretrained(run.folder)
        self.report.saved_at = checkpoint.scalars["update"]
        return f"that of update {suspect} led there, and lies in {SUSPECT_FILE}; "

    def _batch(self, update: int) -> Batch:
        """Return the clips of an update made before, as the model saw them: of several processes, those of this one."""
        run = self.run
        assert run.step.clips is not None
        seed = run.step.seed.clone()
        seed[1] -= run.config.accumulate * (run.update - (update - 1))
        run.step.clips.advance(update - 1)
        clips, valid, *_ = run.step.clips.draw(torch.full_like(run.step.counter, update - 1), seed[:2])
        return Batch(clips, valid, seed, run.order.batch(update - 1), {})
