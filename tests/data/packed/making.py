"""Packed skeletons for tests, and how two are compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from fastamr.data import PackedSkeletons, Split

V = 17


def make(**fields: Any) -> PackedSkeletons:
    """Four clips of 5, 3, 1 and 2 frames with 1, 2, 1 and 1 bodies."""
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(frames, bodies, V, 3)) for frames, bodies in ((5, 1), (3, 2), (1, 1), (2, 1))]
    train = torch.tensor([True, False, True, False])
    defaults: dict[str, Any] = {
        "layout": "coco17",
        "labels": [1, 0, -1, 1],
        "label_names": ["sit", "stand"],
        "fps": 30.0,
        "names": ["a", "b", "é", "d"],
        "columns": {"subject": ["s2", "s1", "s2", "s3"], "view": [1, 2, 3, 1]},
        "splits": {"official": Split(train, ~train)},
    }
    return PackedSkeletons.from_clips(clips, **(defaults | fields))


def assert_same(one: PackedSkeletons, other: PackedSkeletons) -> None:
    for item in dataclasses.fields(PackedSkeletons):
        a: Any = getattr(one, item.name)
        b: Any = getattr(other, item.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a, b) or (a.isnan().all() and b.isnan().all()), item.name
        elif item.name == "columns":
            assert list(a) == list(b)
            assert all(torch.equal(a[name], b[name]) for name in a)
        elif item.name == "splits":
            assert list(a) == list(b)
            assert all(torch.equal(a[n].train, b[n].train) and torch.equal(a[n].test, b[n].test) for n in a)
        else:
            assert a == b, item.name
