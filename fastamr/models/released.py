"""Checkpoints of MAMP's public code, of which its MAE variant has the same names; nothing in them is run."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import naming, told

# Ours to theirs; blocks and layers inside keep their names.
_PREFIXES = {
    "encoder.embed.proj.": "joints_embed.proj.",
    "encoder.embed.time_embed": "temp_embed",
    "encoder.embed.joint_embed": "pos_embed",
    "encoder.blocks.": "blocks.",
    "encoder.norm.": "norm.",
    "decoder.embed.": "decoder_embed.",
    "decoder.mask_token": "mask_token",
    "decoder.time_embed": "decoder_temp_embed",
    "decoder.joint_embed": "decoder_pos_embed",
    "decoder.blocks.": "decoder_blocks.",
    "decoder.norm.": "decoder_norm.",
    "decoder.head.": "decoder_pred.",
}
_EMBED = "joints_embed.proj.weight"
_SHOWN = 4


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """Content of a released checkpoint.

    Attributes:
        weights: tensors by the public code's names.
        arguments: what the public code was called with; empty where the file does not say.
    """

    weights: dict[str, Tensor]
    arguments: dict[str, Any]


def read_released(path: str | Path) -> ReleasedCheckpoint:
    """Read a ``.pth`` file of the public code, allowing tensors, plain values and ``argparse.Namespace`` in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds other objects, or no weights.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r} does not exist")
    try:
        with (
            naming(path, "expected a checkpoint of MAMP's public code"),
            torch.serialization.safe_globals([argparse.Namespace]),
        ):
            _check_archive(Path(path))
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is not a checkpoint of tensors and plain values, and nothing else is loaded ({reason})"
        ) from error
    except (RuntimeError, EOFError, LookupError, ValueError, OSError) as error:
        raise ValueError(f"{path} is truncated or damaged ({told(error)})") from error
    arguments: dict[str, Any] = {}
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        if isinstance(content.get("args"), argparse.Namespace):
            arguments = dict(vars(content["args"]))
        content = content["model"]
    is_sound = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not is_sound or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no weights: expected a state_dict, alone or under 'model'")
    return ReleasedCheckpoint(dict(content), arguments)


def released_config(checkpoint: ReleasedCheckpoint, path: str | Path) -> dict[str, Any]:
    """Options of the model that a checkpoint was written by, as far as it holds them.

    Args:
        checkpoint: from :func:`read_released`.
        path: for the messages.

    Raises:
        ValueError: a tensor that gives a size is missing, or tokens span more than one joint.
    """
    weights = checkpoint.weights
    width, channels, patch_frames, patch_joints = _sizes(weights, _EMBED, 4, path)
    if patch_joints != 1:
        raise ValueError(f"{path}: its tokens span {patch_joints} joints, those of fastamr one")
    hidden, _ = _sizes(weights, "blocks.0.mlp.fc1.weight", 2, path)
    if 0 in (width, channels, patch_frames, hidden):
        raise ValueError(
            f"{path}: {_EMBED!r} or 'blocks.0.mlp.fc1.weight' has a size of 0; fetch the file again"
        )
    config = {
        "frames": _sizes(weights, "temp_embed", 4, path)[1] * patch_frames,
        "channels": channels,
        "patch_frames": patch_frames,
        "width": width,
        "depth": _depth(weights, "blocks"),
        "mlp_ratio": hidden / width,
        "decoder_width": _sizes(weights, "mask_token", 3, path)[2],
        "decoder_depth": _depth(weights, "decoder_blocks"),
        "visible_rounding": "down",
    }
    return config | _stated(checkpoint.arguments)


def released_weights(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path
) -> dict[str, Tensor]:
    """Weights of a released checkpoint under the names and in the shapes of a model of this library.

    Args:
        weights: tensors by the public code's names.
        expected: the model's own state_dict.
        path: for the messages.

    Raises:
        ValueError: names that are missing or unexpected, or a shape that does not fit.
    """
    theirs = {name: _public_name(name) for name in expected}
    missing = [name for name in theirs.values() if name not in weights]
    unexpected = sorted(weights.keys() - set(theirs.values()))
    if missing or unexpected:
        said = [_listed("lacks", missing), _listed("holds the unexpected", unexpected)]
        raise ValueError(f"{path} {' and '.join(filter(None, said))}: expected a pre-training checkpoint")
    return {
        ours: _fitted(weights[name], expected[ours], name, path).to(expected[ours].dtype)
        for ours, name in theirs.items()
    }


def _public_name(ours: str) -> str:
    prefix = next(prefix for prefix in _PREFIXES if ours.startswith(prefix))
    return _PREFIXES[prefix] + ours.removeprefix(prefix)


def _fitted(value: Tensor, like: Tensor, name: str, path: str | Path) -> Tensor:
    if name == _EMBED:
        # The convolution holds (width, channel, frame, 1); a patch here is a row of frames of channels.
        value = value.permute(0, 2, 1, 3).flatten(1)
    if [size for size in value.shape if size != 1] != [size for size in like.shape if size != 1]:
        raise ValueError(
            f"{path}: {name!r} has shape {tuple(value.shape)}, the model expects {tuple(like.shape)}: "
            "for a skeleton of other joints pass its layout"
        )
    return value.reshape(like.shape)


def _sizes(weights: Mapping[str, Tensor], name: str, dims: int, path: str | Path) -> tuple[int, ...]:
    if name not in weights:
        raise ValueError(f"{path} lacks {name!r}: expected a pre-training checkpoint of MAMP's public code")
    if weights[name].ndim != dims:
        raise ValueError(f"{path}: {name!r} has {weights[name].ndim} dimensions, expected {dims}")
    return tuple(weights[name].shape)


def _depth(weights: Mapping[str, Tensor], blocks: str) -> int:
    found = [re.match(rf"{blocks}\.(\d{{1,9}})\.", name) for name in weights]
    numbers = {int(match[1]) for match in found if match}
    # A block without its neighbours is missed by name; it must not be built first.
    return next(number for number in range(len(numbers) + 1) if number not in numbers) or 1


def _stated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What only the public code's arguments tell."""
    names = {"mask_ratio": "mask_ratio", "motion_stride": "stride", "motion_aware_tau": "mask_tau"}
    stated = {ours: arguments[name] for name, ours in names.items() if name in arguments}
    if stated.get("mask_tau", 1.0) <= 0:
        # The public code masks at random then.
        del stated["mask_tau"]
        stated["masking"] = "random"
    model = arguments.get("model_args", {})
    if not isinstance(model, Mapping):
        return stated
    if "num_heads" in model:
        stated |= {"heads": model["num_heads"], "decoder_heads": model["num_heads"]}
    if "norm_skes_loss" in model:
        stated["normalize"] = "patch" if model["norm_skes_loss"] else "none"
    return stated


def _check_archive(path: Path) -> None:
    """Raise ``ValueError`` where an archive would unpack to far more than its size: PyTorch stores tensors plainly."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > 2 * path.stat().st_size:
        raise ValueError(f"holds {total} bytes in {path.stat().st_size}; PyTorch packs none")


def _listed(verb: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{verb} {', '.join(map(repr, names[:_SHOWN]))}{more}" if names else ""
