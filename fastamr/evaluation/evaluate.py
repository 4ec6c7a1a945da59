"""``fastamr evaluate``: probe a checkpoint, its random twin and raw coordinates, and write JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data import PackedSkeletons, concatenate
from ..data.joining import choose_split, class_notes, open_sets, settle, size_warnings
from ..data.preprocessing.streams import stream_of
from ..data.to_body import common_channels, for_layout, join_ready
from ..devices import deterministic, versions
from ..distributed import LONG_PATIENCE, World
from ..features.cache import feature_key
from ..features.extract import check_fit, model_channels, untrained_note
from ..features.run_settings import run_config, run_steps
from ..features.splits import labelled_split, untrained_classes
from ..files import write_text
from ..folders import FolderLock, note_written
from ..models import load_pretrained
from ..models.parts.pooling import unplaced_joints
from ..skeleton import is_body
from ..weights import own_folder
from .protocols.config import EvaluateConfig, command_line
from .protocols.detection import compare_detection, find_streams
from .protocols.frozen import SUPERVISED, Scores, compare
from .protocols.fusion import EncodedStream, compare_streams
from .protocols.supervised import compare_supervised, recipes
from .protocols.transfer import to_layout
from .report.report import (
    describe_split,
    describe_streams,
    format_report,
    sampling,
    split_warnings,
)
from .report.target import pick_target

if TYPE_CHECKING:
    from ..models import SkeletonModel

__all__ = ["EvaluateConfig", "evaluate", "format_report"]

CACHE_FOLDER = "features"
DEFAULT_SPLIT = "official"


def evaluate(
    config: EvaluateConfig, *, data: PackedSkeletons | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Probe or fine-tune a checkpoint and its baselines, print the table, write the JSON.

    Data that lacks pre-processing steps of the run's configuration goes through them first, so that training
    and evaluation see the same input. The raw baseline starts from the data as it was given.

    Started by torchrun, the processes share the extraction of features (of ``detection`` its streams): the result is
    that of one process. The first one alone probes, prints and writes, and the others leave when all is extracted.

    Args:
        config: the configuration.
        data: packed data in memory instead of the files that ``config.data`` names.
        quiet: do not print.

    Returns:
        What the JSON holds: configuration, the command that repeats it, versions, data, split, the configuration of
        the pre-training, ``notes`` and ``warnings`` in words, and ``results`` with the scores of ``raw``, ``input``,
        ``random`` and ``encoder``. Fine-tuning has the last two, and ``recipes`` with every setting. With ``fuse``
        these are the fused scores, and ``streams`` has each run's own; ``transfer`` says what became of each joint,
        ``detection`` has all settings of the windows. Nothing in the processes beside the first one.

    Raises:
        FileNotFoundError: no model in the folder, or no such data file.
        ValueError: an unknown split, no labels, an empty half, data that the model does not fit, a wrong
            device; several processes for a protocol that trains the encoder, or that were started with different
            data, weights or settings.
        ConnectionError: another process has ended.
        BlockingIOError: a run writes into the checkpoint's folder; with ``out`` and without ``cache`` nothing is
            written there.
        OSError: the JSON cannot be written, which is found out before anything is computed where possible.
    """
    world = World.from_environment()
    if world.size > 1 and (config.protocol in SUPERVISED or config.with_finetune):
        what = config.protocol if config.protocol in SUPERVISED else "with_finetune"
        raise ValueError(
            f"{what} trains the encoder in one process, and torchrun started {world.size}, which share the extraction "
            "of features alone: start it without torchrun"
        )
    device = world.pick_device(config.device)
    with world.joined(device, LONG_PATIENCE):
        if world.first:
            return _evaluate_locked(config, data, quiet, world, device)
        _evaluate(config, data, True, world, device)
        return {}


def _evaluate_locked(
    config: EvaluateConfig, data: PackedSkeletons | None, quiet: bool, world: World, device: torch.device
) -> dict[str, Any]:
    """As :func:`evaluate`, of the process that writes."""
    folders = [folder for run in (config.checkpoint, *config.fuse) if (folder := own_folder(run)) is not None]
    folders = folders if config.cache or config.out is None else []
    with contextlib.ExitStack() as locks:
        for folder in folders:
            locks.enter_context(FolderLock(folder, "fastamr evaluate", shared=True))
        locks.enter_context(deterministic(config.deterministic, config.device))
        try:
            return _evaluate(config, data, quiet, world, device)
        finally:
            for folder in folders:
                _note_features(folder)


def _note_features(folder: Path) -> None:
    """Note the cached features in a checkpoint's folder; nobody else calls files by 64 hexadecimal digits."""
    with contextlib.suppress(OSError, ValueError):
        files = (folder / CACHE_FOLDER).glob("*.safetensors")
        note_written(folder, *(file for file in files if re.fullmatch("[0-9a-f]{64}", file.stem)))


def _evaluate(
    config: EvaluateConfig, data: PackedSkeletons | None, quiet: bool, world: World, device: torch.device
) -> dict[str, Any]:
    """As :func:`evaluate`, while no run writes into the folders."""
    model = load_pretrained(config.checkpoint)
    model.check_pooling(config.pooling)
    runs = {run: run_config(run) for run in (config.checkpoint, *config.fuse)}
    say = None if quiet else functools.partial(print, flush=True)
    split = config.split or _split_of(config, runs[config.checkpoint] or {}, say)
    given, names = ([data], ["the data"]) if data is not None else (open_sets(config.data), config.data)
    split = choose_split(split, given)
    config = dataclasses.replace(config, split=split)
    if world.first:
        pick_target(config)  # before hours of work whose result could not be kept
    if world.size > 1:
        models = [model, *(load_pretrained(run) for run in config.fuse)]
        world.agree(
            {
                "version": versions("scikit-learn"),
                "configuration": dataclasses.asdict(config),
                "weights or data": [feature_key(each, one, {}) for each in models for one in given],
            }
        )
    job = _Job(config, split, model.to(device), device, say, world)
    given, notes, warnings = _settled(config, model, given, names)
    if not quiet:
        print("".join(f"{line}\n" for line in notes), end="", flush=True)
        for line in warnings:
            print(f"warning: {line}", file=sys.stderr, flush=True)
    report = {
        "command": command_line(config),
        "config": dataclasses.asdict(config),
        "model": {"name": model.name, **model.config.to_dict()},
        "versions": versions("scikit-learn"),
        "device": str(device),
    }
    if config.protocol == "detection":
        report |= job.detection(given)
    elif config.protocol == "transfer":
        report |= job.transfer(given)
    elif config.fuse:
        report |= job.fusion(given)
    else:
        report |= job.plain(given)
    if not world.first:
        return report
    report["pretraining"] = runs
    report["notes"] = notes
    report["warnings"] = [*split_warnings(config, runs, given), *warnings, *job.untrained]
    if not quiet:
        # What was said before the work is not said again.
        untold = [line for line in report["warnings"] if line not in warnings]
        print(format_report({**report, "warnings": untold}), flush=True)
    target = pick_target(config)  # another evaluation may have taken the name meanwhile
    target.parent.mkdir(parents=True, exist_ok=True)
    if config.out is None:
        note_written(config.checkpoint, target)
    write_text(target, json.dumps(report, indent=2) + "\n")
    if not quiet:
        print(f"\nwritten to {target}")
    return report


def _split_of(config: EvaluateConfig, run: Mapping[str, Any], say: Callable[[str], None] | None) -> str:
    """Return the split to evaluate where none is asked for, and say where its name comes from."""
    split = None if config.protocol == "transfer" else run.get("split")
    if say:
        whose = f"the run {config.checkpoint} names it" if split else "no other is named"
        say(f"split {split or DEFAULT_SPLIT!r}: {whose}; --split takes another")
    return split or DEFAULT_SPLIT


def _settled(
    config: EvaluateConfig, model: SkeletonModel, given: Sequence[PackedSkeletons], names: Sequence[str]
) -> tuple[list[PackedSkeletons], list[str], list[str]]:
    """Return the data sets with the split and the model's order of joints, what to note and what to warn of."""
    layout = None if config.protocol == "transfer" else model.layout
    # Streams have no label of their own.
    labelled = config.protocol != "detection"
    settled = settle(given, names, split=config.split, layout=layout, labelled=labelled)
    sizes = size_warnings(settled.sets, names, run_steps(config.checkpoint), model.body_size)
    notes = [*settled.notes, *class_notes(given, names), *unplaced_joints(config.pooling, model.layout)]
    return settled.sets, notes, [*sizes, *settled.warnings]


@dataclasses.dataclass
class _Job:
    """An evaluation: its parts return their share of the report.

    Attributes:
        untrained: a line where classes are tested that no training clip has.
    """

    config: EvaluateConfig
    split: str
    model: SkeletonModel
    device: torch.device
    say: Callable[[str], None] | None
    world: World
    untrained: list[str] = dataclasses.field(default_factory=list)

    def plain(self, given: Sequence[PackedSkeletons]) -> dict[str, Any]:
        """Evaluate on data of the encoder's own layout."""
        config = self.config
        prepared = self._prepare(given, config.checkpoint, self.model)
        if config.protocol in SUPERVISED:
            results = self._supervised(prepared, config.protocol)
        else:
            results = self._frozen(prepared, self._join(given), config.protocol)
        return self._described(prepared) | {"results": results} | self._recipes()

    def transfer(self, given: Sequence[PackedSkeletons]) -> dict[str, Any]:
        """Evaluate on data that is converted to the encoder's layout."""
        config, layout = self.config, self.model.layout
        pairs = [to_layout(one, layout, missing=config.missing) for one in given]
        # What becomes parts of a body is pre-processed before, by its own hips and spine.
        ready = given if is_body(layout) else [one for one, _ in pairs]
        prepared = self._prepare(ready, config.checkpoint, self.model)
        results = self._frozen(prepared, self._join(given), "all")
        if config.with_finetune:
            for row, scores in self._supervised(prepared, "finetune").items():
                results[row] |= scores
        report = self._described(prepared) | {"transfer": [note for _, note in pairs], "results": results}
        return report | (self._recipes() if config.with_finetune else {})

    def detection(self, given: Sequence[PackedSkeletons]) -> dict[str, Any]:
        """Label untrimmed streams."""
        config, data = self.config, self._join(given)
        windows = config.windows()
        steps = run_steps(config.checkpoint)
        results = compare_detection(
            self.model,
            data,
            self.split,
            steps=steps,
            seeds=config.seeds,
            config=windows,
            standardize=config.standardize,
            min_updates=config.min_updates,
            bodies=config.bodies,
            pooling=config.pooling,
            batch_size=config.batch_size,
            progress=self.say,
            world=self.world,
        )
        halves = find_streams(data, self.split, windows)
        return {
            "data": data.describe(),
            "split": describe_streams(self.split, halves),
            "sampling": sampling(self.model, crop=1.0),
            "detection": dataclasses.asdict(windows) | {"steps_of_each_window": steps},
            "results": results,
        }

    def fusion(self, given: Sequence[PackedSkeletons]) -> dict[str, Any]:
        """Evaluate several encoders and the sum of their scores."""
        config = self.config
        streams: list[EncodedStream] = []
        for run in (config.checkpoint, *config.fuse):
            model = load_pretrained(run).to(self.device)
            prepared = self._prepare(given, run, model)
            if streams and prepared.names != streams[0].data.names:
                raise ValueError(
                    f"the steps of {run} leave {prepared.num_clips} clips, those of {config.checkpoint} "
                    f"{streams[0].data.num_clips}: scores can be fused for the same clips only; prepare the data so "
                    "that no step drops clips"
                )
            streams.append(EncodedStream(stream_of(run_steps(run)), model, prepared))
        results, own = compare_streams(
            streams,
            self.split,
            protocol=config.protocol,
            seeds=config.seeds,
            weights=config.weights or None,
            standardize=config.standardize,
            min_updates=config.min_updates,
            raw_data=self._join(given),
            config=config.recipe(),
            caches=[self._cache(run) for run in self._runs()],
            bodies=config.bodies,
            pooling=config.pooling,
            batch_size=config.batch_size,
            progress=self.say,
            world=self.world,
        )
        if not self.world.first:
            return {}
        weights = config.weights or [1.0] * len(streams)
        described = [
            {"stream": name, "checkpoint": run, "weight": weight, "model": stream.model.name}
            | {"steps": list(stream.data.steps), "results": own[name]}
            for name, run, weight, stream in zip(own, self._runs(), weights, streams, strict=True)
        ]
        report = self._described(streams[0].data) | {"results": results, "streams": described}
        return report | self._recipes()

    def _runs(self) -> tuple[str, ...]:
        return (self.config.checkpoint, *self.config.fuse)

    def _cache(self, run: str) -> Path | None:
        """Return where the features of a run are kept: in its folder, and nowhere for a model of others."""
        folder = own_folder(run)
        return folder / CACHE_FOLDER if self.config.cache and folder is not None else None

    def _prepare(self, given: Sequence[PackedSkeletons], run: str, model: SkeletonModel) -> PackedSkeletons:
        """Return the data joined and pre-processed as for the training of a run."""
        for one in given:
            check_fit(model, one)
        model.check_pooling(self.config.pooling)
        steps = run_steps(run)
        channels = model_channels(model)
        prepared = self._join([for_layout(one, model.layout, steps, channels) for one in given])
        note = untrained_note(model, prepared)
        if note is not None and self.say:
            self.say(note)
        return prepared

    def _join(self, sets: Sequence[PackedSkeletons]) -> PackedSkeletons:
        unnamed = "numbers" if self.config.label_numbers else "refuse"
        if is_body(self.model.layout) and any(one.layout != sets[0].layout for one in sets):
            channels = common_channels(sets, self.model.layout)
            sets = [for_layout(one, self.model.layout, (), channels) for one in sets]
        return concatenate(join_ready(sets), unnamed=unnamed, sources=self.config.data)

    def _frozen(self, prepared: PackedSkeletons, raw: PackedSkeletons, protocol: str) -> dict[str, Scores]:
        config = self.config
        return compare(
            self.model,
            prepared,
            self.split,
            protocol=protocol,
            seeds=config.seeds,
            standardize=config.standardize,
            min_updates=config.min_updates,
            raw_data=raw,
            cache=self._cache(config.checkpoint),
            batch_size=config.batch_size,
            bodies=config.bodies,
            pooling=config.pooling,
            world=self.world,
        )

    def _supervised(self, prepared: PackedSkeletons, protocol: str) -> dict[str, Scores]:
        config = self.config
        return compare_supervised(
            self.model,
            prepared,
            self.split,
            protocol=protocol,
            seeds=config.seeds,
            config=config.recipe(),
            shares=config.shares,
            bodies=config.bodies,
            progress=self.say,
        )

    def _recipes(self) -> dict[str, Any]:
        """Return every setting of fine-tuning, where there is any."""
        if self.config.protocol not in (*SUPERVISED, "transfer"):
            return {}
        found = recipes(self.config.recipe())
        return {"recipes": {row: dataclasses.asdict(one) for row, one in found.items()}}

    def _described(self, prepared: PackedSkeletons) -> dict[str, Any]:
        halves = labelled_split(prepared, self.split)
        self.untrained = untrained_classes(prepared, halves)
        return {
            "data": prepared.describe(),
            "split": describe_split(self.split, prepared, halves),
            "sampling": sampling(self.model),
        }
