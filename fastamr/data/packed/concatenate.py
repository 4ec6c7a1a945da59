"""Joining data sets of one layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import check_name
from .dataset import PackedSkeletons, Split
from .joint_order import in_order_of
from .mapped import join

UNNAMED = ("refuse", "numbers", "unknown")
"""What becomes of numbered classes beside named ones, see :func:`concatenate`."""


def concatenate(
    sets: Sequence[PackedSkeletons],
    *,
    unnamed: str = "refuse",
    sources: Sequence[str] = (),
    copy: bool = True,
) -> PackedSkeletons:
    """Join data sets of one layout into one, which lies in memory.

    Choices where the sets differ: classes, and the codes of text columns, are unified by name; where no set names
    its classes, equal numbers are equal classes. A column of numbers beside one of texts becomes texts. A column or
    split that a set lacks is ``-1`` or False there. The same joints in another order get the order of the first set.
    Coordinates become float32 unless all are float16. Where only some label their frames, those of the others have
    their clip's class, or are unknown (``-2``). Pre-processing that differs is recorded as one step ``concatenate``
    with each set's own; notes of readers and steps may differ and are kept behind the steps.

    Args:
        sets: the data sets.
        unnamed: what becomes of the labels of a set that does not name its classes, where another does: ``refuse``
            them with an error, take the ``numbers`` for those of the first set that names them, or make them
            ``unknown`` (``-1``).
        sources: what the sets are called in errors; empty = ``set 0``, ``set 1``, ...
        copy: put the frames into one tensor. Otherwise they stay where they are, in mapped files for one:
            coordinates and masks of the result are what :func:`fastamr.data.packed.mapped.join` returns, and labels of
            frames are left out.

    Raises:
        ValueError: no set, an unknown option, different layouts or channels, or labels by name and by number.
    """
    check_name("unnamed", unnamed, UNNAMED)
    if not sets:
        raise ValueError("sets is empty, expected at least one data set")
    if len(sets) == 1:
        return sets[0]
    sources = list(sources) or [f"set {place}" for place in range(len(sets))]
    sets = [in_order_of(data, sets[0].layout) or data for data in sets]
    first = sets[0]
    for other, source in zip(sets[1:], sources[1:], strict=True):
        _check_same(first, other, sources[0], source)
    sets = _with_names(sets, sources, unnamed)
    dtype = torch.float32 if any(data.coords.dtype == torch.float32 for data in sets) else torch.float16
    frames, clips = [data.num_frames for data in sets], [data.num_clips for data in sets]
    labels, label_names = _unify([(data.labels, data.label_names) for data in sets])
    columns: dict[str, Tensor] = {}
    column_names: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(name for data in sets for name in data.columns):
        parts = [(_column(data, name), data.column_names.get(name, ())) for data in sets]
        columns[name], names = _unify(_as_texts(parts))
        if names:
            column_names[name] = names
    return PackedSkeletons(
        coords=torch.cat([data.coords.to(dtype) for data in sets])
        if copy
        else join([data.coords for data in sets], dtype),
        offsets=torch.cat([first.offsets[:1], *_shifted([data.offsets[1:] for data in sets], frames)]),
        body_clip=torch.cat(_shifted([data.body_clip for data in sets], clips)),
        body_start=torch.cat([data.body_start for data in sets]),
        labels=labels,
        fps=torch.cat([data.fps for data in sets]),
        layout=first.layout,
        names=[name for data in sets for name in data.names],
        columns=columns,
        column_names=column_names,
        splits={
            name: _split(sets, name) for name in dict.fromkeys(name for data in sets for name in data.splits)
        },
        valid=_valid(sets, copy),
        label_names=label_names,
        steps=_steps(sets),
        dropped={name: reason for data in sets for name, reason in data.dropped.items()},
        frame_labels=_frame_labels(sets, label_names) if copy else None,
        body_names=_body_names(sets),
    )


def _check_same(first: PackedSkeletons, other: PackedSkeletons, one: str, two: str) -> None:
    same = (other.layout.joints, other.layout.parents) == (first.layout.joints, first.layout.parents)
    if not same:
        raise ValueError(
            f"{one} and {two}: layouts {first.layout.name!r} ({first.layout.num_joints} joints) and "
            f"{other.layout.name!r} ({other.layout.num_joints} joints) differ, and only data sets of one layout train "
            f"together: train a model of any skeleton (--layout body), or map one first (fastamr convert IN OUT "
            f"--layout {first.layout.name})"
        )
    channels = (first.coords.shape[-1], other.coords.shape[-1])
    if channels[0] != channels[1]:
        raise ValueError(
            f"{one} and {two}: {channels[0]} and {channels[1]} channels; only sets with the same number of channels "
            "train together: use each by itself, or import both with the same"
        )
    if first.device != other.device:
        raise ValueError(
            f"{one} and {two} lie on {first.device} and {other.device}; move them to one device first"
        )


def _with_names(
    sets: Sequence[PackedSkeletons], sources: Sequence[str], unnamed: str
) -> list[PackedSkeletons]:
    """Give names to the numbered classes that stand beside named ones, as ``unnamed`` says."""
    named = next((place for place, data in enumerate(sets) if data.label_names), None)
    if named is None:
        return list(sets)
    names, result = sets[named].label_names, []
    for data, source in zip(sets, sources, strict=True):
        labels = [data.labels, *([] if data.frame_labels is None else [data.frame_labels])]
        highest = max(int(part.max()) if part.numel() else -1 for part in labels)
        if data.label_names or highest < 0 or unnamed == "unknown":
            result.append(data)
            continue
        known = int((data.labels >= 0).sum())
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        classes = f"{len(names)} class{'es'[: 2 * (len(names) > 1)]} ({some})"
        if unnamed == "refuse":
            raise ValueError(
                f"{source} labels {known} of its {data.num_clips} clips by number (0 to {highest}) and names no class, "
                f"{sources[named]} names {classes}: import {source} again with names (fastamr import SOURCE OUT "
                "--labels FILE), or pass --label-numbers, which takes equal numbers for equal classes"
            )
        if highest >= len(names):
            raise ValueError(
                f"{source} has a class {highest}, {sources[named]} names {classes}, 0 to {len(names) - 1}: its numbers "
                "are not those of these names; import it again with names (fastamr import SOURCE OUT --labels FILE)"
            )
        result.append(dataclasses.replace(data, label_names=names))
    return result


def _unify(parts: Sequence[tuple[Tensor, tuple[str, ...]]]) -> tuple[Tensor, tuple[str, ...]]:
    """Join codes whose names differ from part to part; see :func:`concatenate`."""
    names = dict.fromkeys(name for _, own in parts for name in own)
    if not names:
        return torch.cat([codes for codes, _ in parts]), ()
    places = {name: place for place, name in enumerate(names)}
    joined = []
    for codes, own in parts:
        if own:
            table = torch.tensor([places[name] for name in own], device=codes.device)
            joined.append(torch.where(codes >= 0, table[codes.clamp(min=0)], -1))
        else:
            joined.append(torch.full(codes.shape, -1, dtype=torch.int64, device=codes.device))
    return torch.cat(joined), tuple(names)


def _as_texts(parts: Sequence[tuple[Tensor, tuple[str, ...]]]) -> list[tuple[Tensor, tuple[str, ...]]]:
    """Write the numbers of a column as texts where another part of it holds texts."""
    if not any(own for _, own in parts):
        return list(parts)
    result = []
    for values, own in parts:
        if own or not bool((values >= 0).any()):
            result.append((values, own))
            continue
        known = values[values >= 0].unique()
        codes = torch.where(values >= 0, torch.searchsorted(known, values.contiguous()), -1)
        result.append((codes, tuple(f"{value:g}" for value in known.tolist())))
    return result


def _column(data: PackedSkeletons, name: str) -> Tensor:
    missing = torch.full_like(data.labels, -1)
    return data.columns.get(name, missing)


def _split(sets: Sequence[PackedSkeletons], name: str) -> Split:
    neither = [torch.zeros_like(data.labels, dtype=torch.bool) for data in sets]
    parts = [data.splits.get(name, Split(none, none)) for data, none in zip(sets, neither, strict=True)]
    return Split(torch.cat([part.train for part in parts]), torch.cat([part.test for part in parts]))


def _body_names(sets: Sequence[PackedSkeletons]) -> list[str]:
    if not any(data.body_names for data in sets):
        return []
    return [name for data in sets for name in data.body_names or [""] * data.num_bodies]


def _valid(sets: Sequence[PackedSkeletons], copy: bool) -> Tensor | None:
    if all(data.valid is None for data in sets):
        return None
    masks = [
        torch.ones((), dtype=torch.bool, device=data.device).expand(data.coords.shape[:2])
        if data.valid is None
        else data.valid
        for data in sets
    ]
    return torch.cat(masks) if copy else join(masks, torch.bool)


def _frame_labels(sets: Sequence[PackedSkeletons], names: tuple[str, ...]) -> Tensor | None:
    """Join the classes of frames, under the numbers of the joint ``names``."""
    if all(data.frame_labels is None for data in sets):
        return None
    parts = []
    for data in sets:
        labels = data.frame_labels
        if labels is None:
            own = torch.where(data.labels >= 0, data.labels, -2)[data.body_clip]
            labels = own.repeat_interleave(data.offsets.diff()).to(torch.int16)
        if data.label_names != names:
            # Without names of its own a set has no known class beside those that name theirs.
            table = [names.index(name) for name in data.label_names] or [-2]
            new = torch.tensor(table, dtype=torch.int16, device=labels.device)
            labels = torch.where(labels >= 0, new[labels.long().clamp(0, len(table) - 1)], labels)
        parts.append(labels)
    return torch.cat(parts)


def _steps(sets: Sequence[PackedSkeletons]) -> tuple[dict[str, Any], ...]:
    if all(data.steps == sets[0].steps for data in sets):
        return sets[0].steps
    applied = [tuple(step for step in data.steps if step["name"] != "note") for data in sets]
    if all(steps == applied[0] for steps in applied):
        notes = [step for data in sets for step in data.steps if step["name"] == "note"]
        return (*applied[0], *(note for place, note in enumerate(notes) if note not in notes[:place]))
    return ({"name": "concatenate", "steps": [list(data.steps) for data in sets]},)


def _shifted(parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Return each part plus the sizes of the parts before it."""
    shifted, before = [], 0
    for part, size in zip(parts, sizes, strict=True):
        shifted.append(part + before)
        before += size
    return shifted
