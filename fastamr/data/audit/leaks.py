"""Duplicates put together: groups of clips, and what they do to each split."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..packed.dataset import PackedSkeletons
from .blocks import Flags, Index
from .counts import class_name
from .exact import exact_groups
from .near import NearOptions, NearPairs, near_pairs

# Examples listed by name; the JSON has the pairs themselves.
_EXAMPLES = 5


class Duplicates(NamedTuple):
    """What repeats in a data set.

    Attributes:
        group: ``(N,)`` int64, the first clip with the same coordinates as this one.
        pairs: ``(P, 2)`` int64, clips that share a motion nearly, both the first of their group; the lower first.
        residual: ``(P,)`` float64, what differs, as a share of the motion.
        shift: ``(P,)`` int64, see :class:`NearPairs`.
        twins: clips that hold one motion in two bodies.
        compared: see :class:`NearPairs`; -1 = near duplicates were not looked for.
        limited: see :class:`NearPairs`.
    """

    group: Index
    pairs: Index
    residual: NDArray[np.float64]
    shift: Index
    twins: list[int]
    compared: int
    limited: int


def find_duplicates(
    data: PackedSkeletons, options: NearOptions | None = None, *, near: bool = True
) -> Duplicates:
    """Find exact and near duplicates.

    Args:
        data: the data set.
        options: when two sequences are near duplicates.
        near: False looks for exact ones only, which takes no longer than reading the file.
    """
    group = exact_groups(data)
    first = group == np.arange(len(group))
    # Of exact copies one is enough to compare.
    found = near_pairs(data, first, options) if near else None
    if found is None:
        none = np.zeros(0, np.int64)
        return Duplicates(group, none.reshape(0, 2), np.zeros(0), none, [], -1, 0)
    return _by_clip(data, group, found)


def _by_clip(data: PackedSkeletons, group: Index, found: NearPairs) -> Duplicates:
    """Turn pairs of bodies into pairs of clips, each once, with their best match."""
    clips = data.body_clip.cpu().numpy()[found.bodies].reshape(-1, 2)
    twins = np.unique(clips[clips[:, 0] == clips[:, 1], 0]).tolist()
    order = np.argsort(found.residual, kind="stable")
    order = order[clips[order, 0] != clips[order, 1]]
    _, best = np.unique(clips[order], axis=0, return_index=True)
    keep = order[best]
    return Duplicates(
        group, clips[keep], found.residual[keep], found.shift[keep], twins, found.compared, found.limited
    )


def describe_duplicates(data: PackedSkeletons, found: Duplicates) -> dict[str, Any]:
    """Return the duplicates as plain values, with the leaks of each split."""
    members = np.bincount(found.group, minlength=data.num_clips)
    names = data.names
    return {
        "exact": {
            "groups": int((members > 1).sum()),
            "copies": int((members - 1).clip(min=0).sum()),
            "clips": [
                [names[clip] for clip in np.flatnonzero(found.group == first)]
                for first in np.flatnonzero(members > 1)
            ],
        },
        "near": {
            "searched": found.compared >= 0,
            "pairs": [
                {"clips": [names[a], names[b]], "shift_frames": int(shift), "residual": round(float(left), 4)}
                for (a, b), shift, left in zip(found.pairs, found.shift, found.residual, strict=True)
            ],
            "compared": max(found.compared, 0),
            "bodies_with_more_candidates_than_compared": found.limited,
        },
        "same_motion_in_two_bodies": [names[clip] for clip in found.twins],
        "different_labels": _label_conflicts(data, found),
        "splits": {name: _leaks(data, found, name) for name in data.splits},
    }


def _label_conflicts(data: PackedSkeletons, found: Duplicates) -> list[list[str]]:
    """Return exact copies whose labels differ: ``[first, copy]``."""
    labels = data.labels.cpu().numpy()
    wrong = np.flatnonzero(labels != labels[found.group])
    return [[data.names[found.group[clip]], data.names[clip]] for clip in wrong]


def _leaks(data: PackedSkeletons, found: Duplicates, name: str) -> dict[str, Any]:
    """Return what a split's test half shares with its training half, and what repeats within each."""
    train, test = (mask.cpu().numpy() for mask in (data.splits[name].train, data.splits[name].test))
    exact = _first_partner(found, train)
    near = _near_partner(found, train)
    exact_test = test & (exact >= 0)
    near_test = test & (near >= 0) & ~exact_test
    total = max(int(test.sum()), 1)
    leaked = np.flatnonzero(exact_test | near_test)
    classes = Counter(class_name(data, int(label)) for label in data.labels.cpu().numpy()[leaked])
    return {
        "test": int(test.sum()),
        "exact_copies_of_training": int(exact_test.sum()),
        "exact_share": float(exact_test.sum() / total),
        "near_copies_of_training": int(near_test.sum()),
        "near_share": float(near_test.sum() / total),
        "by_class": dict(classes.most_common()),
        "examples": [
            [data.names[clip], data.names[exact[clip] if exact_test[clip] else near[clip]]]
            for clip in leaked[:_EXAMPLES]
        ],
        "exact_copies_within_training": _repeats(found.group, train),
        "exact_copies_within_test": _repeats(found.group, test),
    }


def _first_partner(found: Duplicates, among: Flags) -> Index:
    """Return ``(N,)``: the first other clip of ``among`` with the same coordinates, -1 where there is none."""
    partner = np.full(len(found.group), -1)
    clips = np.flatnonzero(among)[::-1]
    partner[found.group[clips]] = clips
    result = partner[found.group]
    # A clip is not its own copy; this matters where it is in ``among`` itself, which test clips never are.
    return np.where(result == np.arange(len(result)), -1, result)


def _near_partner(found: Duplicates, among: Flags) -> Index:
    """Return ``(N,)``: a clip of ``among`` that nearly has the same motion, -1 where there is none."""
    representative = np.full(len(found.group), -1)
    clips = np.flatnonzero(among)[::-1]
    representative[found.group[clips]] = clips
    partner = np.full(len(found.group), -1)
    for side in (0, 1):
        here, there = found.pairs[:, side], representative[found.pairs[:, 1 - side]]
        partner[here[there >= 0]] = there[there >= 0]
    return partner[found.group]


def _repeats(group: Index, among: Flags) -> int:
    """Return how many clips of ``among`` repeat another one of it."""
    return int(among.sum()) - len(np.unique(group[among]))
