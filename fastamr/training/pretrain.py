"""The pre-training loop."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import ops
from ..data import apply_missing, parse_steps
from ..devices import pick_device
from ..memory import keep_freed_memory
from .checkpoint import (
    Checkpoint,
    capture_training,
    changed_settings,
    check_folder,
    clear_run,
    load_checkpoint,
    reported,
    restore_training,
    save_checkpoint,
)
from .clips.batches import BatchOrder
from .config import DEFAULT_EPOCHS, GRAPH, PretrainConfig
from .interrupt import StopSignals
from .metrics.collapse import CollapseGuard
from .metrics.metric_ring import MetricReader, Reading
from .metrics.metrics import MetricsLog, Progress, environment
from .probe import check_probe, knn_probe
from .setup import (
    build_model,
    describe_bodies,
    is_resident,
    load_data,
    open_clip_stream,
    pick_split,
    run_lengths,
    steps_as_text,
    training_sequences,
)
from .update.optimizer import build_optimizer
from .update.precision import autocast_dtype, precision_name, products_of
from .update.schedule import LearningRateSchedule
from .update.step import PretrainStep

if TYPE_CHECKING:
    from ..data import PackedSkeletons, Split


def pretrain(config: PretrainConfig, *, data: PackedSkeletons | None = None) -> Path:
    """Pre-train a model and write the run's folder.

    The folder receives ``config.yaml`` (complete), ``config.json`` and ``model.safetensors`` (the model, for
    ``from_pretrained``), ``state.safetensors`` (for ``resume``), ``metrics.jsonl`` and ``tensorboard/``.
    SIGINT and SIGTERM end the run after the current update, with a checkpoint.

    Args:
        config: the configuration. (The process keeps freed memory from then on, see
            :func:`fastamr.memory.keep_freed_memory`.)
        data: packed data in memory instead of the files that ``config.data`` names.

    Returns:
        The run's folder.

    Raises:
        ValueError: a wrong value, a checkpoint of another run, data that the model does not fit.
        FileNotFoundError: a data file does not exist, or there is nothing to resume.
        FileExistsError: the folder holds another run.
        FloatingPointError: the loss is not finite; the last checkpoint is kept.
        OSError: a file cannot be written; the last checkpoint is kept.
        KeyboardInterrupt: the run was stopped by a signal, after it was saved.
    """
    keep_freed_memory()
    if not config.out:
        raise ValueError("out is missing: name the folder of the run, for example --out runs/amr")
    config.model_config()  # a wrong setting or step is told before any data is read
    parse_steps(config.preprocess)
    check_folder(config.out, resume=config.resume, overwrite=config.overwrite)
    device = pick_device(config.device)
    data = (
        load_data(config.data, config.preprocess) if data is None else apply_missing(data, config.preprocess)
    )
    run = _Run(config, data, device)
    run.open_folder()
    run.train()
    return run.folder


class _Run:
    """One run: its data, its model and where it stands."""

    def __init__(self, config: PretrainConfig, data: PackedSkeletons, device: torch.device) -> None:
        self.config, self.folder, self.device = config, Path(config.out), device
        self.split = pick_split(config.split, data, config.train_on)
        self.probe_split: Split | None = check_probe(data, self.split) if config.probe_every else None
        self.fingerprint = data.fingerprint()
        sequences = training_sequences(
            data, config.train_on, self.split, keep_empty_bodies=config.keep_empty_bodies
        )
        self.order = BatchOrder(sequences, config.batch_size, config.seed)
        self.total, self.warmup = run_lengths(config, self.order.steps_per_epoch)
        self.model = build_model(config, data).to(self.device).train()
        self.resident = is_resident(data, self.device, config.data_budget)
        self.data = data.to(self.device) if self.resident else data
        self.schedule = LearningRateSchedule(
            lr=config.lr, min_lr=config.min_lr, warmup=self.warmup, total=self.total, device=self.device
        )
        self.step = self._build_step()
        self.reader = MetricReader(self.step.metrics)
        self.guard = CollapseGuard(config.batch_size // config.accumulate)
        self.seconds, self.loss = 0.0, math.nan
        self._saved_at = -1

    def _build_step(self) -> PretrainStep:
        config, dtype = self.config, autocast_dtype(self.config.precision, self.device)
        optimizer = build_optimizer(
            self.model,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            working_dtype=None if dtype == torch.float32 else dtype,
        )
        return PretrainStep(
            self.model,
            optimizer,
            open_clip_stream(
                self.data, self.order, config, self.model.frames, self.device, resident=self.resident
            ),
            seed=ops.make_seed(torch.Generator().manual_seed(config.seed), self.device),
            schedule=self.schedule,
            dtype=dtype,
            products=products_of(config.precision),
            accumulate=config.accumulate,
            clip_grad=config.clip_grad,
            graph=GRAPH[config.graph],
            window=config.log_every,
        )

    @property
    def update(self) -> int:
        """Updates made."""
        return self.step.update

    def open_folder(self) -> None:
        """Take the folder over: resume or clear it, then write the complete configuration."""
        checkpoint = load_checkpoint(self.folder) if self.config.resume else None
        if checkpoint is not None:
            self._restore(checkpoint)
        else:
            clear_run(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with reported(self.folder):
            self.complete_config().save(self.folder / "config.yaml")

    def complete_config(self) -> PretrainConfig:
        """Return the configuration with everything that was left to the data or to a default filled in."""
        values = self.config.to_dict() | {
            "architecture": self.model.config.to_dict(),
            "preprocess": steps_as_text(self.data, self.config.preprocess),
            "split": self.split,
            "warmup_epochs": self.warmup / self.order.steps_per_epoch,
            "resume": False,
            "overwrite": False,
        }
        if self.config.updates is None:
            values["epochs"] = self.config.epochs or DEFAULT_EPOCHS
        return PretrainConfig.from_dict(values)

    def train(self) -> None:
        """Run the updates that are left; save on the way, at the end and when asked to stop."""
        if self._last():
            self._say(f"{self.folder} is complete: {self.update} updates; ask for more --epochs to go on")
            return
        metrics = MetricsLog(self.folder, start=self.update, tensorboard=self.config.tensorboard)
        progress = Progress(self.total, self.update, self.config.model, self.config.progress)
        try:
            metrics.write("header", update=self.update, **self._header())
            with StopSignals() as stop:
                self._loop(stop, metrics, progress)
            if self.update < self.total:
                raise KeyboardInterrupt(f"stopped after update {self.update}; continue with --resume")
            metrics.write("summary", update=self.update, **self._summary())
        finally:
            progress.close()
            metrics.close()
        self._say(
            "done: {updates} updates = {epochs:.1f} epochs, {seconds:.1f} s, {sequences_per_second:,.0f} "
            "sequences/s".format(**self._summary())
        )

    def _loop(self, stop: StopSignals, metrics: MetricsLog, progress: Progress) -> None:
        """The steady state: the host issues updates, and reads the losses when they have arrived."""
        self.reader.restart(self.update)
        while self.update < self.total and not stop.requested:
            self.step()
            save, probe = self._due(self.config.checkpoint_every), self._due(self.config.probe_every)
            pause = save or probe or self._last()
            if pause or self.update % self.config.log_every == 0:
                self._read(metrics, progress, wait=pause)
            else:
                self._log(self.reader.take(), metrics, progress)
            if probe:
                self._probe(metrics)
            if save:
                self.save()
            if save or probe:
                self.reader.restart(self.update)
        self._read(metrics, progress, wait=True)
        if self._saved_at != self.update:
            self.save()

    def _read(self, metrics: MetricsLog, progress: Progress, *, wait: bool) -> None:
        """Ask for the losses since the last reading, and log those that were asked for before."""
        self._log(self.reader.take(wait=True), metrics, progress)
        self.reader.ask(self.update)
        self._log(self.reader.take(wait=wait), metrics, progress)

    def _last(self) -> bool:
        return self.update == self.total

    def _due(self, epochs: float) -> bool:
        return epochs > 0 and self.update % max(1, round(epochs * self.order.steps_per_epoch)) == 0

    def _log(self, reading: Reading | None, metrics: MetricsLog, progress: Progress) -> None:
        """Check and log losses that have been read."""
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
        metrics.write(
            "train",
            update=end,
            epoch=self.order.epoch_at(end),
            loss=self.loss,
            lr=self.schedule.at(end - 1),
            seconds=self.seconds,
            sequences_per_second=speed,
            **reading.terms,
        )
        self._watch(end, reading.terms, metrics)
        progress.advance(count, self.loss, speed)

    def _watch(self, update: int, terms: dict[str, float], metrics: MetricsLog) -> None:
        """Warn of collapsed features; those of a model that has hardly begun to learn are not judged."""
        if update <= self.warmup:
            return
        for message in self.guard.check(terms):
            metrics.write("warning", update=update, message=message)
            warnings.warn(f"update {update}: {message}", RuntimeWarning, stacklevel=2)

    def _not_finite(self, update: int, loss: float) -> str:
        rate = self.schedule.at(update - 1)
        kept = (
            f"checkpoint of update {self._saved_at} is kept"
            if self._saved_at > 0
            else "nothing was saved yet"
        )
        return (
            f"the loss became {loss} at update {update} (learning rate {rate:.3g}); {kept}; "
            "look for extreme coordinates, lower --lr, or set --clip-grad 1"
        )

    def _probe(self, metrics: MetricsLog) -> None:
        assert self.probe_split is not None
        accuracy = knn_probe(self.model, self.data, self.probe_split, batch_size=self.config.batch_size)
        epoch = self.order.epoch_at(self.update)
        metrics.write("probe", update=self.update, epoch=epoch, knn_1=accuracy)
        self._say(f"epoch {epoch:.1f}: 1-NN {accuracy:.1f} % on split {self.split!r}")

    def save(self) -> None:
        """Write the checkpoint, then the model for ``from_pretrained``; each file in one piece."""
        tensors = capture_training(self.model, self.step.optimizer)
        tensors |= {"seed": self.step.seed, "rng.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        scalars = {
            "update": self.update,
            "seconds": self.seconds,
            "scaler": self.step.scaler.state_dict(),
            "config": self.complete_config().to_dict(),
            "data": self.fingerprint,
        }
        with reported(self.folder):
            save_checkpoint(self.folder, tensors, scalars)
            self._saved_at = self.update
            self.model.save_pretrained(self.folder)

    def _restore(self, checkpoint: Checkpoint) -> None:
        scalars, tensors = checkpoint.scalars, checkpoint.tensors
        for change in changed_settings(scalars, self.complete_config().to_dict(), self.fingerprint):
            self._say(f"resumed with another setting, so not the same run to the bit: {change}")
        if scalars["update"] > self.total:
            raise ValueError(
                f"the run in {self.folder} is at update {scalars['update']} already, past the {self.total} "
                "that are asked for: ask for more epochs"
            )
        restore_training(self.model, self.step.optimizer, tensors)
        self.step.seed.copy_(tensors["seed"])
        if scalars["scaler"] and self.step.scaler.is_enabled():
            self.step.scaler.load_state_dict(scalars["scaler"])
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step.continue_from(scalars["update"])
        self.seconds, self._saved_at = scalars["seconds"], scalars["update"]

    def _header(self) -> dict[str, Any]:
        return {
            **environment(self.device),
            "model": self.config.model,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "precision": precision_name(self.config.precision, self.device),
            "data": self.fingerprint,
            "split": self.split,
            "frames": "resident" if self.resident else "prefetched",
            "graph": self.config.graph,
            **describe_bodies(self.order.sequences, self.config.keep_empty_bodies),
            "batch_size": self.config.batch_size,
            "updates": self.total,
            "updates_per_epoch": self.order.steps_per_epoch,
        }

    def _summary(self) -> dict[str, Any]:
        """Updates, epochs and the time that the updates took (without probes and checkpoints)."""
        return {
            "updates": self.update,
            "epochs": self.order.epoch_at(self.update),
            "seconds": self.seconds,
            "sequences_per_second": self.update * self.config.batch_size / self.seconds,
            "loss": self.loss,
            "graph": self.step.graph_reason or "recorded",
        }

    def _say(self, text: str) -> None:
        if self.config.progress:
            print(text, file=sys.stderr, flush=True)
