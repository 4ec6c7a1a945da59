"""Pre-training: what a caller gives is checked, then the run is built and its updates are made."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import native, progress
from ..data import parse_steps
from ..data.joining import Gathered, gather, open_sets, repeated, same_file, set_names
from ..data.packed.split import split_name
from ..devices import deterministic
from ..distributed import World
from ..files import check_writable
from ..folders import FolderLock
from ..memory import OutOfMemory, is_exhausted, keep_freed_memory
from ..ops.common import tuned
from ..skeleton import is_body
from ..tracking import check_trackers
from ..tuning import saved, tune
from .checkpoint import RUN_FILES, check_folder
from .config import PretrainConfig
from .keeper import Keeper
from .loop import Loop
from .probe import HeldOut
from .report import RunReport
from .run import Run
from .setup import DEFAULT_SPLIT, check_room, is_resident, model_layout, pick_split
from .update.calls import basis_of, calls_of
from .update.needs import exhausted

if TYPE_CHECKING:
    from ..data import PackedSkeletons

WHAT = "fastamr pretrain"


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
        ImportError: a tracker's package is not installed.
        FileExistsError: the folder holds another run, or one of the data files under a name that a run writes.
        BlockingIOError: another process writes into the folder.
        FloatingPointError: the loss or the weights are not finite; the last checkpoint is kept, and the clips of that
            update are written into the folder.
        OSError: a file cannot be written; the last checkpoint is kept.
        OutOfMemory: an allocation failed, on the host or on the device; the last checkpoint is kept.
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
        check_trackers(config.track)
        _check_place(config)
    with contextlib.ExitStack() as held:
        held.enter_context(deterministic(config.deterministic, config.device))
        device = world.pick_device(config.device)
        held.enter_context(world.joined(device))
        try:
            return _pretrain(config, data, device, world, quiet or not world.first)
        except (MemoryError, RuntimeError, OSError) as error:
            if isinstance(error, OutOfMemory) or not is_exhausted(error):
                raise
            raise exhausted(config, error, "before the first update") from error


def _pretrain(
    config: PretrainConfig, data: PackedSkeletons | None, device: torch.device, world: World, quiet: bool
) -> Path:
    """Make the run; what it recorded is gone when this returns, as NCCL needs before its connections close."""
    gathered, held_out = _gather(config, data, device)
    if device.type == "cpu":
        native.why_not("cpu")  # compiled on first use: now, not in the first update, which is timed
    run = Run(config, gathered, device, world, held_out)
    if config.tune:
        _tune(run, quiet)
    report = RunReport(
        config, run.order, run.schedule, run.total, run.warmup, quiet=quiet, writes=world.first
    )
    keeper = Keeper(run, report)
    with FolderLock(config.out, WHAT) if world.first else contextlib.nullcontext():
        if world.first:
            check_folder(config.out, resume=config.resume, overwrite=config.overwrite)
        world.wait()
        keeper.open_folder()
        Loop(run, keeper, report).train()
    return run.folder


def _tune(run: Run, quiet: bool) -> None:
    """Measure the back ends at the run's shapes; of several processes the first one does, for those of its machine."""
    asked = os.environ.get("FASTAMR_TUNING")
    if asked:
        raise ValueError(
            f"tune would be without effect, FASTAMR_TUNING={asked} fixes the choices: unset it, or leave tune"
        )
    if run.world.first:
        sequences = run.config.batch_size // run.config.accumulate // run.world.size
        basis = basis_of(run.model, sequences, run.step.dtype)
        say = progress.say if not quiet else lambda line: None
        record, path = saved(tune(calls_of(run.step), basis, say=say))
        say(f"tuned: {path} (record {record.digest})")
    run.world.wait()
    tuned.forget()


def _check_place(config: PretrainConfig) -> None:
    """Refuse a folder that cannot be written into, before data is read for minutes."""
    check_folder(config.out, resume=config.resume, overwrite=config.overwrite)
    for name in RUN_FILES:
        check_writable(Path(config.out) / name, *config.data, *config.held_out_data)
    if Path(config.out).is_dir():
        with FolderLock(config.out, WHAT):
            pass


def _gather(
    config: PretrainConfig, data: PackedSkeletons | None, device: torch.device
) -> tuple[Gathered, list[HeldOut]]:
    """Return the data of a run, with its split, and the sets that are held out.

    Several sets that will not lie on the device stay where they are.
    """
    sets, sources = (open_sets(config.data), config.data) if data is None else ([data], ["the data"])
    split = pick_split(config.split, sets, config.train_on)
    layout = model_layout(config)
    check_room(sets, sources, config.preprocess, layout)
    gathered = gather(
        sets,
        sources,
        config.preprocess,
        layout=layout,
        split=None if config.train_on == "all" else split,
        labelled=False,
        unnamed="unknown",
        copy=is_resident(sets, device, config.data_budget),
    )
    gathered = dataclasses.replace(gathered, split=split)
    names = set_names(config.held_out_data, gathered.names)
    held_out = list[HeldOut]()
    for source, name in zip(config.held_out_data, names, strict=True):
        one, notes, warnings = _hold_out(config, source, gathered, (sets, sources))
        held_out.append(HeldOut(name, one, _probed_split(one, split)))
        gathered = dataclasses.replace(
            gathered, notes=(*gathered.notes, *notes), warnings=(*gathered.warnings, *warnings)
        )
    if held_out and not config.probe_every:
        text = "held-out sets are named and not used, as there are no probes: pass --probe-every"
        gathered = dataclasses.replace(gathered, notes=(*gathered.notes, text))
    return gathered, held_out


def _hold_out(
    config: PretrainConfig,
    source: str,
    gathered: Gathered,
    trained: tuple[Sequence[PackedSkeletons], Sequence[str]],
) -> tuple[PackedSkeletons, list[str], list[str]]:
    """Return a set that is never trained on, pre-processed as the training data, and what to note and to warn of.

    Raises:
        ValueError: it is one of the training files, or has another layout or number of channels.
    """
    data = gathered.data
    (opened,) = open_sets([source])
    check_room([opened], [source], config.preprocess, data.layout if is_body(data.layout) else None)
    warnings = list[str]()
    for one, other in zip(*trained, strict=True):
        if same_file(source, other):
            raise ValueError(
                f"held_out_data names {source}, which is trained on as --data {other}: leave one of the two"
            )
        warnings += [text for text, grave in repeated([opened, one], [source, other]) if grave]
    own = gather(
        [opened],
        [source],
        config.preprocess,
        layout=data.layout,
        channels=data.coords.shape[-1],
        labelled=False,
        reference=gathered.body_size,
    )
    found, wanted = [(each.layout, each.coords.shape[-1]) for each in (own.data, data)]
    if found != wanted:
        raise ValueError(
            f"held_out_data {source} has layout {found[0].name!r} with {found[1]} channels, the training data "
            f"{wanted[0].name!r} with {wanted[1]}: map it first, with fastamr convert IN OUT --layout {wanted[0].name}"
        )
    return own.data, list(own.notes), [*own.warnings, *warnings]


def _probed_split(data: PackedSkeletons, split: str | None) -> str | None:
    """Return the run's split where a set has it, else ``official``, else its only one, else None."""
    for name in (split, DEFAULT_SPLIT):
        known = None if name is None else split_name(name, data.splits)
        if known is not None:
            return known
    return next(iter(data.splits)) if len(data.splits) == 1 else None
