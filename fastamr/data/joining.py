"""Several data sets used together: which clips train, whose classes are whose, and what a person must know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from ..skeleton import SkeletonLayout, is_body
from .body_size import FACTOR, body_size, mending, size_warning
from .load import SYNTHETIC, concatenate, load
from .packed.dataset import PackedSkeletons, Split
from .packed.joint_order import in_order_of, joint_order
from .packed.split import split_name, unknown_split
from .preprocessing.apply import Step
from .to_body import body_note, common_channels, depth_note, for_layout, gains_depth, join_ready

_COMPARED = 200
"""Clips of one name whose coordinates are compared."""
VERIFIED = 2 << 30
"""Bytes of coordinates that are compared with their checksum before they are used: half a second."""
Steps = Iterable[str | Mapping[str, Any] | Step]


@dataclasses.dataclass(frozen=True)
class Gathered:
    """Data sets that are used together.

    Attributes:
        data: all clips, pre-processed.
        split: the name of its split; None = none was asked for.
        body_size: the median trunk of the largest set as the steps leave it, see :func:`fastamr.data.body_size`.
        notes: a line each on what was left out, or understood without being told.
        warnings: a line each on what is likely wrong.
        names: of the sets, see :func:`set_names`.
        clip_set: ``(N,)`` int64 on the CPU, the set of each clip, by its place in ``names``.
    """

    data: PackedSkeletons
    split: str | None
    body_size: float | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    names: tuple[str, ...]
    clip_set: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Settled:
    """Data sets that fit together, before they are pre-processed and joined; as :class:`Gathered`."""

    sets: list[PackedSkeletons]
    notes: list[str]
    warnings: list[str]


def open_sets(sources: Sequence[str]) -> list[PackedSkeletons]:
    """Open packed files, or the word ``synthetic``.

    Files of up to :data:`VERIFIED` bytes are compared with their checksums; larger ones by ``fastamr check``.

    Raises:
        ValueError: none is named, or a file is not packed data, or is damaged.
        FileNotFoundError: a file does not exist.
    """
    if not sources:
        raise ValueError("data is missing: name packed files, or pass --data synthetic")
    sets = [load(source) for source in sources]
    for one in sets:
        if one.coords.nbytes <= VERIFIED:
            one.verify()
    return sets


def gather(
    sets: Sequence[PackedSkeletons],
    sources: Sequence[str],
    steps: Steps = (),
    *,
    split: str | None = None,
    layout: SkeletonLayout | None = None,
    labelled: bool = True,
    unnamed: str = "refuse",
    reference: float | None = None,
    copy: bool = True,
    channels: int | None = None,
) -> Gathered:
    """Join data sets, pre-processed, so that all of each is used or named.

    Args:
        sets: the data sets; they are left as they are.
        sources: what they are called.
        steps: pre-processing, of which each set goes through the steps that it lacks.
        split: the split whose halves are used, as :func:`choose_split` returns it; a set without it is trained on
            whole. None leaves the splits as they are.
        layout: the layout of a model; None = that of the first set. Sets of any layout become ``body`` after their
            pre-processing, see :func:`fastamr.data.to_body.as_body`.
        labelled: whether only clips with a label are used.
        unnamed: see :func:`fastamr.data.concatenate`.
        reference: the body size of a model's training data; None = metres.
        copy: see :func:`fastamr.data.concatenate`.
        channels: of a model of ``body``, which reads 2-D data with a depth of 0 where it has three; None = as many as
            the set with the most.

    Raises:
        ValueError: sets of different layouts or channels, or labels by name and by number.
    """
    steps = list(steps)
    settled = settle(sets, sources, split=split, layout=layout, labelled=labelled)
    sizes = size_warnings(settled.sets, sources, steps, reference)
    wanted = sets[0].layout if layout is None else layout
    if is_body(wanted):
        told = [body_note(one.layout, source) for one, source in zip(settled.sets, sources, strict=True)]
        settled.notes.extend(text for text in told if text is not None)
    channels = common_channels(settled.sets, wanted) if channels is None else channels
    named = zip(settled.sets, sources, strict=True)
    settled.notes.extend(depth_note(source) for one, source in named if gains_depth(one, wanted, channels))
    ready = join_ready([for_layout(one, wanted, steps, channels) for one in settled.sets])
    joined = concatenate(ready, unnamed=unnamed, sources=sources, copy=copy)
    clips = torch.tensor([one.num_clips for one in ready])
    largest = max(settled.sets, key=lambda one: one.num_clips)
    notes = settled.notes + (class_notes(sets, sources) if labelled else [])
    lost = sum(int((one.labels >= 0).sum()) for one in sets) - int((joined.labels >= 0).sum())
    if unnamed == "unknown" and lost > 0:
        notes.append(
            f"{lost} labels are not used: numbers without names, beside sets that name their classes"
        )
    return Gathered(
        joined,
        split,
        body_size(largest, steps),
        tuple(notes),
        (*sizes, *settled.warnings),
        set_names(sources),
        torch.arange(len(ready)).repeat_interleave(clips),
    )


def set_names(sources: Sequence[str], taken: Iterable[str] = ()) -> tuple[str, ...]:
    """Return a name of each data set: its file's without the ending, with a number where that is another one's.

    Args:
        sources: the files, or the word ``synthetic``.
        taken: names of other sets.
    """
    found = list(taken)
    before = len(found)
    for source in sources:
        name, number = Path(source).stem, 1
        while name in found:
            number += 1
            name = f"{Path(source).stem}-{number}"
        found.append(name)
    return tuple(found[before:])


def choose_split(name: str, sets: Sequence[PackedSkeletons]) -> str:
    """Return the name of a split as the first set that has it writes it; case does not matter.

    Raises:
        ValueError: no set has such a split (with the names that there are, or how to make one).
    """
    for data in sets:
        found = split_name(name, data.splits)
        if found is not None:
            return found
    raise unknown_split(name, dict.fromkeys(one for data in sets for one in data.splits))


def settle(
    sets: Sequence[PackedSkeletons],
    sources: Sequence[str],
    *,
    split: str | None = None,
    layout: SkeletonLayout | None = None,
    labelled: bool = True,
) -> Settled:
    """Give data sets one order of joints and one split; see :func:`gather` for the arguments.

    A set without the split becomes all training clips. Sets of other joints stay as they are.
    """
    result, notes, warnings = [], [], []
    wanted, whose = (sets[0].layout, sources[0]) if layout is None else (layout, "the model")
    for data, source in zip(sets, sources, strict=True):
        ordered = in_order_of(data, wanted)
        order = joint_order(data.layout, wanted)
        if order is not None and order != sorted(order):
            notes.append(f"{source}: its joints were put into the order of {whose}")
        data = data if ordered is None else ordered
        if split is not None:
            data, note, warning = _with_split(data, source, split, labelled)
            notes += note
            warnings += warning
        result.append(data)
    twice = repeated(result, sources, split)
    return Settled(
        result, notes + [text for text, grave in twice if not grave], warnings + [t for t, g in twice if g]
    )


def _with_split(
    data: PackedSkeletons, source: str, split: str, labelled: bool
) -> tuple[PackedSkeletons, list[str], list[str]]:
    """Return a set that has the split, and what to note and to warn of."""
    own, count = split_name(split, data.splits), data.num_clips
    if own is not None:
        halves = data.splits[own]
        unused = not bool((halves.train | halves.test).any())
        text = f"{source}: all its {count} clips are left out, none is in a half of split {own!r}"
        if own != split:
            renamed = {split if name == own else name: one for name, one in data.splits.items()}
            data = dataclasses.replace(data, splits=renamed)
        return data, [], [text] if unused else []
    others = f" (it has {', '.join(map(repr, data.splits))})" if data.splits else ""
    text = f"{source} has no split {split!r}{others}: all its {count} clips are training clips, none tests"
    missing = int((data.labels < 0).sum()) if labelled else 0
    if missing:
        text += f"; {missing} of them have no label and are left out"
    every = torch.ones_like(data.labels, dtype=torch.bool)
    return (
        dataclasses.replace(data, splits={**data.splits, split: Split(every, ~every)}),
        [text],
        [],
    )


def repeated(
    sets: Sequence[PackedSkeletons], sources: Sequence[str], split: str | None = None
) -> list[tuple[str, bool]]:
    """Return a line for each pair of sets that share a file or names of clips, and whether it is a warning."""
    found = []
    for one, two in combinations(range(len(sets)), 2):
        places = [{name: place for place, name in enumerate(sets[each].names)} for each in (one, two)]
        common = [name for name in places[0] if name in places[1]]
        if sources[one] != SYNTHETIC and same_file(sources[one], sources[two]):
            found.append((f"{sources[one]} is given twice: each of its clips counts twice", True))
        elif common:
            pairs = [(places[0][name], places[1][name]) for name in common]
            across = _across(sets[one], sets[two], pairs, split)
            same = any(_equal(sets[one], a, sets[two], b) for a, b in pairs[:_COMPARED])
            some = ", ".join(common[:3]) + (", ..." if len(common) > 3 else "")
            text = f"{sources[one]} and {sources[two]} both have {len(common)} clips of one name ({some})"
            text += ", with the same coordinates" if same else ", with other coordinates"
            if across:
                text += f"; {across} of them train in one and test in the other: test clips may be trained on"
            found.append((text, same or across > 0))
    return found


def same_file(one: str, two: str) -> bool:
    """Return whether two paths lead to one file that exists."""
    first, second = Path(one), Path(two)
    return first.exists() and second.exists() and first.resolve() == second.resolve()


def _across(
    one: PackedSkeletons, two: PackedSkeletons, pairs: Sequence[tuple[int, int]], split: str | None
) -> int:
    """Return how many pairs of clips train in one set and test in the other."""
    if split is None:
        return 0
    first, second = one.splits[split], two.splits[split]
    a, b = torch.tensor(pairs, device=one.device).unbind(1)
    return int(((first.train[a] & second.test[b]) | (first.test[a] & second.train[b])).sum())


def _equal(one: PackedSkeletons, first: int, two: PackedSkeletons, second: int) -> bool:
    rows = [_rows(data, clip) for data, clip in ((one, first), (two, second))]
    return rows[0].shape == rows[1].shape and bool((rows[0] == rows[1]).all())


def _rows(data: PackedSkeletons, clip: int) -> torch.Tensor:
    """Return all frames of all bodies of a clip ``(F, V, C)``."""
    begin, end = (int(torch.searchsorted(data.body_clip, clip, right=right)) for right in (False, True))
    return data.coords[int(data.offsets[begin]) : int(data.offsets[end])]


def size_warnings(
    sets: Sequence[PackedSkeletons], sources: Sequence[str], steps: Steps, reference: float | None
) -> list[str]:
    """Return a warning for each set whose bodies are not of the size that is expected, or not of the first one's.

    Args:
        sets: the data sets.
        sources: what they are called.
        steps: pre-processing that they will go through.
        reference: the body size of a model's training data; None = metres, where there are three channels.
    """
    steps, found = list(steps), []
    first = body_size(sets[0], steps)
    for place, (data, source) in enumerate(zip(sets, sources, strict=True)):
        text = size_warning(data, reference, steps=steps, where=source)
        if text is None and place and first is not None:
            size = body_size(data, steps)
            if size is not None and not 1 / FACTOR < size / first < FACTOR:
                text = (
                    f"{source} and {sources[0]} are not of one unit: their median trunks are {size:.3g} and "
                    f"{first:.3g} long; scale one (fastamr convert IN OUT --preprocess scale:factor="
                    f"{mending(first / size, data)}), or both with --preprocess center scale:unit=torso"
                )
        found += [] if text is None else [text]
    return found


def class_notes(sets: Sequence[PackedSkeletons], sources: Sequence[str]) -> list[str]:
    """Return a line where sets that name their classes name different ones."""
    named = [
        (data.label_names, source) for data, source in zip(sets, sources, strict=True) if data.label_names
    ]
    if all(set(names) == set(named[0][0]) for names, _ in named):
        return []
    every = list(dict.fromkeys(name for names, _ in named for name in names))
    shared = sum(all(name in names for names, _ in named) for name in every)
    counts = ", ".join(f"{source} names {len(names)}" for names, source in named)
    notes = [f"classes are joined by name: {counts}, {shared} of them in all, {len(every)} together"]
    folded: dict[str, list[str]] = {}
    for name in every:
        folded.setdefault(name.casefold().strip(), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in folded.values() if len(names) > 1]
    return notes + ([f"classes that differ in case alone stay apart: {', '.join(alike)}"] if alike else [])
