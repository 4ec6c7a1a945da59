"""Updates of the full pre-training pipeline on data of a real set's size, and what a whole run would take."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..devices import pick_device
from ..tables import figure
from ..training import PretrainConfig, pretrain
from ..visualization.curves import read_metrics
from .machine import environment
from .ntu_sized import Recipe, ntu_sized, preset, two_person_clips
from .timing import duration

_CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class RecipeOptions:
    """What :func:`run_recipe` runs.

    Attributes:
        preset: name of the recipe, a key of :data:`fastamr.benchmarking.ntu_sized.PRESETS`.
        model: name of the model.
        architecture: its settings; the paper's by default.
        updates: updates to run.
        full: run all updates of the recipe instead.
        clips: clips of the data set, to scale it down on a small machine; by default the recipe's number.
        batch_size: sequences of an update; by default the recipe's.
        device: ``auto`` or a torch device.
        precision: as in :class:`fastamr.training.PretrainConfig`.
        seed: of data, weights, order and masks.
        progress: show the progress bar.

    Raises:
        ValueError: an unknown preset, a number that is not positive, or ``full`` with fewer clips.
    """

    preset: str = "ntu60-xsub"
    model: str = "amr"
    architecture: Mapping[str, Any] = field(default_factory=dict)
    updates: int = 1000
    full: bool = False
    clips: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        recipe = preset(self.preset)
        for name in ("updates", "clips", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if self.full and self.clips not in (None, recipe.clips):
            raise ValueError(f"full is the recipe with its {recipe.clips} clips: omit clips={self.clips}")


@dataclass(frozen=True)
class Timing:
    """Where the seconds of a run went.

    Attributes:
        setup: moving the data to the device, building model and optimizer.
        loop: all updates with logging and checkpoints.
        warmup: what the updates up to the first reading of the loss took longer than as many later ones: compilation,
            recording of a graph, first touches of memory.
        per_update: of the updates after the first reading of the loss, logging included.
        checkpoint: of one checkpoint, with all else that happens once.
    """

    setup: float
    loop: float
    warmup: float
    per_update: float
    checkpoint: float


def run_recipe(options: RecipeOptions, out: Path) -> dict[str, Any]:
    """Run the updates, with logging and checkpoints on the disk of ``out``, and project the whole recipe.

    The run's own folder is temporary: a model of synthetic data is of no use.

    Args:
        options: what to run.
        out: an existing folder.

    Returns:
        Plain values: ``kind``, ``environment``, ``data``, ``bodies`` (which were drawn), ``seconds``,
        ``sequences_per_second`` (whole loop), ``steady_sequences_per_second`` (without the first updates and
        checkpoints) and ``totals``.

    Raises:
        ValueError: an unknown model, or settings that it does not take.
        FloatingPointError: the loss became infinite.
        OSError: the disk is full.
    """
    recipe = preset(options.preset)
    clips = options.clips or recipe.clips
    batch = options.batch_size or recipe.batch_size
    device = pick_device(options.device)
    facts = environment(device)
    with tempfile.TemporaryDirectory(dir=out, prefix="run-") as folder:
        config = PretrainConfig(
            model=options.model,
            architecture=dict(options.architecture),
            out=str(Path(folder) / "run"),
            updates=recipe.updates if options.full else options.updates,
            batch_size=batch,
            device=str(device),
            precision=options.precision,
            seed=options.seed,
            progress=options.progress,
        )
        config.model_config()
        data = ntu_sized(clips, seed=options.seed)
        began = time.time()
        run = pretrain(config, data=data, quiet=not options.progress)
        ended = time.time()
        opened = (run / _CONFIG_FILE).stat().st_mtime
        records = read_metrics(run)
    header = records["header"][0]
    assert config.updates is not None
    saves = _saves(config.updates, config.checkpoint_every, header["updates_per_epoch"])
    seconds = timing(records["train"], began=began, opened=opened, ended=ended, saves=saves)
    size = {
        "clips": clips,
        "clips_of_the_recipe": recipe.clips,
        "scaled_down": clips < recipe.clips,
        "bodies": data.num_bodies,
        "frames": data.num_frames,
        "bytes": data.coords.nbytes,
    }
    return {
        "kind": "recipe",
        "environment": facts,
        "options": dataclasses.asdict(options),
        "precision": header["precision"],
        "data": size,
        "updates": config.updates,
        "batch_size": batch,
        "bodies": {name: header[name] for name in ("bodies", "sequences", "empty_sequences")},
        "seconds": dataclasses.asdict(seconds),
        "sequences_per_second": config.updates * batch / seconds.loop,
        "steady_sequences_per_second": batch / seconds.per_update,
        "last_loss": records["train"][-1]["loss"],
        "totals": totals(recipe, seconds, batch, checkpoint_every=config.checkpoint_every, full=options.full),
    }


def timing(
    train: Sequence[Mapping[str, Any]], *, began: float, opened: float, ended: float, saves: int
) -> Timing:
    """Part the time of a run.

    Args:
        train: its readings of the loss, with ``update`` and ``seconds`` (of updates alone, since the start).
        began: when the run was called, seconds since the epoch.
        opened: when its folder was made, right before the first update.
        ended: when it returned.
        saves: checkpoints that it wrote.
    """
    first, last = train[0], train[-1]
    updates = last["update"] - first["update"]
    per_update = (
        (last["seconds"] - first["seconds"]) / updates if updates else last["seconds"] / last["update"]
    )
    return Timing(
        setup=max(0.0, opened - began),
        loop=ended - opened,
        warmup=max(0.0, first["seconds"] - first["update"] * per_update),
        per_update=per_update,
        checkpoint=max(0.0, ended - opened - last["seconds"]) / max(saves, 1),
    )


def totals(
    recipe: Recipe, seconds: Timing, batch: int, *, checkpoint_every: float, full: bool = False
) -> list[dict[str, Any]]:
    """What the whole recipe takes: with empty bodies as the public code has it, and without.

    An update has the same shapes in both and hence the same cost; without empty bodies an epoch has fewer of them.

    Args:
        recipe: the recipe.
        seconds: of a measured run.
        batch: its sequences of an update; with another than the recipe's, time goes by sequences.
        checkpoint_every: epochs between two checkpoints.
        full: the measured run was the whole recipe in updates, so the first total is measured, not projected.

    Returns:
        Two entries with ``name``, ``what``, ``updates``, ``epochs`` (passes over the bodies), ``seconds``,
        ``projected``.
    """
    bodies = recipe.clips + int(two_person_clips(recipe.clips).sum())
    size = recipe.batch_size
    without = round(recipe.epochs * bodies / size)
    saves = recipe.epochs / checkpoint_every + 1
    per_update = seconds.per_update * size / batch

    def projected(updates: int) -> float:
        return seconds.setup + seconds.warmup + updates * per_update + saves * seconds.checkpoint

    first = seconds.setup + seconds.loop if full else projected(recipe.updates)
    return [
        {
            "name": "as released",
            "what": f"{recipe.updates:,} updates of {size} body slots, empty ones included: {recipe.epochs} epochs",
            "updates": recipe.updates,
            "epochs": recipe.epochs,
            "seconds": first,
            "projected": not full,
        },
        {
            "name": "without empty bodies",
            "what": f"{recipe.epochs} epochs over the {bodies:,} bodies that exist: {without:,} updates of {size}",
            "updates": without,
            "epochs": recipe.epochs,
            "seconds": projected(without),
            "projected": True,
        },
    ]


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal."""
    facts, data, seconds = report["environment"], report["data"], report["seconds"]
    lines = [
        f"{report['options']['preset']}, {report['options']['model']}, {report['precision']}: "
        f"{report['updates']:,} updates of {report['batch_size']} sequences",
        f"{facts['device_name']}, {facts['date']}, torch {facts['torch']}",
        f"data: synthetic, {data['clips']:,} clips, {data['bodies']:,} bodies, {data['frames']:,} frames, "
        f"{data['bytes'] / 1e9:.2f} GB",
    ]
    if data["scaled_down"]:
        lines.append(f"scaled down: the recipe has {data['clips_of_the_recipe']:,} clips")
    drawn = report["bodies"]
    lines += [
        f"bodies drawn: {drawn['bodies']}, {drawn['empty_sequences']:,} of {drawn['sequences']:,} empty",
        f"{figure(report['sequences_per_second'])} sequences/s with logging and checkpoints, "
        f"{figure(report['steady_sequences_per_second'])} in the steady state",
        f"{seconds['per_update'] * 1e3:.2f} ms an update; once: setup {seconds['setup']:.1f} s, first updates "
        f"{seconds['warmup']:.1f} s; a checkpoint {seconds['checkpoint']:.2f} s",
    ]
    lines += _caveats(report)
    for total in report["totals"]:
        mark = "PROJECTED, not measured" if total["projected"] else "measured"
        lines.append(f"{mark}: {duration(total['seconds'])} for {total['what']}")
    return "\n".join(lines)


def _caveats(report: Mapping[str, Any]) -> list[str]:
    """What the measured updates had other than those that the projections are for."""
    options, lines = report["options"], []
    size = preset(options["preset"]).batch_size
    if report["batch_size"] != size:
        lines.append(
            f"the recipe has {size} sequences an update: its time is that of as many in updates of "
            f"{report['batch_size']}"
        )
    if options["architecture"]:
        settings = ", ".join(f"{name}={value}" for name, value in options["architecture"].items())
        lines.append(f"not the published model, here as below: {settings}")
    return lines


def _saves(updates: int, checkpoint_every: float, updates_per_epoch: int) -> int:
    """Checkpoints of a run: every so many epochs, and at its end."""
    every = max(1, round(checkpoint_every * updates_per_epoch))
    return updates // every + (updates % every != 0)
