"""A model of one layout and its twin of the layout ``body`` with the same embeddings, and clips for both."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from fastamr.layouts.body import parts_of
from fastamr.models import SkeletonModel, build_model
from fastamr.skeleton import BODY, SkeletonLayout, get_layout

SIZES: dict[str, Any] = {
    "frames": 24,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "decoder_width": 32,
    "decoder_depth": 2,
    "decoder_heads": 2,
    "mask_ratio": 0.8,
}
OWN: dict[str, dict[str, Any]] = {
    "amr": {"target_patches": 3},
    "gfp": {"levels": (2, 6), "target_width": 16, "target_hidden": 24, "global_hidden": 32},
    "mamp": {},
    "skeleton_mae": {},
    "asma": {"hidden": 4, "projector": 24},
    "slim": {
        "patch_frames": 4, "prototypes": 40, "head_hidden": 24, "bottleneck": 16, "patch_targets": 5, "local_crops": 2,
    },
}  # fmt: skip
PLAIN = tuple(name for name in OWN if name != "asma")
"""The models that read no tree of the joints; a layout's own is not always that of ``body``."""
MASKED = ("amr", "gfp", "mamp", "skeleton_mae")
"""The models that hide single tokens and predict them."""
WAYS = ("static", "masked")
"""How the twin knows which joints there are: by its configuration, or by the mask of each sequence."""


def small(name: str, **options: Any) -> SkeletonModel:
    """A small model of a name."""
    return build_model(name, {**SIZES, **OWN[name], **options})


def places(layout: SkeletonLayout) -> Tensor:
    """The joint of ``body`` that each joint of a layout is."""
    parts = parts_of(layout)
    return torch.tensor([BODY.index(parts[joint]) for joint in layout.joints])


def hung_as_in_body(name: str) -> SkeletonLayout:
    """The joints of a layout, named as their parts, with the tree that ``body`` makes of them."""
    layout = get_layout(name)
    parts = [BODY.joints[place] for place in places(layout).tolist()]

    def above(part: str) -> int:
        place = BODY.parents[BODY.index(part)]
        while place != -1 and BODY.joints[place] not in parts:
            place = BODY.parents[place]
        return -1 if place == -1 else parts.index(BODY.joints[place])

    parents = tuple(above(part) for part in parts)
    return SkeletonLayout(f"{name}_hung", tuple(parts), parents, layout.pairs, layout.hips, layout.spine)


def twins(
    name: str, layout: str | SkeletonLayout, way: str, **options: Any
) -> tuple[SkeletonModel, SkeletonModel]:
    """A model of a layout, and one of ``body`` that has its weights."""
    own = get_layout(layout)
    model = small(name, layout=layout, **options)
    known = (
        {"present": tuple(BODY.joints[place] for place in places(own))}
        if way == "static"
        else {"typical_joints": own.num_joints}
    )
    twin = small(name, layout="body", **known, **options)
    state = {key: over_body(value, model, key) for key, value in model.state_dict().items()}
    twin.load_state_dict({key: state[key] for key in twin.state_dict()})
    return model, twin


def over_body(value: Tensor, model: SkeletonModel, name: str) -> Tensor:
    """A parameter (or its gradient) of a model as its twin has it: zeros for the joints that the layout lacks."""
    own, joints = places(model.layout), model.layout.num_joints
    if name.endswith("joint_embed"):
        return value.new_zeros(1, BODY.num_joints, value.shape[2]).index_copy(1, own, value)
    if name == "decoder.queries":
        grid = value.unflatten(1, (-1, joints))
        return (
            grid.new_zeros(1, grid.shape[1], BODY.num_joints, grid.shape[3])
            .index_copy(2, own, grid)
            .flatten(1, 2)
        )
    if name == f"targets.networks.{len(getattr(model.config, 'levels', ()))}.0.weight":
        grid = value.unflatten(1, (model.frames, joints, -1))
        empty = grid.new_zeros(len(grid), model.frames, BODY.num_joints, grid.shape[3])
        return empty.index_copy(2, own, grid).flatten(1)
    if name.endswith("edge_offset"):
        return value.new_zeros(len(value), BODY.num_joints, BODY.num_joints).index_put(
            (torch.arange(len(value))[:, None, None], own[:, None], own), value
        )
    if (
        re.search(r"views\.[ab]\.norm\.(weight|bias|running)", name)
        and len(value) == joints * model.config.channels
    ):
        grid = value.view(joints, -1)
        return grid.new_zeros(BODY.num_joints, grid.shape[1]).index_copy(0, own, grid).flatten()
    return value


def clip_over_body(clips: Tensor, valid: Tensor | None, layout: SkeletonLayout) -> tuple[Tensor, Tensor]:
    """Clips ``(S, T, V, C)`` of a layout, and what is seen of them, in the layout ``body``."""
    shape = (*clips.shape[:2], BODY.num_joints)
    seen = torch.ones(clips.shape[:3], dtype=torch.bool) if valid is None else valid
    whole = clips.new_full((*shape, clips.shape[3]), float("nan")).index_copy(2, places(layout), clips)
    return whole, torch.zeros(shape, dtype=torch.bool).index_copy(2, places(layout), seen)


def keep_over_body(keep: Tensor, layout: SkeletonLayout) -> Tensor:
    """Tokens of a layout in the numbers of ``body``."""
    tokens = keep.long()
    times = tokens // layout.num_joints
    return (times * BODY.num_joints + places(layout)[tokens - times * layout.num_joints]).int()
