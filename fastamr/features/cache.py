"""A folder of feature files, each named by a hash of everything that the features depend on."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..checksums import load_file, save_file
from ..errors import STRAY
from ..files import replaced

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel

# Part of every key: raise it when the meaning of the features changes.
FORMAT = "fastamr-features-1"


def feature_key(model: SkeletonModel, data: PackedSkeletons, settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of weights, configuration, data and settings, 64 hexadecimal digits.

    Args:
        model: its ``state_dict`` and, where it has one, its ``config`` count.
        data: its fingerprint counts, which covers the pre-processing that it went through.
        settings: what JSON can hold.
    """
    digest = hashlib.sha256(FORMAT.encode())
    config: Any = getattr(model, "config", None)
    described = config.to_dict() if hasattr(config, "to_dict") else repr(config)
    parts = [type(model).__name__, described, data.fingerprint(), dict(settings)]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_features(path: Path, clips: int) -> Tensor | None:
    """Return the ``(clips, D)`` float32 features of a file, or None where it is absent or damaged.

    A damaged file causes a warning; the caller computes and writes it anew.
    """
    if not path.is_file():
        return None
    try:
        tensors, metadata = load_file(path)
        sound = metadata.get("format") == FORMAT
        features = tensors.get("features", torch.empty(0)) if sound else torch.empty(0)
    except (SafetensorError, OSError, ValueError, *STRAY) as error:
        features, reason = torch.empty(0), str(error)
    else:
        reason = "not a file of features, or of other clips"
    if features.ndim == 2 and len(features) == clips and features.dtype == torch.float32:
        return features
    warnings.warn(f"cached features {path} are damaged ({reason}); computing them anew", stacklevel=3)
    return None


def write_features(path: Path, features: Tensor) -> None:
    """Write features in one piece; a folder that cannot be written costs only the cache, and a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            content = {"features": features.detach().cpu().contiguous()}
            save_file(content, temporary, {"format": FORMAT})
    except (OSError, SafetensorError) as error:
        warnings.warn(f"features could not be cached in {path.parent} ({error})", stacklevel=3)
