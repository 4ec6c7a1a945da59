"""A body of all regions, small models of it and generated clips of several people, for tests of pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.models import SkeletonModel, build_model
from fastamr.skeleton import SkeletonLayout

BODY = SkeletonLayout(
    "puppet6", ("pelvis", "head", "left_hand", "right_hand", "left_foot", "right_foot"), (-1, 0, 0, 0, 0, 0)
)
EXTRA = {"amr": {"target_patches": 1}, "gfp": {"levels": (1, 2)}, "asma": {"hidden": 4, "projector": 8}}


def model(name: str = "amr", **options: Any) -> SkeletonModel:
    torch.manual_seed(0)
    small: dict[str, Any] = {"layout": BODY, "frames": 16, "patch_frames": 4, "width": 8, "heads": 2}
    if name != "asma":
        small |= {"depth": 1, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    return build_model(name, **small | EXTRA.get(name, {}) | options).eval()


def puppets(
    bodies: tuple[int, ...], *, missing: bool = False, layout: SkeletonLayout = BODY, **more: Any
) -> PackedSkeletons:
    """Clips of 20 frames with these numbers of bodies; later bodies of a clip move more."""
    generator = np.random.default_rng(0)
    clips, valid = [], []
    for place, count in enumerate(bodies):
        noise = generator.standard_normal((20, count, layout.num_joints, 3))
        noise *= 0.1 * (1 + np.arange(count))[:, None, None]
        noise[..., 0] += place % 3
        clips.append(noise.astype(np.float32))
        seen = np.ones((20, count, layout.num_joints), bool)
        seen[:, 0, 2] = not missing
        valid.append(seen)
    train = torch.arange(len(bodies)) % 2 == 0
    return PackedSkeletons.from_clips(
        clips, layout=layout, valid=valid if missing else None,
        labels=[place % 3 for place in range(len(bodies))], splits={"official": Split(train, ~train)}, **more,
    )  # fmt: skip
