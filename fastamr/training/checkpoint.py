"""Checkpoints of a run: one safetensors file that is replaced in one piece, and no pickle.

``state.safetensors`` holds the weights, AdamW's moments and the random state; its header holds the scalars as
JSON. As it is a single file, ``os.replace`` makes a checkpoint exist completely or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..checksums import load_file, save_file
from ..documents import load_json_text, parse_json_text
from ..errors import naming, shortened, told
from ..files import check_plain, replaced, write_text
from ..folders import remove_written
from .config import PretrainConfig, current_names, model_config_class
from .update.step import PretrainStep

STATE_FILE = "state.safetensors"
# The checkpoint before the last one, as long as no loss has shown that the last one is of use.
PREVIOUS_FILE = "state.previous.safetensors"
# A checkpoint that gave a loss that is not finite.
SUSPECT_FILE = "state.suspect.safetensors"
# Written after all other files of a run that is done.
COMPLETE_FILE = "complete.json"
MODEL_FILES = ("config.json", "model.safetensors")
RUN_FILES = (
    "config.yaml",
    *MODEL_FILES,
    STATE_FILE,
    PREVIOUS_FILE,
    SUSPECT_FILE,
    "metrics.jsonl",
    COMPLETE_FILE,
)
# What else a run, or an evaluation of it, leaves in the folder.
_OTHERS = ("evaluation*.json", "features", "tensorboard", "wandb")
# A run with another value of one of these is another run, which a checkpoint cannot continue.
_IDENTITY = (
    "model", "architecture", "preprocess", "train_on", "split", "keep_empty_bodies", "batch_size", "seed",
    "mixture",
)  # fmt: skip
# These may differ between a run and its continuation without a word.
_INCIDENTAL = (
    "data", "held_out_data", "out", "graph", "data_budget", "recompute", "side_branch",
    "log_every", "checkpoint_every", "probe_every", "probe_pooling", "tensorboard", "track",
    "progress", "on_nan",
)  # fmt: skip
_FORMAT = "fastamr-state-1"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Checkpoint:
    """The content of a checkpoint: tensors by name, on the CPU, and JSON scalars."""

    tensors: dict[str, Tensor]
    scalars: dict[str, Any]


@contextlib.contextmanager
def reported(folder: str | Path) -> Iterator[None]:
    """Turn a failed write into an ``OSError`` that says what is left.

    Raises:
        OSError: the write inside failed (a full disk, for one); files that were there before are intact.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        place, saved = Path(folder), (Path(folder) / STATE_FILE).is_file()
        full = getattr(error, "errno", None) in _FULL or "space" in str(error)
        if not place.is_dir():
            raise OSError(
                f"cannot write into {folder} ({error}): the folder is gone, and the run with it"
            ) from error
        raise OSError(
            f"cannot write into {folder} ({error}); "
            + ("the files saved before are intact: " if saved else "nothing was saved yet: ")
            + ("make room, then " if full else "make the folder writable, then ")
            + ("--resume" if saved else "start the run again")
        ) from error


def save_checkpoint(folder: str | Path, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    """Replace the checkpoint of a run in one piece; the one before stays as ``state.previous.safetensors``.

    Args:
        folder: the run's folder.
        tensors: tensors by name, on any device.
        scalars: what JSON can hold.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": _FORMAT, "state": json.dumps(dict(scalars))}
    path = Path(folder) / STATE_FILE
    with replaced(path) as temporary:
        save_file(content, temporary, header)
        if path.exists():
            _keep(path, path.with_name(PREVIOUS_FILE))


def _keep(path: Path, other: Path) -> None:
    """Give a file a second name, which takes no room where the file system has links."""
    if other.exists() and other.samefile(path):
        return  # a rename between two names of one file does nothing and would leave the temporary one
    with replaced(other) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def drop_previous(folder: str | Path) -> None:
    """Remove all checkpoints but the last one, which has turned out to be of use."""
    for name in (PREVIOUS_FILE, SUSPECT_FILE):
        (Path(folder) / name).unlink(missing_ok=True)


def go_back(folder: str | Path) -> bool:
    """Put the checkpoint before the last one in its place, and keep that one aside; False where there is none."""
    folder = Path(folder)
    if not (folder / PREVIOUS_FILE).is_file():
        return False
    _keep(folder / STATE_FILE, folder / SUSPECT_FILE)
    (folder / PREVIOUS_FILE).replace(folder / STATE_FILE)
    return True


def mark_complete(folder: str | Path, summary: Mapping[str, Any]) -> None:
    """Write the file that says that all others of a run are there: after them.

    Args:
        folder: the run's folder.
        summary: what the run reached; ``updates`` among it.
    """
    write_text(Path(folder) / COMPLETE_FILE, json.dumps(dict(summary), indent=2) + "\n")


def finished_updates(folder: str | Path) -> int | None:
    """Return the updates of a run that has ended and whose model is there; None of any other."""
    folder = Path(folder)
    try:
        ended = load_json_text(folder / COMPLETE_FILE)
    except (OSError, ValueError):
        return None
    updates = ended.get("updates") if isinstance(ended, dict) else None
    files = all((folder / name).is_file() for name in MODEL_FILES)
    return updates if files and isinstance(updates, int) else None


def is_complete(folder: str | Path, update: int) -> bool:
    """Return whether a run has ended with an update, and its model is there."""
    return finished_updates(folder) == update


def load_checkpoint(folder: str | Path) -> Checkpoint | None:
    """Read the checkpoint of a run, or None where the folder has none.

    Raises:
        ValueError: the file is truncated, damaged (the message names the tensor), or no checkpoint of this library.
    """
    path = Path(folder) / STATE_FILE
    check_plain(path)
    if not path.exists():
        return None
    try:
        with naming(path, "remove it, or train with --overwrite"):
            tensors, header = load_file(path)
            if header.get("format") != _FORMAT:
                raise ValueError(
                    f"{path} is not a checkpoint of fastamr ({_FORMAT}): format {header.get('format')!r}"
                )
            scalars = parse_json_text(header["state"], f"the state of {path}")
            _check_state(scalars, tensors, path)
            return Checkpoint(tensors, scalars)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or damaged ({told(error)}); remove it, or train with overwrite"
        ) from None


def _check_state(scalars: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise ``ValueError`` where a checkpoint lacks what a run continues from, or holds it as something else."""
    kinds = {"update": int, "seconds": (int, float), "config": dict, "data": str}
    for name, kind in kinds.items():
        value = scalars.get(name) if isinstance(scalars, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):  # type: ignore[arg-type]
            raise ValueError(
                f"{path} is damaged: its state holds {name} = {shortened(value)}; remove it, or train with --overwrite"
            )
    if "seed" not in tensors or "rng.cpu" not in tensors or "scaler" not in scalars:
        raise ValueError(
            f"{path} is damaged: it lacks the seed of its run; remove it, or train with --overwrite"
        )


def capture_training(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return weights, buffers and optimizer state by name (not copied)."""
    tensors = {f"model.{name}": tensor for name, tensor in _weights(model).items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    return tensors


def restore_training(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put weights, buffers and optimizer state back, on the device where the model is.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    with torch.no_grad():
        for name, weight in _weights(model).items():
            saved = tensors.get(f"model.{name}")
            if saved is None or saved.shape != weight.shape:
                found = "nothing" if saved is None else tuple(saved.shape)
                raise ValueError(
                    f"the checkpoint is of another architecture: {name} has shape {tuple(weight.shape)}, "
                    f"the checkpoint holds {found}"
                )
            weight.copy_(saved)
    for name, parameter in model.named_parameters():
        for key, value in tensors.items():
            if key.startswith("optimizer.") and key.split(".", 2)[2] == name:
                _put_back(optimizer.state[parameter], key.split(".")[1], value, parameter.device)


def capture_step(step: PretrainStep) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all that a step goes on from: tensors by name (not copied), and scalars."""
    tensors = capture_training(step.model, step.optimizer)
    tensors |= {"seed": step.seed[:2], "rng.cpu": torch.get_rng_state()}
    if step.device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(step.device)
    return tensors, {"update": step.update, "scaler": step.scaler.state_dict()}


def restore_step(step: PretrainStep, checkpoint: Checkpoint) -> None:
    """Put back what :func:`capture_step` returned: weights, optimizer, random state and the number of the update.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    scalars, tensors = checkpoint.scalars, checkpoint.tensors
    restore_training(step.model, step.optimizer, tensors)
    step.seed[:2].copy_(tensors["seed"])
    if scalars["scaler"] and step.scaler.is_enabled():
        step.scaler.load_state_dict(scalars["scaler"])
    torch.set_rng_state(tensors["rng.cpu"])
    if step.device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"], step.device)
    step.continue_from(scalars["update"])


def _put_back(state: dict[str, Any], key: str, value: Tensor, device: torch.device) -> None:
    """Set a parameter's optimizer state, in place where it exists, so that a recorded step stays valid."""
    if isinstance(state.get(key), Tensor):
        state[key].copy_(value)
    else:
        state[key] = value.to(device, copy=True)


def changed_settings(scalars: Mapping[str, Any], config: Mapping[str, Any], fingerprint: str) -> list[str]:
    """Compare the run of a checkpoint with the one that wants to continue it.

    Args:
        scalars: the checkpoint's, with ``config`` and ``data``.
        config: the complete configuration of the new run.
        fingerprint: the new run's data.

    Returns:
        The settings that changed but let the run go on (its length, its learning rate, ...), in words.

    Raises:
        ValueError: the model, its architecture, the data or another setting that names the run is not the
            same.
    """
    # Options that are younger than the checkpoint had their defaults.
    saved = PretrainConfig().to_dict() | current_names(scalars["config"])
    for name in _IDENTITY:
        values = [saved[name], config[name]]
        if name == "architecture":  # settings that are younger than the checkpoint had their defaults, too
            defaults = model_config_class(config["model"])().to_dict()
            values = [defaults | value for value in values]
        old, new = json.loads(json.dumps(values))
        if old != new:
            raise ValueError(
                f"cannot resume: {_difference(name, old, new)}; use the saved value, or name another folder"
            )
    if scalars["data"] != fingerprint:
        raise ValueError(
            f"cannot resume: the data is not what the run was started on (fingerprint {scalars['data']}, "
            f"now {fingerprint}); pass the same data, or name another folder"
        )
    rest = [name for name in config if name not in _IDENTITY + _INCIDENTAL]
    return [
        _difference(name, saved.get(name), config[name]) for name in rest if saved.get(name) != config[name]
    ]


def _difference(name: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        return ", ".join(_difference(f"{name}.{key}", old.get(key), new.get(key)) for key in names)
    return f"{name} was {old!r} and is now {new!r}"


def check_folder(folder: str | Path, *, resume: bool | Literal["auto"], overwrite: bool) -> None:
    """Refuse a folder that holds a run which the caller did not mean to touch.

    With ``resume="auto"`` a run that ended before its first checkpoint is no reason to refuse: it starts again.

    Raises:
        FileExistsError: the folder holds a run and neither ``resume`` nor ``overwrite`` is set; with ``"auto"``, a
            model without a checkpoint to continue from; or it is a file.
        FileNotFoundError: ``resume`` is True, and the folder holds no checkpoint.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"out {str(folder)!r} is a file; name a folder")
    if overwrite or (resume and (folder / STATE_FILE).is_file()):
        return
    if resume is True:
        raise FileNotFoundError(
            f"nothing to resume in {folder}, which holds no {STATE_FILE}: omit --resume to start a run, or pass "
            "--resume auto"
        )
    found = [name for name in (MODEL_FILES if resume else RUN_FILES) if (folder / name).exists()]
    if found:
        raise FileExistsError(
            f"out {str(folder)!r} already holds a {'model without a checkpoint' if resume else 'run'} "
            f"({', '.join(found)}); pass {'' if resume else '--resume to continue it, '}--overwrite to replace it, or "
            "name another folder"
        )


def clear_run(folder: str | Path) -> list[str]:
    """Remove the run in a folder: the files that a new one replaces anyway, and what the manifest names beside them.

    Returns:
        Evaluations, features and event files that stay, because the manifest does not say that the library wrote them.
    """
    folder = Path(folder)
    remove_written(folder, *RUN_FILES)
    return sorted(path.name for pattern in _OTHERS for path in folder.glob(pattern))


def clear_unfinished(folder: str | Path) -> None:
    """Remove the halves of a run's files that a process left which ended while it wrote."""
    for name in RUN_FILES:
        for path in Path(folder).glob(f".{name}.*.part"):
            path.unlink(missing_ok=True)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and the buffers that the model saves; the others are made anew from its configuration."""
    saved = model.state_dict(keep_vars=True)
    buffers = {name: value for name, value in model.named_buffers() if name in saved}
    return {**dict(model.named_parameters()), **buffers}
