"""What a run consists of: its data, the order of its batches, its model and its update."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import ops
from ..data.packed.checks import check_not_zero
from ..data.packed.mapped import mapped_files
from ..distributed import World
from .clips.batches import Part
from .config import DEFAULT_EPOCHS, GRAPH, PretrainConfig
from .metrics.metrics import environment
from .probe import HeldOut, ProbeSet, check_probe_pooling, probe_sets
from .setup import (
    batch_order,
    build_model,
    check_spreads,
    describe_bodies,
    describe_sets,
    is_resident,
    open_clip_stream,
    run_lengths,
    steps_as_text,
    training_sequences,
)
from .update.by_set import LossBySet
from .update.optimizer import build_optimizer
from .update.precision import autocast_dtype, matmul_precision_of, precision_name
from .update.schedule import LearningRateSchedule
from .update.step import PretrainStep, masked_loss

if TYPE_CHECKING:
    from ..data.joining import Gathered


class Run:
    """One run, built from its configuration: nothing is read or written yet.

    Args:
        config: the configuration.
        gathered: its data, with the split.
        device: where it computes.
        world: the processes that share its batches.
        held_out: sets that are never trained on.
    """

    def __init__(
        self,
        config: PretrainConfig,
        gathered: Gathered,
        device: torch.device,
        world: World,
        held_out: Sequence[HeldOut] = (),
    ) -> None:
        self.config, self.folder, self.device, self.world = config, Path(config.out), device, world
        self.split, data = gathered.split, gathered.data
        self.remarks = {"notes": list(gathered.notes), "warnings": list(gathered.warnings)}
        self.set_names, self.body_set = gathered.names, gathered.clip_set[data.body_clip.cpu()]
        self.held_out = held_out
        self.fingerprint = data.fingerprint()
        self.sequences = training_sequences(
            data,
            config.train_on,
            self.split,
            keep_empty_bodies=config.keep_empty_bodies,
            clip_set=gathered.clip_set,
        )
        check_not_zero(data, self.sequences.flatten())
        part = Part(world.rank, world.size, config.accumulate)
        self.order = batch_order(self.sequences, self.body_set, len(self.set_names), config, part)
        self.total, self.warmup = run_lengths(config, self.order.steps_per_epoch)
        self.model = build_model(config, data, self.sequences).to(self.device).train()
        check_spreads(self.model, world.size)
        if config.probe_every:
            check_probe_pooling(self.model, config.probe_pooling)
        self.model.body_size = gathered.body_size
        self.model.preprocess = steps_as_text(data, config.preprocess)
        self.by_set = len(self.set_names) > 1 and getattr(self.model, "reports_sequences", False)
        if self.by_set:
            self.model.set_sequence_losses()
        elif len(self.set_names) > 1:
            self.remarks["notes"].append(
                f"no loss of each set: the loss of model {config.model!r} is not a mean over single sequences"
            )
        self.resident = not data.coords.is_meta and is_resident([data], self.device, config.data_budget)
        self.data = data.to(self.device) if self.resident else data
        self.probes = list[ProbeSet]()
        if config.probe_every:
            self.probes, left_out = probe_sets(dataclasses.replace(gathered, data=self.data), held_out)
            self.remarks["notes"] += left_out
        self.files = mapped_files(self.data.coords)
        self.schedule = LearningRateSchedule(
            lr=config.lr, min_lr=config.min_lr, warmup=self.warmup, total=self.total, device=self.device
        )
        self.step = self._build_step()

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
                self.data,
                self.order,
                config,
                self.model,
                self.device,
                resident=self.resident,
                body_set=self.body_set if self.by_set else None,
            ),
            compute=LossBySet(self.set_names) if self.by_set else masked_loss,
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

    @property
    def resident_bytes(self) -> int:
        """Bytes of the data on the device; 0 where it is fetched ahead of the updates."""
        tensors = (self.data.coords, self.data.valid) if self.resident else ()
        return sum(each.nbytes for each in tensors if each is not None)

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
            "tune": False,
        }
        if self.config.updates is None:
            values["epochs"] = self.config.epochs or DEFAULT_EPOCHS
        return PretrainConfig.from_dict(values)

    def header(self) -> dict[str, Any]:
        """Return the facts of the run, for its metrics and its plan."""
        return {
            "update": self.update,
            **environment(self.device),
            "model": self.config.model,
            "tokens": getattr(self.model.config, "typical_tokens", self.model.config.tokens),
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
            **describe_bodies(self.data, self.sequences, self.config.keep_empty_bodies),
            **self._describe_sets(),
            "batch_size": self.config.batch_size,
            "processes": self.world.size,
            "updates": self.total,
            "updates_per_epoch": self.order.steps_per_epoch,
        }

    def _describe_sets(self) -> dict[str, Any]:
        """Return what there is to say of several sets, and of those that are held out."""
        found: dict[str, Any] = {}
        if len(self.set_names) > 1:
            sets = describe_sets(self.set_names, self.sequences, self.body_set, self.order, self.total)
            found |= {"mixture": self.config.mixture, "sets": sets}
        if self.held_out:
            found["held_out"] = [
                {"name": one.name, "clips": one.data.num_clips, "split": one.split} for one in self.held_out
            ]
        return found
