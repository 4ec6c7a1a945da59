"""The data sets of experiments/any_skeleton.py: what is tested, what may be trained on, and the coordinates as such."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from results_shared import in_metres, read_set
from torch import Tensor

from fastamr.data import PackedSkeletons, Split, apply_missing
from fastamr.data.preprocessing.convert_layout import joint_map
from fastamr.evaluation import input_features, raw_features
from fastamr.features.baselines import RAW_FRAMES
from fastamr.skeleton import BODY

SetPlan = Mapping[str, Any]


def recorded(plan: SetPlan, folder: str) -> PackedSkeletons:
    """Return a set as it was recorded: the clips that its protocol keeps, with the labels and splits that are tested.

    Beside the file's own splits there are ``heldout`` (some training subjects tested on the others), and ``half0`` and
    ``half1`` (one half of the subjects trains, the other tests), where the plan names subjects for them.

    Args:
        plan: an entry of ``sets`` in any_skeleton.yaml.
        folder: of the data sets' folders.

    Raises:
        FileNotFoundError: the set is not in the folder.
    """
    return _recorded(json.dumps(plan), folder)


@functools.lru_cache(maxsize=4)
def _recorded(text: str, folder: str) -> PackedSkeletons:
    plan = json.loads(text)
    data = read_set(folder, plan["file"])
    if plan.get("sbu_units"):
        data = in_metres(data)
    for column, value in plan.get("keep", {}).items():
        data = data.select(data.columns[column] == value)
    if "labels" in plan:
        data = dataclasses.replace(data, labels=data.columns[plan["labels"]].clone(), label_names=())
    return dataclasses.replace(data, splits={**data.splits, **_splits_of_subjects(data, plan)})


def _splits_of_subjects(data: PackedSkeletons, plan: SetPlan) -> dict[str, Split]:
    found = {}
    if "heldout" in plan:
        held = torch.isin(data.columns["subject"], torch.tensor(plan["heldout"]["subjects"]))
        train = data.split(plan["heldout"]["of"]).train
        found["heldout"] = Split(train & ~held, train & held)
    if "half" in plan:
        first = torch.isin(data.columns["subject"], torch.tensor(plan["half"]))
        found |= {"half0": Split(first, ~first), "half1": Split(~first, first)}
    return found


def prepared(plan: SetPlan, folder: str) -> PackedSkeletons:
    """Return a set as encoders get it: pre-processed by the set's ``steps``, with a third channel of zeros if flat."""
    data = apply_missing(recorded(plan, folder), plan["steps"])
    return data if data.coords.shape[-1] == 3 else _with_depth(data)


def _with_depth(data: PackedSkeletons) -> PackedSkeletons:
    note = {"name": "note", "about": "depth", "text": "flat motion: a third channel of zeros"}
    coords = torch.nn.functional.pad(data.coords.float(), (0, 1))
    return dataclasses.replace(data, coords=coords, steps=(*data.steps, note))


def training_part(plan: SetPlan, folder: str, part: str) -> PackedSkeletons:
    """Return the training clips of a split alone, so that no other clip can be trained on; ``all`` takes every clip.

    Labels and splits are gone: nothing but motion enters pre-training.

    Raises:
        ValueError: there is no such split.
    """
    data = prepared(plan, folder)
    if part != "all":
        data = data.select(data.split(part).train)
    return dataclasses.replace(data, labels=torch.full_like(data.labels, -1), label_names=(), splits={})


def cut(data: PackedSkeletons, seconds: float, unknown_rate: float) -> PackedSkeletons:
    """Cut every body sequence into neighbouring pieces of about one duration, so that a frame of an encoder has one.

    Args:
        data: clips without splits; their frames are not copied.
        seconds: of a piece. A sequence gives as many pieces as come nearest to it, at least one. Each is a clip.
        unknown_rate: frames per second of clips that do not tell.
    """
    lengths, clip = data.offsets.diff(), data.body_clip
    rates = torch.where(data.fps.isnan(), unknown_rate, data.fps.double())[clip]
    counts = (lengths / rates / seconds).round().long().clamp(min=1).minimum(lengths)
    body = torch.arange(data.num_bodies).repeat_interleave(counts)
    part = torch.arange(len(body)) - (counts.cumsum(0) - counts)[body]
    chosen = clip[body]
    return dataclasses.replace(
        data,
        offsets=torch.cat([data.offsets[body] + lengths[body] * part // counts[body], data.offsets[-1:]]),
        body_clip=torch.arange(len(body)),
        body_start=torch.zeros_like(body),
        labels=data.labels[chosen],
        fps=data.fps[chosen],
        names=[f"{data.names[clip]} {place}" for place, clip in enumerate(chosen.tolist())],
        columns={name: column[chosen] for name, column in data.columns.items()},
        body_names=[],
    )


def by_index(data: PackedSkeletons) -> PackedSkeletons:
    """Return a set in the layout ``body`` with its joints in the order of the file instead of by their names.

    What the ablation of the vocabulary compares: joint i becomes part i, whatever it is. As many joints enter as by
    name.

    Raises:
        ValueError: no joint of the set is a part of the layout ``body``.
    """
    kept = sorted(data.layout.index(joint) for joint in joint_map(data.layout, BODY).copied.values())
    coords = data.coords.new_zeros(len(data.coords), BODY.num_joints, data.coords.shape[-1])
    coords[:, : len(kept)] = data.coords[:, kept]
    valid = torch.zeros(coords.shape[:2], dtype=torch.bool)
    valid[:, : len(kept)] = True if data.valid is None else data.valid[:, kept]
    note = {"name": "note", "about": "vocabulary", "text": "joints by index"}
    return dataclasses.replace(data, coords=coords, valid=valid, layout=BODY, steps=(*data.steps, note))


def _first(data: PackedSkeletons) -> Tensor:
    """Preparation (a) of the sets' READMEs: the root of the first frame at the origin, the hips of it along x."""
    steps = ["center", "align_body:up=vertical"] if data.coords.shape[-1] == 3 else ["center"]
    return input_features(apply_missing(data, steps))


def _every(data: PackedSkeletons) -> Tensor:
    """Preparation (b): the same with the root of every frame at the origin, and the root's path beside it."""
    joints, channels = data.coords.shape[1:]
    motion = _first(data).view(data.num_clips, -1, RAW_FRAMES, joints, channels)
    root = motion[..., data.layout.root : data.layout.root + 1, :]
    return torch.cat([(motion - root).flatten(1), root.flatten(1)], dim=1)


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """A row of raw coordinates.

    Attributes:
        make: a recorded set -> ``(N, D)``.
        scaled: whether the neighbours' features are standardized.
        C: of logistic regression, always on standardized features.
    """

    make: Callable[[PackedSkeletons], Tensor]
    scaled: bool
    C: float = 1.0


COORDINATES = {
    "raw": Coordinates(raw_features, scaled=True),
    "raw_first": Coordinates(_first, scaled=True, C=0.01),
    "raw_every": Coordinates(_every, scaled=False, C=0.01),
}
