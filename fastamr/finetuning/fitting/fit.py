"""The loop that trains a classifier: what is read, said and saved between its updates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...memory import free_memory
from ...models import ActionClassifier
from ...progress import Progress
from ...training.diverged import NotFinite
from ...training.metrics.metric_ring import MetricReader, Reading
from ...training.report import MOST_SKIPPED
from ...training.update.needs import needs_of
from .classifier_step import WINDOW, Fit, FitSettings
from .keeping import FitKeeper
from .learner import Objective
from .recipe import FinetuneConfig
from .unlabelled import Unlabelled

if TYPE_CHECKING:
    from ...features.clip_batches import ClipBatches


def fit_classifier(
    classifier: ActionClassifier,
    batches: ClipBatches,
    clips: Tensor,
    labels: Tensor,
    config: FinetuneConfig,
    *,
    seed: int = 0,
    objective: Objective | None = None,
    settings: FitSettings | None = None,
    keeper: FitKeeper | None = None,
    progress: Callable[[str], None] | None = None,
    bar: str = "",
    unlabelled: Unlabelled | None = None,
) -> float:
    """Train a classifier in place on the clips of a data set.

    Args:
        classifier: the classifier, on the device of the data.
        batches: the data and its bodies.
        clips: ``(B,)`` int64, the clips to train on.
        labels: ``(N,)`` int64, of all clips of the data.
        config: the recipe.
        seed: fixes the order of the clips, the augmentation and the mix-up. Drop-out and drop path follow the global
            random state.
        objective: loss of a batch; a module's parameters learn with the head's rate. None takes the classifier's, with
            the recipe's mix-up.
        settings: how updates are computed; None takes the defaults.
        keeper: makes checkpoints, resumes from one, and answers signals; None = nothing is kept.
        progress: called with a line of text before the run (the memory that it is likely to need) and ten times
            during it; None = silent.
        bar: what stands before a progress bar on standard error; empty = no bar.
        unlabelled: clips without a label that every batch has beside the labelled ones, for an objective that can do
            without; None = there are none.

    Returns:
        The mean loss of the last epoch.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: a setting that the classifier or the number of processes does not allow; a checkpoint of another
            run.
        KeyboardInterrupt: stopped by a signal, after it was saved by the keeper.
    """
    fit = Fit(
        classifier, batches, clips, labels, config, seed, objective, settings or FitSettings(), unlabelled
    )
    if progress is not None:
        for line in _memory_lines(fit):
            progress(line)
    if keeper is None:
        return _Loop(fit, None, progress, bar).run()
    with keeper.opened(fit):
        return _Loop(fit, keeper, progress, bar).run()


def _memory_lines(fit: Fit) -> list[str]:
    """Return the memory that the updates are likely to need, and a warning where there is less."""
    device = fit.step.device
    resident = sum(each.nbytes for each in (fit.data.coords, fit.data.valid) if each is not None)
    kept = fit.step.explain().kept
    needs = needs_of(fit.model, kept, resident, fit.step.dtype, free_memory(device))
    ways = "a smaller --recipe.batch-size"
    if fit.step.dtype == torch.float32:
        ways += ", --precision bfloat16"
    return [f"memory: {needs.line()}", *(f"warning: {line}" for line in needs.warnings(ways))]


class _Loop:
    """Makes the updates that are left."""

    def __init__(
        self, fit: Fit, keeper: FitKeeper | None, progress: Callable[[str], None] | None, bar: str
    ) -> None:
        self.fit, self.keeper, self.progress, self.bar = fit, keeper, progress, bar
        self.reader = MetricReader(fit.step.metrics, fit.update)
        self._in_a_row = 0
        self._latest = "" if math.isnan(fit.mean) else f", loss {fit.mean:.3f}"

    def run(self) -> float:
        """Train, and return the mean loss of the last epoch."""
        fit, per_epoch, epochs = self.fit, self.fit.order.per_epoch, self.fit.config.epochs
        with Progress(fit.total, self.bar, start=fit.update, show=bool(self.bar)) as shown:
            while fit.update < fit.total and not self._is_stopped():
                fit.step()
                ended = fit.update % per_epoch == 0
                epoch = math.ceil(fit.update / per_epoch)
                shown.advance(note=f"epoch {epoch} of {epochs}{self._latest}")
                if ended or fit.update % WINDOW == 0:
                    self._read(wait=ended)
                if ended:
                    self._end_epoch(epoch)
            self._read(wait=True)
        if self.keeper is not None:
            self.keeper.end()
        return fit.mean

    def _is_stopped(self) -> bool:
        return self.keeper is not None and self.fit.settings.world.any(self.keeper.stop_requested)

    def _end_epoch(self, epoch: int) -> None:
        fit = self.fit
        fit.mean = fit.loss / fit.counted if fit.counted else math.nan
        fit.loss, fit.counted = 0.0, 0
        self._latest = f", loss {fit.mean:.3f}"
        if self.progress is not None and epoch % max(1, fit.config.epochs // 10) == 0:
            self.progress(f"epoch {epoch}/{fit.config.epochs}{self._latest}")
        if self.keeper is not None:
            self.keeper.ended_epoch(epoch)

    def _read(self, *, wait: bool) -> None:
        """Ask for the losses since the last reading, and look at those that were asked for before."""
        self._look_at(self.reader.take(wait=True))
        self.reader.ask(self.fit.update)
        self._look_at(self.reader.take(wait=wait))

    def _look_at(self, reading: Reading | None) -> None:
        """Add losses up; those that are not finite end the run, or are said."""
        if reading is None:
            return
        fit = self.fit
        for update, loss in enumerate(reading.losses, reading.first + 1):
            size = int(fit.order.sizes[(update - 1) % fit.order.per_epoch])
            if math.isfinite(loss):
                self._in_a_row = 0
                fit.loss, fit.counted = fit.loss + loss * size, fit.counted + size
                continue
            self._in_a_row += 1
            fit.skipped += 1
            self._not_finite(update, loss)
        if self.keeper is not None and not self._in_a_row:
            self.keeper.sound(reading.first + len(reading.losses))

    def _not_finite(self, update: int, loss: float) -> None:
        fit = self.fit
        clips = [fit.data.names[int(clip)] for clip in fit.order.batch(update - 1)]
        if fit.settings.on_nan == "skip" and self._in_a_row < MOST_SKIPPED:
            if self.keeper is not None:
                self.keeper.skipped(update, clips)
            return
        what = f"the loss became {loss} at update {update}"
        if fit.settings.on_nan == "skip":
            what = f"{MOST_SKIPPED} updates in a row were skipped, up to update {update}"
        error = NotFinite(update, what)
        if self.keeper is not None:
            raise FloatingPointError(self.keeper.explain(error)) from None
        shown = ", ".join(clips[:5]) + (", ..." if len(clips) > 5 else "")
        raise FloatingPointError(f"{what}; its clips: {shown}; lower lr={fit.config.lr:g}")
