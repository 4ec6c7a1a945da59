"""What a data set holds, in numbers and in a few lines of text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ...tables import aligned
from .structure import PackedFields


class Summary(dict[str, Any]):
    """Facts by name; prints as one line each."""

    def __str__(self) -> str:
        return aligned([(key.replace("_", " "), _text(value)) for key, value in self.items()], left=(0, 1))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "; ".join(map(_text, value)) or "none"
    return str(value)


def summarise(data: PackedFields) -> Summary:
    """Return the counts that show whether an import went well.

    ``clip_frames`` are the shortest, median and longest clip; ``bodies_per_clip`` counts clips by their number of
    bodies; ``action_frames``, where frames are labelled, the rows that show an action; ``dropped_clips`` lists name
    and reason; the other keys say what they are.
    """
    frames = data.clip_frames().cpu()
    bodies = torch.bincount(data.body_clip.cpu(), minlength=data.num_clips)
    rates = sorted({float(rate) for rate in data.fps.tolist() if not math.isnan(rate)})
    labelled = data.frame_labels
    by_frame = {} if labelled is None else {"action_frames": int((labelled >= 0).sum())}
    return Summary(
        layout=data.layout.name,
        clips=data.num_clips,
        bodies=data.num_bodies,
        frames=data.num_frames,
        joints=data.layout.num_joints,
        channels=data.coords.shape[-1],
        dtype=str(data.coords.dtype).removeprefix("torch."),
        classes=len(data.label_names) or int(data.labels.max()) + 1,
        unlabelled_clips=int((data.labels < 0).sum()),
        **by_frame,
        clip_frames={
            "shortest": int(frames.min()),
            "median": int(frames.median()),
            "longest": int(frames.max()),
        },
        bodies_per_clip={int(number): int((bodies == number).sum()) for number in bodies.unique()},
        single_frame_clips=int((frames == 1).sum()),
        # In blocks, because the mask of a mapped file may be larger than the memory.
        missing_joints=0
        if data.valid is None
        else sum(int((~part).sum()) for part in data.valid.split(1 << 16)),
        fps=rates or "unknown",
        columns=list(data.columns),
        splits={
            name: {"train": int(split.train.sum()), "test": int(split.test.sum())}
            for name, split in data.splits.items()
        },
        steps=[dict(step) for step in data.steps],
        dropped_clips=dict(data.dropped),
    )
