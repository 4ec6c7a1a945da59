"""Untrimmed streams for the tests: actions of one body one after another, with idle stretches between them."""

from __future__ import annotations

import numpy as np
import torch

from fastamr.data import PackedSkeletons, Split, synthetic_actions


def join_streams(
    actions: PackedSkeletons, order: list[list[int]], idle: int = 30, **more: object
) -> PackedSkeletons:
    """Return streams, each of some clips in order: before, between and after them the body stands still."""
    clips, labels = [], []
    for chosen in order:
        parts, classes = [], []
        last = None
        for clip in chosen:
            rows = slice(int(actions.offsets[clip]), int(actions.offsets[clip + 1]))
            moving = actions.coords[rows].numpy()
            still = np.repeat((moving[:1] if last is None else last), idle, axis=0)
            parts += [still, moving]
            classes += [[-1] * idle, [int(actions.labels[clip])] * len(moving)]
            last = moving[-1:]
        parts.append(np.repeat(last, idle, axis=0))
        classes.append([-1] * idle)
        clips.append(np.concatenate(parts)[:, None])
        labels.append(np.concatenate(classes))
    train = torch.arange(len(order)) % 2 == 0
    settings = {
        "layout": actions.layout,
        "fps": 30.0,
        "names": [f"stream{place}" for place in range(len(order))],
        "label_names": actions.label_names,
        "splits": {"official": Split(train, ~train)},
    }
    return PackedSkeletons.from_clips(clips, frame_labels=labels, **(settings | more))  # type: ignore[arg-type]


def synthetic_streams(streams: int = 8, each: int = 4) -> PackedSkeletons:
    """Return streams of generated motion."""
    actions = synthetic_actions(
        streams * each, seed=3, actions=["wave", "squat", "kick"], frames=(50, 60), camera_angle=0.1
    )
    return join_streams(actions, [list(range(place * each, (place + 1) * each)) for place in range(streams)])
