"""The pre-training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import native, ops
from ..data import parse_steps
from ..data.joining import Gathered, gather, open_sets
from ..data.packed.checks import check_not_zero
from ..data.packed.mapped import mapped_files
from ..devices import versions
from ..distributed import World
from ..files import check_writable
from ..folders import FolderLock, note_written
from ..memory import keep_freed_memory
from .checkpoint import (
    COMPLETE_FILE,
    RUN_FILES,
    SUSPECT_FILE,
    Checkpoint,
    capture_training,
    changed_settings,
    check_folder,
    clear_run,
    clear_unfinished,
    drop_previous,
    go_back,
    is_complete,
    load_checkpoint,
    mark_complete,
    reported,
    restore_training,
    save_checkpoint,
)
from .clips.batches import BatchOrder, Part
from .clips.clip_streams import PrefetchedClips
from .config import DEFAULT_EPOCHS, GRAPH, PretrainConfig
from .diverged import Batch, NotFinite, Soundness, clips_of, describe, in_words, names_of, write_batch
from .interrupt import StopSignals
from .machine import changed_machine, machine_of
from .metrics.metric_ring import MetricReader, Reading
from .metrics.metrics import environment
from .probe import check_probe, knn_probe
from .report import RunReport
from .setup import (
    build_model,
    check_spreads,
    describe_bodies,
    is_resident,
    open_clip_stream,
    pick_split,
    run_lengths,
    steps_as_text,
    training_sequences,
)
from .update.optimizer import build_optimizer
from .update.precision import autocast_dtype, matmul_precision_of, precision_name
from .update.profiling import PROFILE_FILES, RunProfile
from .update.schedule import LearningRateSchedule
from .update.step import PretrainStep

if TYPE_CHECKING:
    from ..data import PackedSkeletons, Split

WHAT = "fastamr pretrain"
FINISHING = "finishing this update; press Ctrl-C again to stop now"


def pretrain(config: PretrainConfig, *, data: PackedSkeletons | None = None, quiet: bool = False) -> Path:
    """Pre-train a model and write the run's folder.

    The folder receives ``config.yaml`` (complete), ``config.json`` and ``model.safetensors`` (the model, for
    ``from_pretrained``), ``state.safetensors`` (for ``resume``), ``metrics.jsonl`` and ``tensorboard/``; with
    ``profile`` also ``profile.txt``, ``profile.json`` and ``trace.json``.
    What the run is about to do, and what keeps its updates from being faster, is printed before it starts; how long it
    takes, after its first updates.
    ``complete.json`` is written last. ``manifest.jsonl`` lists all of them: ``overwrite`` deletes what it names.
    SIGINT, SIGTERM and SIGUSR1 end the run after the current update, with a checkpoint; a second SIGINT or SIGTERM ends
    it at once, and where compiled code holds the main thread, the process (see
    :class:`fastamr.training.interrupt.StopSignals`).

    Started by torchrun, the processes share each batch, see :class:`fastamr.distributed.World`: the same run as in one
    process, up to rounding. The first one alone writes; a signal to any one ends all after the current update.

    Args:
        config: the configuration. (The process keeps freed memory from then on, see
            :func:`fastamr.memory.keep_freed_memory`.)
        data: packed data in memory instead of the files that ``config.data`` names.
        quiet: print nothing but the progress bar, which ``config.progress`` turns off.

    Returns:
        The run's folder.

    Raises:
        ValueError: a wrong value, a checkpoint of another run, data that the model does not fit, a batch that the
            processes cannot share.
        ConnectionError: another process has ended.
        FileNotFoundError: a data file does not exist, or there is nothing to resume.
        FileExistsError: the folder holds another run, or one of the data files under a name that a run writes.
        BlockingIOError: another process writes into the folder.
        FloatingPointError: the loss or the weights are not finite; the last checkpoint is kept, and the clips of that
            update are written into the folder.
        OSError: a file cannot be written; the last checkpoint is kept.
        KeyboardInterrupt: the run was stopped by a signal, after it was saved.
    """
    keep_freed_memory()
    if not config.out:
        raise ValueError("out is missing: name the folder of the run, for example --out runs/amr")
    config.model_config()  # settings are checked before data is read
    parse_steps(config.preprocess)
    world = World.from_environment()
    world.check_batch(config.batch_size, config.accumulate)
    if world.first:
        _check_place(config)
    device = world.pick_device(config.device)
    with world.joined(device):
        return _pretrain(config, data, device, world, quiet or not world.first)


def _pretrain(
    config: PretrainConfig, data: PackedSkeletons | None, device: torch.device, world: World, quiet: bool
) -> Path:
    """Make the run; what it recorded is gone when this returns, as NCCL needs before its connections close."""
    gathered = _gather(config, data, device)
    if device.type == "cpu":
        native.why_not("cpu")  # compiled on first use: now, not in the first update, which is timed
    run = _Run(config, gathered, device, world, quiet)
    with FolderLock(config.out, WHAT) if world.first else contextlib.nullcontext():
        if world.first:
            check_folder(config.out, resume=config.resume, overwrite=config.overwrite)
        world.wait()
        run.open_folder()
        run.train()
    return run.folder


def _check_place(config: PretrainConfig) -> None:
    """Refuse a folder that cannot be written into, before data is read for minutes."""
    check_folder(config.out, resume=config.resume, overwrite=config.overwrite)
    for name in RUN_FILES:
        check_writable(Path(config.out) / name, *config.data)
    if Path(config.out).is_dir():
        with FolderLock(config.out, WHAT):
            pass


def _gather(config: PretrainConfig, data: PackedSkeletons | None, device: torch.device) -> Gathered:
    """Return the data of a run, with its split; several sets that will not lie on the device stay where they are."""
    sets, sources = (open_sets(config.data), config.data) if data is None else ([data], ["the data"])
    split = pick_split(config.split, sets, config.train_on)
    gathered = gather(
        sets,
        sources,
        config.preprocess,
        split=None if config.train_on == "all" else split,
        labelled=False,
        unnamed="unknown",
        copy=is_resident(sets, device, config.data_budget),
    )
    return dataclasses.replace(gathered, split=split)


class _Run:
    """One run: its data, its model and where it stands."""

    def __init__(
        self, config: PretrainConfig, gathered: Gathered, device: torch.device, world: World, quiet: bool
    ) -> None:
        self.config, self.folder, self.device, self.world = config, Path(config.out), device, world
        self.split, data = gathered.split, gathered.data
        self.remarks = {"notes": list(gathered.notes), "warnings": list(gathered.warnings)}
        self.probe_split: Split | None = check_probe(data, self.split) if config.probe_every else None
        self.fingerprint = data.fingerprint()
        sequences = training_sequences(
            data, config.train_on, self.split, keep_empty_bodies=config.keep_empty_bodies
        )
        check_not_zero(data, sequences.flatten())
        part = Part(world.rank, world.size, config.accumulate)
        self.order = BatchOrder(sequences, config.batch_size, config.seed, part)
        self.total, self.warmup = run_lengths(config, self.order.steps_per_epoch)
        self.model = build_model(config, data).to(self.device).train()
        check_spreads(self.model, world.size)
        self.model.body_size = gathered.body_size
        self.resident = not data.coords.is_meta and is_resident([data], self.device, config.data_budget)
        self.data = data.to(self.device) if self.resident else data
        self.files = mapped_files(self.data.coords)
        self.schedule = LearningRateSchedule(
            lr=config.lr, min_lr=config.min_lr, warmup=self.warmup, total=self.total, device=self.device
        )
        self.step = self._build_step()
        self.reader = MetricReader(self.step.metrics)
        self.profile = RunProfile(config.profile if world.first else 0, self.device, self.folder)
        self.report = RunReport(
            config, self.order, self.schedule, self.total, self.warmup, quiet=quiet, writes=world.first
        )
        self.changes: list[str] = []  # between the checkpoint and this process
        self.machine_before: dict[str, Any] = {}
        self._is_new = False  # the last checkpoint: no loss has shown yet that it is of use

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
            matmul_precision=matmul_precision_of(config.precision),
            accumulate=config.accumulate,
            clip_grad=config.clip_grad,
            skip_not_finite=config.on_nan == "skip",
            graph=GRAPH[config.graph],
            window=config.log_every,
            world=self.world,
        )

    @property
    def update(self) -> int:
        """Updates made."""
        return self.step.update

    def open_folder(self) -> None:
        """Take the folder over: resume the run in it, or replace it, then write the complete configuration.

        With several processes all of them read it, and the first one alone changes it, after all have read.
        """
        checkpoint = load_checkpoint(self.folder) if self.config.resume else None
        if checkpoint is not None:
            self._restore(checkpoint)
        self.world.agree(
            {
                "version": versions(),
                "configuration": self.complete_config().to_dict(),
                "data fingerprint": self.fingerprint,
                "update to go on from": self.update,
            }
        )
        self.world.share_tensors([*self.model.parameters(), *self.model.buffers()])
        if not self.world.first:
            return
        if checkpoint is None and self.config.overwrite:
            kept = clear_run(self.folder)
            if kept:
                self.report.say(
                    f"note: {', '.join(kept)} in {self.folder} stays: nothing says that a run wrote it"
                )
        clear_unfinished(self.folder)
        with reported(self.folder):
            note_written(self.folder, *RUN_FILES, *(PROFILE_FILES if self.config.profile else ()))
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
            "profile": 0,
        }
        if self.config.updates is None:
            values["epochs"] = self.config.epochs or DEFAULT_EPOCHS
        return PretrainConfig.from_dict(values)

    def train(self) -> None:
        """Run the updates that are left; save on the way, at the end and when asked to stop."""
        if self._last():
            if self.world.first:
                self._end_again()
            self.world.wait()
            return
        if self.world.first:
            with reported(self.folder):
                (self.folder / COMPLETE_FILE).unlink(missing_ok=True)
        speed = self.step.explain()
        self.machine = machine_of(self.device, self.config.precision, speed)
        self.soundness = Soundness(self.model, self.step.optimizer)
        self.report.open(self._header(), self.device, speed)
        try:
            for change in [*self.changes, *changed_machine(self.machine_before, self.machine)]:
                self.report.warn(self.update, f"resumed, but not the same run to the bit: {change}")
            finishing = FINISHING if self.world.first else ""
            with StopSignals(self._cut_short, finishing, together=self.world.size > 1) as stop:
                self._loop(stop)
                self.world.wait()  # a process that leaves early lets torchrun end the one that still saves
            if self.update < self.total:
                raise KeyboardInterrupt(f"stopped after update {self.update}; continue with --resume auto")
            summary = self._end()
        except NotFinite as error:
            raise FloatingPointError(self._explain(error)) from None
        finally:
            self.report.say(*self.profile.close())
            self.report.close()
        self.report.say(
            "done: {updates} updates = {epochs:.1f} epochs, {seconds:.1f} s, {sequences_per_second:,.0f} "
            "sequences/s".format(**summary)
            + (f"; {summary['waited']:.1f} s of them waited for frames" if "waited" in summary else "")
        )

    def _end(self) -> dict[str, Any]:
        """Write the summary, and last the file that says that the run is complete; return the summary."""
        summary = self.report.summary(self.update, self.step.graph_reason or "recorded")
        if isinstance(self.step.clips, PrefetchedClips):
            summary["waited"] = self.step.clips.waited
        self.report.write("summary", update=self.update, **summary)
        if self.world.first:
            with reported(self.folder):
                drop_previous(self.folder)
                mark_complete(self.folder, summary)
        return summary

    def _end_again(self) -> None:
        """Say that the run is complete; write what is missing where the process ended while it wrote."""
        if is_complete(self.folder, self.update):
            self.report.say(
                f"{self.folder} is complete: {self.update} updates; ask for more --epochs to go on"
            )
            return
        with reported(self.folder):
            self.model.save_pretrained(self.folder)
        self.report.reopen(self.update)
        try:
            self._end()
        finally:
            self.report.close()
        self.report.say(
            f"{self.folder} had made its {self.update} updates, but was cut short: model and summary are written now"
        )

    def _loop(self, stop: StopSignals) -> None:
        """The steady state: the host issues updates, and reads the losses when they have arrived."""
        self.report.start_clock()
        self.reader.restart(self.update)
        while self.update < self.total and not self.world.any(stop.requested):
            self.profile.before()
            self.step()
            self.report.moved(self.update)
            save, probe = self._due(self.config.checkpoint_every), self._due(self.config.probe_every)
            pause = save or probe or self._last()
            profiled = self.profile.after(last=pause or stop.requested)
            pause = pause or profiled
            if pause or self.update % self.config.log_every == 0:
                self._read(wait=pause)
            else:
                self._log(self.reader.take())
            if probe and self.world.first and not stop.requested:
                self._probe()
            if save:
                self.save()
            if profiled:
                self._write_profile()
            if save or probe or profiled:
                self.reader.restart(self.update)
        self._read(wait=True)
        if self.report.saved_at != self.update:
            self.save()

    def _read(self, *, wait: bool) -> None:
        """Ask for the losses since the last reading, and log those that were asked for before."""
        self._log(self.reader.take(wait=True))
        self.reader.ask(self.update)
        self._log(self.reader.take(wait=wait))

    def _log(self, reading: Reading | None) -> None:
        """Log losses; say which updates were skipped; let the older checkpoint go where the last one is of use."""
        for update in self.report.log(reading):
            names = names_of(self.data, self.order.batch(update - 1))
            clips = list(dict.fromkeys(name for name in names if name is not None))
            self.report.write("skipped", update=update, clips=clips)
            shown = ", ".join(clips[:5]) + (", ..." if len(clips) > 5 else "")
            self.report.say(
                f"warning: update {update} was skipped, its loss or gradients are not finite; its clips: {shown}"
            )
        if self._is_new and self.report.finite > self.report.saved_at:
            self._is_new = False
            with reported(self.folder):
                drop_previous(self.folder)

    def _last(self) -> bool:
        return self.update == self.total

    def _due(self, epochs: float) -> bool:
        return epochs > 0 and self.update % max(1, round(epochs * self.order.steps_per_epoch)) == 0

    def _cut_short(self) -> str:
        return f"stopped in update {self.update + 1}; {self.report.kept()}; continue with --resume auto"

    def _probe(self) -> None:
        assert self.probe_split is not None
        accuracy = knn_probe(self.model, self.data, self.probe_split, batch_size=self.config.batch_size)
        epoch = self.order.epoch_at(self.update)
        self.report.write("probe", update=self.update, epoch=epoch, knn_1=accuracy)
        self.report.say(f"epoch {epoch:.1f}: 1-NN {accuracy:.1f} % on split {self.split!r}")

    def _write_profile(self) -> None:
        config = self.config
        what = (
            f"{config.model}, {precision_name(config.precision, self.device)}, {config.batch_size} sequences"
        )
        with reported(self.folder):
            self.report.say(*self.profile.write(environment(self.device), what))

    def save(self) -> None:
        """Write the checkpoint, then the model for ``from_pretrained``; each file in one piece.

        Of several processes, whose weights are the same, the first one looks at them and writes.

        Raises:
            NotFinite: the weights or the optimizer's state are of no use; nothing is written.
        """
        if not self.world.first:
            self.report.saved_at = self.update
            return
        self._look_at_file()
        fault = self.soundness.fault()
        if fault is not None:
            raise NotFinite(self.update, f"after update {self.update} {fault}")
        tensors = capture_training(self.model, self.step.optimizer)
        tensors |= {"seed": self.step.seed[:2], "rng.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        scalars = {
            "update": self.update,
            "seconds": self.report.seconds,
            "loss": self.report.loss if math.isfinite(self.report.loss) else None,
            "skipped": self.report.skipped,
            "machine": self.machine,
            "scaler": self.step.scaler.state_dict(),
            "config": self.complete_config().to_dict(),
            "data": self.fingerprint,
        }
        with reported(self.folder):
            save_checkpoint(self.folder, tensors, scalars)
            self.report.saved_at, self._is_new = self.update, True
            self.model.save_pretrained(self.folder)

    def _look_at_file(self) -> None:
        """Say where a file that the run trains on was written to meanwhile."""
        for file in self.files:
            if not file.changed():
                continue
            message = (
                f"{file.path} was written to while the run trained on it: updates up to {self.update} may have "
                "seen other data than the run began with; put the file back and start again, or go on knowingly"
            )
            self.report.say(f"warning: {message}")
            self.report.write("warning", update=self.update, message=message)

    def _restore(self, checkpoint: Checkpoint) -> None:
        scalars, tensors = checkpoint.scalars, checkpoint.tensors
        self.changes = changed_settings(scalars, self.complete_config().to_dict(), self.fingerprint)
        self.machine_before = scalars.get("machine") or {}
        if scalars["update"] > self.total:
            raise ValueError(
                f"the run in {self.folder} is at update {scalars['update']} already, past the {self.total} "
                "that are asked for: ask for more epochs"
            )
        restore_training(self.model, self.step.optimizer, tensors)
        self.step.seed[:2].copy_(tensors["seed"])
        if scalars["scaler"] and self.step.scaler.is_enabled():
            self.step.scaler.load_state_dict(scalars["scaler"])
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step.continue_from(scalars["update"])
        self.report.seconds, self.report.saved_at = scalars["seconds"], scalars["update"]
        loss = scalars.get("loss")
        self.report.loss, self.report.skipped = math.nan if loss is None else loss, scalars.get("skipped", 0)

    def _explain(self, error: NotFinite) -> str:
        """Keep the clips of the update, go back to a sound checkpoint, and return what to say of it."""
        rate = self.schedule.at(error.update - 1)
        batch = self._batch(error.update)
        clips = clips_of(self.data, batch.bodies, batch.clips)
        path = self.folder / f"diverged-{error.update}.safetensors"
        suspect = self.report.saved_at if self.report.finite <= self.report.saved_at else 0
        text = f"{error} (learning rate {rate:.3g}); "
        try:
            if suspect > 0 and go_back(self.folder):
                checkpoint = load_checkpoint(self.folder)
                assert checkpoint is not None
                restore_training(self.model, self.step.optimizer, checkpoint.tensors)
                self.model.save_pretrained(self.folder)
                self.report.saved_at = checkpoint.scalars["update"]
                text += f"that of update {suspect} led there, and lies in {SUSPECT_FILE}; "
            kept = self.report.kept()
            about = describe(error.update, str(error), rate, kept, self.complete_config().to_dict())
            batch.about = {**about, "clips": clips}
            note_written(self.folder, path, path.with_suffix(".yaml"))
            write_batch(path, batch)
            where = f"the batch is in {path} and .yaml"
        except OSError as failure:
            kept, where = self.report.kept(), f"the batch could not be kept ({failure})"
        advice = "look for extreme coordinates, lower --lr, set --clip-grad 1"
        if self.config.on_nan == "stop" and error.update > self.report.finite:
            advice += ", or leave such updates out with --on-nan skip"
        return f"{text}{kept}; {in_words(clips)}; {where}; {advice}"

    def _batch(self, update: int) -> Batch:
        """Return the clips of an update made before, as the model saw them: of several processes, those of this one."""
        assert self.step.clips is not None
        seed = self.step.seed.clone()
        seed[1] -= self.config.accumulate * (self.update - (update - 1))
        self.step.clips.advance(update - 1)
        clips, valid = self.step.clips.draw(torch.full_like(self.step.counter, update - 1), seed[:2])
        return Batch(clips, valid, seed, self.order.batch(update - 1), {})

    def _header(self) -> dict[str, Any]:
        return {
            "update": self.update,
            **environment(self.device),
            "model": self.config.model,
            "tokens": self.model.config.tokens,
            "visible": self.model.config.visible,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "precision": precision_name(self.config.precision, self.device),
            "data": self.fingerprint,
            "train_on": self.config.train_on,
            "split": self.split,
            "body_size": self.model.body_size,
            **self.remarks,
            "frames": "resident" if self.resident else "prefetched",
            "graph": self.config.graph,
            **describe_bodies(self.data, self.order.sequences, self.config.keep_empty_bodies),
            "batch_size": self.config.batch_size,
            "processes": self.world.size,
            "updates": self.total,
            "updates_per_epoch": self.order.steps_per_epoch,
        }
