"""From one skeleton layout to another, joint by joint, so that a model can be used on another data set.

Every joint of a layout is a part of the body (:data:`fastamr.layouts.PARTS`). A joint of the new layout is copied from
the joint that is the same part; where the old layout has none, a rule (:data:`RULES`) interpolates it from named
neighbours, and where there is no rule either, it is marked as not seen.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ...errors import check_name
from ...layouts.body import parts_of
from ...skeleton import LAYOUTS, SkeletonLayout, get_layout
from ..packed.dataset import PackedSkeletons
from .geometry import Step

RULES: dict[str, tuple[dict[str, float], ...]] = {
    "pelvis": ({"left_hip": 0.5, "right_hip": 0.5},),
    "shoulder_center": ({"left_shoulder": 0.5, "right_shoulder": 0.5},),
    "spine": ({"pelvis": 0.5, "shoulder_center": 0.5},),
    "lower_spine": ({"pelvis": 0.5, "spine": 0.5},),
    "upper_spine": ({"spine": 0.5, "shoulder_center": 0.5},),
    "neck": ({"shoulder_center": 0.7, "head": 0.3},),
    "upper_neck": ({"neck": 0.5, "head": 0.5},),
    "head": (
        {"left_ear": 0.5, "right_ear": 0.5},
        {"head_top": 0.5, "upper_neck": 0.5},
        {"head_top": 0.5, "neck": 0.5},
        {"nose": 1.0},
    ),
    "head_top": ({"head": 2.0, "upper_neck": -1.0},),
    "nose": ({"head": 1.0},),
    "{side}_collar": ({"shoulder_center": 0.5, "{side}_shoulder": 0.5},),
    "{side}_forearm": ({"{side}_elbow": 0.5, "{side}_wrist": 0.5},),
    "{side}_wrist": ({"{side}_elbow": 0.24, "{side}_hand": 0.76},),
    "{side}_hand": (
        {"{side}_wrist": 0.4, "{side}_forefinger_1": 0.3, "{side}_pinky_finger_1": 0.3},
        {"{side}_wrist": 1.31, "{side}_elbow": -0.31},
    ),
    "{side}_hand_tip": ({"{side}_middle_finger_4": 1.0}, {"{side}_hand": 2.0, "{side}_wrist": -1.0}),
    "{side}_hand_root": ({"{side}_wrist": 1.0},),
    "{side}_thumb": ({"{side}_thumb_4": 1.0}, {"{side}_thumb_3": 1.0}),
    "{side}_ankle": ({"{side}_foot": 1.0},),
    "{side}_foot": ({"{side}_big_toe": 0.5, "{side}_small_toe": 0.5}, {"{side}_big_toe": 1.0}),
    "{side}_big_toe": ({"{side}_foot": 1.0},),
}
"""How to find a part that a layout lacks: weights of other parts, which may be found by a rule themselves.

The first alternative whose parts can all be found holds; weights sum to 1. Choices: half-way points where a part lies
between two others; neck, wrist and hand by the bone lengths of Drillis and Contini (1966) that the generated motion
uses, too (the hand lies beyond the wrist on the line of the forearm, or between wrist and knuckles where there are
any); the head is half-way from the neck to its top; where a layout does not distinguish them, the nose is the head, an
ankle the foot, a thumb its tip. Eyes, ears, faces, fingers, heels and small toes have no rule.
"""

MISSING = ("interpolate", "mask", "refuse")


def _as_json(layout: SkeletonLayout) -> dict[str, Any]:
    """Return a layout's fields as a file's header gives them back: lists instead of tuples."""
    fields: dict[str, Any] = json.loads(json.dumps(layout.to_dict()))
    return fields


# Frames converted at a time: few enough to stay in the processor's cache.
_CHUNK = 1 << 13


@dataclass(frozen=True)
class JointMap:
    """What becomes of each joint of a layout.

    Args:
        source: the layout to convert from.
        target: the layout to convert to.
        copied: for target joints, the source joint that is the same part.
        interpolated: for target joints, weights of source joints.
        missing: target joints without a source.
    """

    source: SkeletonLayout
    target: SkeletonLayout
    copied: dict[str, str]
    interpolated: dict[str, dict[str, float]]
    missing: tuple[str, ...]

    @property
    def lossless(self) -> bool:
        """Whether every joint of the new layout is a joint of the old one."""
        return not self.interpolated and not self.missing

    def masked(self) -> JointMap:
        """Return the map in which every joint that is not copied is marked as not seen."""
        names = {*self.interpolated, *self.missing}
        missing = tuple(joint for joint in self.target.joints if joint in names)
        return dataclasses.replace(self, interpolated={}, missing=missing)

    def __str__(self) -> str:
        lines = [f"{self.source.name} -> {self.target.name}", f"  copied        {len(self.copied)} joints"]
        for joint, weights in self.interpolated.items():
            parts = " ".join(f"{weight:+.3g} {name}" for name, weight in weights.items())
            lines.append(f"  interpolated  {joint} = {parts}")
        lines += [f"  not seen      {joint}" for joint in self.missing]
        return "\n".join(lines)


def joint_map(source: str | SkeletonLayout, target: str | SkeletonLayout) -> JointMap:
    """Say what becomes of each joint when a layout is converted to another.

    Raises:
        ValueError: an unknown layout, or two that have no part in common.
    """
    source, target = get_layout(source), get_layout(target)
    joints = {part: joint for joint, part in parts_of(source).items()}
    copied: dict[str, str] = {}
    interpolated: dict[str, dict[str, float]] = {}
    missing: list[str] = []
    for joint, part in parts_of(target).items():
        if part in joints:
            copied[joint] = joints[part]
        elif weights := _weights(part, joints, frozenset()):
            interpolated[joint] = weights
        else:
            missing.append(joint)
    if not copied:
        way_on = (
            "a hand is no body"
            if "hand21" in (source.name, target.name)
            else ("name the joints of your own layout as the built-in ones, for example left_elbow")
        )
        raise ValueError(f"layouts {source.name!r} and {target.name!r} have no joint in common; {way_on}")
    return JointMap(source, target, copied, interpolated, tuple(missing))


def _weights(part: str, joints: Mapping[str, str], asked: frozenset[str]) -> dict[str, float] | None:
    """Return the weights of source joints that make a part, or None.

    Args:
        part: the part.
        joints: the source joint of each part that the source has.
        asked: the parts that this one is asked for, which it must not rest on.
    """
    if part in joints:
        return {joints[part]: 1.0}
    side = part.partition("_")[0]
    general = part.replace(side, "{side}", 1) if side in ("left", "right") else part
    for rule in RULES.get(general, ()):
        total: dict[str, float] = {}
        for name, weight in rule.items():
            neighbour = name.replace("{side}", side)
            inner = None if neighbour in asked else _weights(neighbour, joints, asked | {part})
            if inner is None:
                break
            for joint, share in inner.items():
                total[joint] = total.get(joint, 0.0) + weight * share
        else:
            return total
    return None


def convert(
    data: PackedSkeletons, layout: str | SkeletonLayout, *, missing: str = "interpolate"
) -> PackedSkeletons:
    """Return the data set in another layout.

    Copied joints keep their coordinates to the bit. An interpolated joint is seen where all joints that it rests on
    are. Labels, splits, columns and steps stay.

    Args:
        data: the data set; it is left as it is.
        layout: the new layout.
        missing: what becomes of joints that the old layout lacks: ``"interpolate"`` them where there is a rule, and
            mark the others as not seen; ``"mask"`` all of them; or ``"refuse"`` to convert.

    Raises:
        ValueError: an unknown option, layouts without a joint in common, or joints are missing and
            ``missing="refuse"`` (which).
    """
    check_name("missing", missing, MISSING)
    target = get_layout(layout)
    if (target.joints, target.parents) == (data.layout.joints, data.layout.parents):
        return dataclasses.replace(data, layout=target)
    plan = joint_map(data.layout, target)
    if missing == "refuse" and not plan.lossless:
        names = [*plan.interpolated, *plan.missing]
        raise ValueError(
            f"layout {data.layout.name!r} lacks {len(names)} of the {target.num_joints} joints of {target.name!r}: "
            f"{', '.join(names)}; allow missing='interpolate' or 'mask'"
        )
    plan = plan.masked() if missing == "mask" else plan
    return _apply(data, plan, plan.interpolated)


def _apply(
    data: PackedSkeletons, plan: JointMap, rules: Mapping[str, Mapping[str, float]]
) -> PackedSkeletons:
    """Return the data set with copied and interpolated joints; the others are 0 and not seen."""
    source, target = plan.source, plan.target
    shape = (data.num_frames, target.num_joints, data.coords.shape[-1])
    coords = torch.zeros(shape, dtype=torch.float32 if rules else data.coords.dtype, device=data.device)
    valid = torch.zeros(shape[:2], dtype=torch.bool, device=data.device)
    new = torch.tensor([target.index(joint) for joint in plan.copied], device=data.device)
    old = torch.tensor([source.index(joint) for joint in plan.copied.values()], device=data.device)
    made = torch.tensor([target.index(joint) for joint in rules], dtype=torch.int64, device=data.device)
    # (made, source) weights: each interpolated joint is a row.
    weights = torch.zeros(len(rules), source.num_joints, device=data.device)
    for row, rule in enumerate(rules.values()):
        for joint, weight in rule.items():
            weights[row, source.index(joint)] = weight
    for start in range(0, data.num_frames, _CHUNK):
        rows = slice(start, start + _CHUNK)
        block = data.coords[rows]
        coords[rows].index_copy_(1, new, block.index_select(1, old).to(coords.dtype))
        if rules:
            coords[rows].index_copy_(1, made, weights @ block.float())
        if data.valid is None:
            valid[rows].index_fill_(1, torch.cat([new, made]), True)
            continue
        unseen = (~data.valid[rows]).float()
        valid[rows].index_copy_(1, new, data.valid[rows].index_select(1, old))
        valid[rows].index_copy_(1, made, unseen @ (weights != 0).float().T == 0)
    every = data.valid is None and len(new) + len(made) == target.num_joints
    if not every:
        coords.masked_fill_(~valid[..., None], 0.0)
    return dataclasses.replace(data, coords=coords, layout=target, valid=None if every else valid)


@dataclass(frozen=True)
class ConvertLayout(Step):
    """Convert to another skeleton layout; see :func:`convert`.

    Args:
        layout: the name of a built-in layout, the path of a layout's file, or a layout's fields
            (:meth:`~fastamr.skeleton.SkeletonLayout.to_dict`), which stand for the file from then on.
        missing: ``"interpolate"``, ``"mask"`` or ``"refuse"``.

    Raises:
        ValueError: an unknown layout or option, or as :func:`convert`.
    """

    layout: str | Mapping[str, Any]
    missing: str = "interpolate"
    name: ClassVar[str] = "convert"

    def __post_init__(self) -> None:
        target = self._target()
        built_in = LAYOUTS.get(target.name) == target
        object.__setattr__(self, "layout", target.name if built_in else _as_json(target))
        check_name("missing of step 'convert'", self.missing, MISSING)

    def _target(self) -> SkeletonLayout:
        return (
            SkeletonLayout.from_dict(self.layout)
            if isinstance(self.layout, Mapping)
            else get_layout(self.layout)
        )

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set in the other layout."""
        return convert(data, self._target(), missing=self.missing)

    def notes(self, data: PackedSkeletons) -> tuple[dict[str, Any], ...]:
        """Return the layout converted from, and which joints were interpolated or masked."""
        target = self._target()
        if target.joints == data.layout.joints:
            return ()
        plan = joint_map(data.layout, target)
        masked, interpolated = list(plan.missing), list(plan.interpolated)
        if self.missing == "mask":
            masked, interpolated = [*interpolated, *masked], []
        note = {"source": data.layout.name, "interpolated": interpolated, "masked": masked}
        return ({"name": "note", "about": "convert", **note},)
