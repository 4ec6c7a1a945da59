"""Clips of several people as clips of one: each body becomes a clip of its own."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from .dataset import PackedSkeletons
from .ragged import first_true, last_true, ranges, row_owner

_CHUNK = 1 << 16


def split_bodies(
    data: PackedSkeletons,
    *,
    labels: Sequence[int] | Tensor | None = None,
    label_names: Sequence[str] | None = None,
) -> PackedSkeletons:
    """Return a data set in which each body is a clip of its own, in the same order.

    A body keeps the frame rate, the columns and the splits of its clip, so that no recording lies on both sides of a
    split. It reaches from the first to the last frame that shows it, and ``body_start`` counts from the clip's first
    frame as before, so that times stay right; a body that no frame shows keeps its frames. Steps of pre-processing
    that looked at all bodies of the clip (``per: clip``, ``close_gaps``) no longer count as done: whoever asks for
    them gets them for each body alone. A text column ``recording`` names the clip that each body came from, unless
    there is such a column.

    Args:
        data: packed data; it is left as it is, and the coordinates are shared where no frame goes.
        labels: ``(B,)`` class of each body, ``-1`` = unknown; None = that of its clip.
        label_names: the classes that ``labels`` counts; None = those of the data.

    Returns:
        ``B`` clips of one body, called ``CLIP#NAME`` by :func:`body_labels`.

    Raises:
        ValueError: another number of labels than bodies, or a label beyond the classes.
    """
    owner, trimmed = data.body_clip, _trimmed(data)
    known = data.labels[owner] if labels is None else torch.as_tensor(labels, device=data.device).long()
    if known.shape != (data.num_bodies,):
        raise ValueError(
            f"labels has shape {tuple(known.shape)} for {data.num_bodies} bodies, expected ({data.num_bodies},)"
        )
    columns = {name: column[owner] for name, column in data.columns.items()}
    column_names = dict(data.column_names)
    if "recording" not in columns:
        clips = tuple(dict.fromkeys(data.names))
        codes = {name: code for code, name in enumerate(clips)}
        columns["recording"] = torch.tensor([codes[name] for name in data.names], device=data.device)[owner]
        column_names["recording"] = clips
    return dataclasses.replace(
        trimmed,
        body_clip=torch.arange(data.num_bodies, device=data.device),
        labels=known,
        label_names=data.label_names if label_names is None else tuple(label_names),
        fps=data.fps[owner],
        names=[
            f"{data.names[clip]}#{body}" for clip, body in zip(owner.tolist(), body_labels(data), strict=True)
        ],
        columns=columns,
        column_names=column_names,
        splits={name: split.take(owner) for name, split in data.splits.items()},
        steps=tuple(
            step for step in data.steps if step.get("per") != "clip" and step["name"] != "close_gaps"
        ),
    )


def _trimmed(data: PackedSkeletons) -> PackedSkeletons:
    """Return the data without the empty frames at the ends of its bodies."""
    # In blocks, because the coordinates of a mapped file may be larger than the memory.
    shown = torch.cat([(part != 0).flatten(1).any(1) for part in data.coords.split(_CHUNK)])
    owner = row_owner(data.offsets)
    first = first_true(shown, owner, data.num_bodies)
    last = last_true(shown, owner, data.num_bodies)
    first = torch.where(first >= 0, first, data.offsets[:-1])
    last = torch.where(last >= 0, last, data.offsets[1:] - 1)
    lengths = last - first + 1
    if int(lengths.sum()) == data.num_frames:
        return data
    rows = ranges(first, lengths)
    return dataclasses.replace(
        data,
        coords=data.coords[rows],
        valid=None if data.valid is None else data.valid[rows],
        frame_labels=None if data.frame_labels is None else data.frame_labels[rows],
        offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        body_start=data.body_start + first - data.offsets[:-1],
    )


def body_labels(data: PackedSkeletons) -> list[str]:
    """Return who each body is ``(B,)``: its name, or its number in the clip from 0.

    Numbers stand in a clip one of whose bodies has no name, or the name of another.
    """
    counts = torch.bincount(data.body_clip).tolist()
    found: list[str] = []
    for count in counts:
        names = data.body_names[len(found) : len(found) + count]
        sound = len(names) == count and all(names) and max(Counter(names).values()) == 1
        found += names if sound else [str(place) for place in range(count)]
    return found
