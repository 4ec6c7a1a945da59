"""The updates of a run, one after the other, and what is read, said and saved between them."""

from __future__ import annotations

from typing import Any

from ..memory import free_memory, is_exhausted
from ..tables import figure
from .checkpoint import COMPLETE_FILE, drop_previous, is_complete, mark_complete, reported
from .clips.clip_streams import PrefetchedClips
from .diverged import NotFinite, names_of
from .interrupt import StopSignals, under_launcher
from .keeper import Keeper
from .metrics.metric_ring import MetricReader, Reading
from .metrics.metrics import environment
from .probe import knn_probe
from .report import RunReport
from .run import Run
from .update.needs import exhausted, needs_of, ways_out
from .update.precision import precision_name
from .update.profiling import RunProfile

FINISHING = "finishing this update; press Ctrl-C again to stop now"


class Loop:
    """Makes the updates that are left of a run.

    Args:
        run: the run, which stands where its checkpoint was.
        keeper: saves it.
        report: tells how it goes.
    """

    def __init__(self, run: Run, keeper: Keeper, report: RunReport) -> None:
        self.run, self.keeper, self.report = run, keeper, report
        self.reader = MetricReader(run.step.metrics)
        self.profile = RunProfile(run.config.profile if run.world.first else 0, run.device, run.folder)

    def train(self) -> None:
        """Run the updates that are left; save on the way, at the end and when asked to stop."""
        run = self.run
        if self._last():
            if run.world.first:
                self._end_again()
            run.world.wait()
            return
        if run.world.first:
            with reported(run.folder):
                (run.folder / COMPLETE_FILE).unlink(missing_ok=True)
        speed = run.step.explain()
        changes = self.keeper.begin(speed)
        needs = needs_of(run.model, speed.kept, run.resident_bytes, run.step.dtype, free_memory(run.device))
        run.remarks["warnings"] += needs.warnings(ways_out(run.config))
        header = {**run.header(), "memory": needs.line()}
        self.report.open(header, run.device, speed, run.complete_config().to_dict())
        try:
            for change in changes:
                self.report.warn(run.update, f"resumed, but not the same run to the bit: {change}")
            finishing = FINISHING if run.world.first else ""
            together = run.world.size > 1 or under_launcher()
            with StopSignals(self._cut_short, finishing, together=together) as stop:
                self._loop(stop)
                run.world.wait()  # a process that leaves early lets torchrun end the one that still saves
            if run.update < run.total:
                raise KeyboardInterrupt(f"stopped after update {run.update}; continue with --resume auto")
            summary = self._end()
        except NotFinite as error:
            raise FloatingPointError(self.keeper.explain(error)) from None
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_exhausted(error):
                raise
            when = f"in update {run.update + 1}; {self.report.kept()}"
            when += ", --resume auto goes on from it" if self.report.saved_at > 0 else ""
            raise exhausted(run.config, error, when) from error
        finally:
            self.report.say(*self.profile.close())
            self.report.close()
        self.report.say(
            "done: {updates} updates = {epochs:.1f} epochs, {seconds:.1f} s, ".format(**summary)
            + f"{figure(summary['sequences_per_second'])} sequences/s"
            + (f"; {summary['waited']:.1f} s of them waited for frames" if "waited" in summary else "")
        )

    def _end(self) -> dict[str, Any]:
        """Write the summary, and last the file that says that the run is complete; return the summary."""
        run = self.run
        summary = self.report.summary(run.update, run.step.graph_reason or "recorded")
        if isinstance(run.step.clips, PrefetchedClips):
            summary["waited"] = run.step.clips.waited
        self.report.write("summary", update=run.update, **summary)
        if run.world.first:
            with reported(run.folder):
                drop_previous(run.folder)
                mark_complete(run.folder, summary)
        return summary

    def _end_again(self) -> None:
        """Say that the run is complete; write what is missing where the process ended while it wrote."""
        run = self.run
        if is_complete(run.folder, run.update):
            self.report.say(
                *(f"warning: {run.folder} was trained otherwise: {each}" for each in self.keeper.changes),
                f"{run.folder} is complete: {run.update} updates; ask for more --epochs to go on",
            )
            return
        with reported(run.folder):
            run.model.save_pretrained(run.folder)
        self.report.reopen(run.update)
        try:
            self._end()
        finally:
            self.report.close()
        self.report.say(
            f"{run.folder} had made its {run.update} updates, but was cut short: model and summary are written now"
        )

    def _loop(self, stop: StopSignals) -> None:
        """The steady state: the host issues updates, and reads the losses when they have arrived."""
        run = self.run
        self.report.start_clock()
        self.reader.restart(run.update)
        while run.update < run.total and not run.world.any(stop.requested):
            self.profile.before()
            run.step()
            self.report.moved(run.update)
            save, probe = self._due(run.config.checkpoint_every), self._due(run.config.probe_every)
            pause = save or probe or self._last()
            profiled = self.profile.after(last=pause or stop.requested)
            pause = pause or profiled
            if pause or run.update % run.config.log_every == 0:
                self._read(wait=pause)
            else:
                self._log(self.reader.take())
            if probe and run.world.first and not stop.requested:
                self._probe()
            if save:
                self.keeper.save()
            if profiled:
                self._write_profile()
            if save or probe or profiled:
                self.reader.restart(run.update)
        self._read(wait=True)
        if self.report.saved_at != run.update:
            self.keeper.save()

    def _read(self, *, wait: bool) -> None:
        """Ask for the losses since the last reading, and log those that were asked for before."""
        self._log(self.reader.take(wait=True))
        self.reader.ask(self.run.update)
        self._log(self.reader.take(wait=wait))

    def _log(self, reading: Reading | None) -> None:
        """Log losses; say which updates were skipped; let the older checkpoint go where the last one is of use."""
        for update in self.report.log(reading):
            names = names_of(self.run.data, self.run.order.batch(update - 1))
            clips = list(dict.fromkeys(name for name in names if name is not None))
            self.report.write("skipped", update=update, clips=clips)
            shown = ", ".join(clips[:5]) + (", ..." if len(clips) > 5 else "")
            self.report.say(
                f"warning: update {update} was skipped, its loss or gradients are not finite; its clips: {shown}"
            )
        self.keeper.settle()

    def _last(self) -> bool:
        return self.run.update == self.run.total

    def _due(self, epochs: float) -> bool:
        return epochs > 0 and self.run.update % max(1, round(epochs * self.run.order.steps_per_epoch)) == 0

    def _cut_short(self) -> str:
        return f"stopped in update {self.run.update + 1}; {self.report.kept()}; continue with --resume auto"

    def _probe(self) -> None:
        run = self.run
        found = knn_probe(
            run.model, run.probes, batch_size=run.config.batch_size, pooling=run.config.probe_pooling
        )
        epoch = run.order.epoch_at(run.update)
        names = {name: "knn_1" if name is None else f"probe/{name}" for name in found}
        values = {names[name]: accuracy for name, accuracy in found.items()}
        self.report.write("probe", update=run.update, epoch=epoch, **values)
        shown = [
            f"{accuracy:.1f} % on {f'split {run.split!r}' if name is None else name}"
            for name, accuracy in found.items()
        ]
        self.report.say(f"epoch {epoch:.1f}: 1-NN {', '.join(shown)}")

    def _write_profile(self) -> None:
        run, config = self.run, self.run.config
        what = (
            f"{config.model}, {precision_name(config.precision, run.device)}, {config.batch_size} sequences"
        )
        with reported(run.folder):
            self.report.say(*self.profile.write(environment(run.device), what))
