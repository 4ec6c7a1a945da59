"""From clips, one array each, to the ragged tensors of a packed data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...skeleton import SkeletonLayout


@dataclass
class Packing:
    """The ragged tensors of some clips, and which clips they hold.

    Args:
        coords: ``(F, V, C)`` float32.
        offsets: ``(B+1,)`` int64.
        body_clip: ``(B,)`` int64, the clip of each body among the kept ones.
        valid: ``(F, V)`` bool or None.
        kept: ``(N,)`` int64, which of the given clips were kept.
        dropped: name and reason of those that were not.
    """

    coords: Tensor
    offsets: Tensor
    body_clip: Tensor
    valid: Tensor | None
    kept: np.ndarray
    dropped: dict[str, str] = field(default_factory=dict)


def pack_clips(
    clips: Sequence[Any],
    names: Sequence[str],
    layout: SkeletonLayout,
    valid: Sequence[Any] | None,
    drop_empty_bodies: bool,
) -> Packing:
    """Lay the bodies of all clips one after another; see :meth:`PackedSkeletons.from_clips`."""
    kept: list[int] = []
    dropped: dict[str, str] = {}
    parts: list[np.ndarray] = []
    valid_parts: list[np.ndarray] = []
    body_clip: list[int] = []
    channels: int | None = None
    for place, (name, given) in enumerate(zip(names, clips, strict=True)):
        where = f"clip {place} ({name!r})"
        clip = _check_clip(given, where, layout, channels)
        channels = clip.shape[-1]
        seen = None if valid is None else _check_valid(valid[place], where, clip)
        clip = _finite(clip, seen, where)
        bodies = _bodies(clip, drop_empty_bodies)
        if len(clip) == 0 or len(bodies) == 0:
            dropped[name] = "no frames" if len(clip) == 0 else "no body"
            continue
        parts += [clip[:, body] for body in bodies]
        valid_parts += [] if seen is None else [seen[:, body] for body in bodies]
        body_clip += [len(kept)] * len(bodies)
        kept.append(place)
    if not kept:
        raise ValueError(
            f"clips: none of the {len(clips)} clips has a frame with a body; the data set is empty"
        )
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return Packing(
        coords=torch.from_numpy(np.concatenate(parts)),
        offsets=torch.from_numpy(np.concatenate([[0], lengths.cumsum()])),
        body_clip=torch.tensor(body_clip, dtype=torch.int64),
        valid=torch.from_numpy(np.concatenate(valid_parts)) if valid_parts else None,
        kept=np.array(kept, dtype=np.int64),
        dropped=dropped,
    )


def _check_clip(given: Any, where: str, layout: SkeletonLayout, channels: int | None) -> np.ndarray:
    clip = np.asarray(given)
    if clip.dtype.kind not in "fiu":
        raise TypeError(f"{where}: coordinates have dtype {clip.dtype}, expected real numbers")
    if clip.ndim != 4:
        hint = "; for one body pass clip[:, None]" if clip.ndim == 3 else ""
        raise ValueError(f"{where} has shape {clip.shape}, expected (frames, bodies, joints, channels){hint}")
    if clip.shape[2] != layout.num_joints:
        raise ValueError(
            f"{where} has {clip.shape[2]} joints, but layout {layout.name!r} has {layout.num_joints}; "
            f"pass the layout of the data"
        )
    if clip.shape[3] not in (2, 3):
        raise ValueError(f"{where} has {clip.shape[3]} channels, expected 2 or 3")
    if channels is not None and clip.shape[3] != channels:
        raise ValueError(f"{where} has {clip.shape[3]} channels, the clips before it have {channels}")
    # What float32 cannot hold becomes infinite, which the checks refuse.
    with np.errstate(over="ignore"):
        return clip.astype(np.float32, copy=False)


def _check_valid(given: Any, where: str, clip: np.ndarray) -> np.ndarray:
    seen = np.asarray(given)
    if seen.dtype != np.bool_ or seen.shape != clip.shape[:3]:
        raise ValueError(
            f"valid of {where} is {seen.dtype} of shape {seen.shape}, expected bool of shape {clip.shape[:3]}"
        )
    return seen


def _finite(clip: np.ndarray, seen: np.ndarray | None, where: str) -> np.ndarray:
    """Return the clip with invalid joints at 0, after checking that all others are finite."""
    if seen is not None:
        clip = np.where(seen[..., None], clip, np.float32(0))
    finite = np.isfinite(clip)
    if not finite.all():
        frame, body, joint, _ = (int(axis[0]) for axis in np.nonzero(~finite))
        value = clip[frame, body, joint].tolist()
        raise ValueError(
            f"{where}, frame {frame}, body {body}, joint {joint}: coordinates {value} are not finite; "
            f"repair the source, or mark missing joints in valid"
        )
    return clip


def _bodies(clip: np.ndarray, drop_empty: bool) -> np.ndarray:
    """Return the indices of the bodies to keep."""
    if not drop_empty:
        return np.arange(clip.shape[1])
    return np.flatnonzero(clip.any(axis=(0, 2, 3)))


def text_codes(values: np.ndarray) -> tuple[Tensor, tuple[str, ...]]:
    """Return int64 codes of strings and the sorted names that they stand for."""
    names, codes = np.unique(values.astype(str), return_inverse=True)
    return torch.from_numpy(codes.reshape(-1).astype(np.int64)), tuple(str(name) for name in names)
