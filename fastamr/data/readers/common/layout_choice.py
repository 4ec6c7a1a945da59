"""Which skeleton a file means that only tells how many joints it has, or how they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ....layouts import SYNONYMS
from ....layouts.names import canonical, tree_by_names, tree_from_edges, words
from ....layouts.synonyms import ANIMAL_WORDS
from ....skeleton import BODY, LAYOUTS, SkeletonLayout, get_layout

# A joint without a row in a file of names may be one that was never detected; with fewer of a layout's joints than
# this share the names are a skeleton of their own (choice).
_SHARE = 2 / 3
# Names that are no more than numbers.
_NUMBERED = re.compile(
    r"(?:joints?|j|key_?points?|kpts?|kp|points?|pts?|p|landmarks?|lms?|k|node|v|marker)?[\s_.:\-]*(\d+)",
    re.IGNORECASE,
)
WAY_ON = "or a file NAME.yaml with joints and parents; fastamr layouts lists the built-in ones"
"""How an error about a skeleton goes on after the names of layouts."""


@dataclass(frozen=True)
class Joints:
    """The skeleton of a file, and where its joints stand in the file.

    Args:
        layout: the skeleton, ``V`` joints.
        order: ``V`` indices among the file's joints, -1 = the file lacks the joint.
        notes: how it was told, and which joints the file has beside it, a line each.
    """

    layout: SkeletonLayout
    order: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def take(self, coords: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a file's points ``(..., J, C)`` and which were seen ``(..., J)`` in the order of the layout.

        Joints that the file lacks are 0 and not seen.
        """
        order = np.array(self.order)
        lacking = order < 0
        coords, seen = coords[..., order, :], seen[..., order].copy()
        seen[..., lacking] = False
        return np.where(lacking[:, None], np.zeros((), coords.dtype), coords), seen


def joints_by_name(
    names: Sequence[str],
    where: str,
    *,
    given: str | SkeletonLayout | None = None,
    parents: Sequence[int] | None = None,
    edges: Sequence[tuple[int, int]] | None = None,
    own_name: str = "own",
    channels: int = 2,
    usual: Mapping[int, str] | None = None,
) -> Joints:
    """Return the skeleton of a file that names its joints; the names decide, never their number or order.

    Names are compared without case and separators; a side may stand before or behind (``LShoulder``,
    ``shoulder_left``), and a joint may have another name that files give it
    (:data:`fastamr.layouts.SYNONYMS`). A built-in layout of just these joints is taken, in any order; else the smallest
    one that has all of them and of which they are two thirds; else they are a layout of their own. Names of an animal
    are never those of a body. Names that are only numbers (``kp_0``, ``joint 1``) tell no more than
    :func:`joints_by_index`.

    Args:
        names: the file's joints.
        where: names the file in errors.
        given: the layout that was asked for: joints that the file lacks are not seen, others are left out.
        parents: the file's tree, for a layout of its own; None = told by the bones or the names. A file with a tree
            has the whole of its skeleton, which is no part of a larger layout.
        edges: the file's bones, pairs of joints counted from 0, for a layout of its own.
        own_name: what a layout of its own is called.
        channels: coordinates of a joint, for errors about names that are only numbers.
        usual: as for :func:`joints_by_count`, for names that are only numbers.

    Raises:
        ValueError: a name occurs twice, the layout that was asked for shares no joint with the file or is that of a
            human body and the file's an animal's, or numbers fit no layout.
    """
    numbers = [_NUMBERED.fullmatch(str(name).strip()) for name in names]
    if names and all(numbers):
        indices = [int(number[1]) for number in numbers if number]
        return _numbered(indices, where, given, channels, usual)
    plain_names = [canonical(name) for name in names]
    asked = None if given is None else get_layout(given)
    if len(set(plain_names)) < len(plain_names):
        return _with_repeated_names(names, plain_names, where, asked)
    places = {name: place for place, name in enumerate(plain_names)}
    animal = sorted({word for name in names for word in words(name)} & ANIMAL_WORDS)
    if asked is not None:
        if animal and asked == LAYOUTS.get(asked.name):
            raise ValueError(
                f"{where}: the joints {_shown(names)} are those of an animal ({', '.join(animal)}), not of layout "
                f"{asked.name!r}; leave out --layout to keep them as they are"
            )
        return _mapped(asked, places, names, where)
    if not animal:
        for wanted in (places, _one_hand(places)):
            found = _matching(wanted, whole=parents is not None)
            if found is not None:
                return _mapped(found, wanted, names, where)
    return _own(names, parents, edges, own_name, animal)


def joints_by_index(
    indices: Iterable[int],
    channels: int,
    where: str,
    given: str | SkeletonLayout | None = None,
    usual: Mapping[int, str] | None = None,
) -> Joints:
    """Return the skeleton of a file that only numbers its joints.

    Joints are counted from 0. Where joint 0 never occurs and a layout has as many joints as the highest number says,
    they are counted from 1, which a note says. Joints between that never occur are not seen.

    Args:
        indices: the numbers that occur, in any order and as often as they do.
        channels: 2 or 3 coordinates, for errors.
        where: names the file in errors.
        given: the layout that was asked for.
        usual: what the format itself means by so many joints, by their number.

    Returns:
        The layout; its ``order`` holds the file's own numbers, so that the file's points are ``(..., highest + 1, C)``.

    Raises:
        ValueError: no joint, a negative number, or the numbers fit no layout or several.
    """
    present = sorted({int(index) for index in indices})
    if not present or present[0] < 0:
        raise ValueError(
            f"{where}: joints are numbered {_shown(list(map(str, present)))}, expected 0, 1, 2, ..."
        )
    highest = present[-1]
    notes: list[str] = []
    from_one = present[0] > 0 and (
        get_layout(given).num_joints == highest if given is not None else _has_layout(highest, usual)
    )
    if given is None and present[0] > 1 and from_one and _has_layout(highest + 1, usual):
        # Nothing says where the counting begins: only what the format means can.
        meant = [count for count in (highest, highest + 1) if count in (usual or {})]
        if len(meant) != 1:
            raise ValueError(
                f"{where}: joints are numbered {present[0]} to {highest}, those of a skeleton of {highest + 1} counted "
                f"from 0, or of {highest} counted from 1; name it with --layout"
            )
        from_one = meant == [highest]
    if given is not None:
        layout = get_layout(given)
        if highest >= layout.num_joints + from_one:
            raise ValueError(
                f"{where}: joint {highest}, but layout {layout.name!r} has joints 0 to {layout.num_joints - 1}"
            )
    else:
        counted = " (joint 0 never occurs, so they are counted from 1)" if from_one else ""
        chosen = joints_by_count(highest + 1 - from_one, channels, where + counted, usual=usual)
        layout = chosen.layout
        notes += chosen.notes
    if from_one:
        notes.append(f"joint 0 never occurs: joints 1 to {highest} are counted from 1, as 0 to {highest - 1}")
    order = tuple(
        joint + from_one if joint + from_one in present else -1 for joint in range(layout.num_joints)
    )
    lacking = [layout.joints[joint] for joint, place in enumerate(order) if place < 0]
    if lacking:
        notes.append(f"joints of {layout.name} that the file lacks, marked as not seen: {_shown(lacking)}")
    return Joints(layout, order, tuple(notes))


def joints_by_count(
    count: int,
    channels: int,
    where: str,
    *,
    given: str | SkeletonLayout | None = None,
    usual: Mapping[int, str] | None = None,
) -> Joints:
    """Return the skeleton of a file that does not name its joints.

    Args:
        count: how many joints the file has.
        channels: 2 or 3 coordinates, for errors.
        where: names the file in errors.
        given: the layout that was asked for; None finds one by the number of joints.
        usual: what the format itself means by so many joints, by their number.

    Raises:
        ValueError: the layout has another number of joints, or none or several have as many.
    """
    everything = tuple(range(count))
    if given is not None:
        layout = get_layout(given)
        if layout.num_joints != count:
            raise ValueError(
                f"{where}: {count} joints, but layout {layout.name!r} has {layout.num_joints}; name another layout, "
                f"{WAY_ON}"
            )
        return Joints(layout, everything)
    found = [name for name, layout in LAYOUTS.items() if layout.num_joints == count and layout is not BODY]
    found = [(usual or {}).get(count, "")] if count in (usual or {}) else found
    if len(found) == 1:
        note = f"{count} joints without names are taken as layout {found[0]}; --layout says otherwise"
        return Joints(LAYOUTS[found[0]], everything, (note,))
    if found:
        raise ValueError(
            f"{where}: {count} joints without names, which several layouts have; choose one: "
            + " or ".join(f"--layout {name}" for name in found)
            + f", {WAY_ON}"
        )
    raise ValueError(
        f"{where}: {count} joints in {channels} channels, which is no known skeleton; name its layout with --layout, "
        f"one of {', '.join(LAYOUTS)}, {WAY_ON}"
    )


def _has_layout(count: int, usual: Mapping[int, str] | None) -> bool:
    return count in (usual or {}) or any(
        layout.num_joints == count and layout is not BODY for layout in LAYOUTS.values()
    )


def _numbered(
    numbers: Sequence[int],
    where: str,
    given: str | SkeletonLayout | None,
    channels: int,
    usual: Mapping[int, str] | None,
) -> Joints:
    """Return the skeleton of joints whose names are numbers; ``order`` holds their places among the names."""
    found = joints_by_index(numbers, channels, where, given=given, usual=usual)
    places = {number: place for place, number in enumerate(numbers)}
    if len(places) < len(numbers):
        raise ValueError(f"{where}: a joint's number occurs twice among the names; name each joint once")
    return Joints(found.layout, tuple(places.get(number, -1) for number in found.order), found.notes)


@cache
def _tables(layout: SkeletonLayout) -> tuple[dict[str, int], ...]:
    """Return the joint that each canonical name means in a layout, its own names first, then tables of other names."""
    own = {canonical(joint): place for place, joint in enumerate(layout.joints)}
    tables = [own]
    for text in SYNONYMS.get(layout.name, ()) if LAYOUTS.get(layout.name) == layout else ():
        pairs = [entry.split("=") for entry in text.split()]
        tables.append(own | {canonical(other): layout.joints.index(joint) for joint, other in pairs})
    return tuple(tables)


def _matching(places: Mapping[str, int], *, whole: bool) -> SkeletonLayout | None:
    """Return the built-in layout of just these joints, else the smallest one of which they are most, or None.

    Where the joints are known to be ``whole``, none of which they are only a part.
    """
    holding: list[tuple[bool, int, bool, int]] = []
    for number, layout in enumerate(LAYOUTS.values()):
        for place, table in enumerate(_tables(layout)):
            met = {table[name] for name in places if name in table}
            if len(met) == len(places) and len(met) >= _SHARE * layout.num_joints:
                exact = len(met) == layout.num_joints
                if (whole or layout is BODY) and not exact:
                    continue
                holding.append((not exact, place if exact else layout.num_joints, place > 0, number))
    return list(LAYOUTS.values())[min(holding)[3]] if holding else None


def _one_hand(places: Mapping[str, int]) -> dict[str, int]:
    """Return the names of one hand without its side, nothing where there are others."""
    for side in ("left", "right"):
        if places and all(name.startswith(side) for name in places):
            return {name.removeprefix(side): place for name, place in places.items()}
    return {}


def _mapped(layout: SkeletonLayout, places: Mapping[str, int], names: Sequence[str], where: str) -> Joints:
    """Return a layout with its joints found by name, by the table of names that finds most of them."""
    best: dict[int, int] = {}
    for table in _tables(layout):
        # A name that the layout itself has stands before another name of the same joint.
        found: dict[int, int] = {}
        for name, place in places.items():
            if name in table:
                found.setdefault(table[name], place)
        if len(found) > len(best):
            best = found
    if not best:
        raise ValueError(
            f"{where}: the joints {_shown(names)} have no name of layout {layout.name!r}; name another layout, {WAY_ON}"
        )
    order = tuple(best.get(joint, -1) for joint in range(layout.num_joints))
    lacking = [joint for joint, place in zip(layout.joints, order, strict=True) if place < 0]
    beside = [name for place, name in enumerate(names) if place not in order]
    notes = [f"joints matched by name to layout {layout.name}"]
    notes += [f"joints of {layout.name} that the file lacks, marked as not seen: {_shown(lacking)}"] * bool(
        lacking
    )
    notes += [f"joints of the file that {layout.name} lacks, left out: {_shown(beside)}"] * bool(beside)
    return Joints(layout, order, tuple(notes))


def _with_repeated_names(
    names: Sequence[str], plain_names: Sequence[str], where: str, asked: SkeletonLayout | None
) -> Joints:
    """Return the layout whose joints have just these names in this order, where a name occurs twice."""
    for layout in LAYOUTS.values() if asked is None else (asked,):
        if layout.num_joints != len(names):
            continue
        known: list[set[str]] = [set() for _ in layout.joints]
        for table in _tables(layout):
            for name, place in table.items():
                known[place].add(name)
        for place, joint in enumerate(layout.joints):
            known[place].add(canonical(joint))
        if all(name in options for name, options in zip(plain_names, known, strict=True)):
            note = f"joints matched by name and order to layout {layout.name}"
            return Joints(layout, tuple(range(len(names))), (note,))
    first = next(place for place, name in enumerate(plain_names) if name in plain_names[:place])
    other = plain_names.index(plain_names[first])
    raise ValueError(
        f"{where}: joints {names[other]!r} and {names[first]!r} have one name; name each joint once"
    )


def _own(
    names: Sequence[str],
    parents: Sequence[int] | None,
    edges: Sequence[tuple[int, int]] | None,
    own_name: str,
    animal: Sequence[str],
) -> Joints:
    """Return a layout of the file's own joints."""
    words_of = [str(name) for name in names]
    if parents is None:
        parents = tree_from_edges(len(names), edges, words_of) if edges else tree_by_names(words_of)
    layout = SkeletonLayout.from_joints(own_name, words_of, parents)
    reason = "no built-in layout has them"
    if all(name.startswith("face") for name in map(canonical, words_of)):
        reason = "points of a face, no whole body"
    if animal:
        reason = f"those of an animal ({', '.join(animal)}), no human body"
    notes = [f"{len(names)} joints named {_shown(words_of)}: {reason}, kept as a layout of their own"]
    if layout.hips is None:
        notes.append(
            "no hips among the joints: steps that need them (align_body, center:joint=hips) refuse these data"
        )
    return Joints(layout, tuple(range(len(names))), tuple(notes))


def _shown(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def plain(name: str) -> str:
    """Return a joint's name without case and separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
