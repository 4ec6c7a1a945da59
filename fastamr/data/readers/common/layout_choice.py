"""Which skeleton a file means that only tells how many joints it has, or how they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....skeleton import LAYOUTS, SkeletonLayout, get_layout

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
# A joint without a row in a file of names may be one that was never detected; with fewer of a layout's joints than
# this share the names are a skeleton of their own (choice).
_SHARE = 2 / 3


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
    own_name: str = "own",
) -> Joints:
    """Return the skeleton of a file that names its joints; the names decide, never their number.

    Names are compared without case and separators; a side may stand before or behind (``LShoulder``,
    ``shoulder_left``). A built-in layout of just these joints is taken, in any order; else the smallest one that has
    all of them and of which they are two thirds; else they are a layout of their own.

    Args:
        names: the file's joints.
        where: names the file in errors.
        given: the layout that was asked for: joints that the file lacks are not seen, others are left out.
        parents: the file's tree, for a layout of its own; None = told by the names. A file with a tree lacks no joints.
        own_name: what a layout of its own is called.

    Raises:
        ValueError: a name occurs twice, or the layout that was asked for shares no joint with the file.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        other = places.setdefault(canonical(name), place)
        if other != place:
            raise ValueError(
                f"{where}: joints {names[other]!r} and {name!r} have one name; name each joint once"
            )
    if given is not None:
        return _mapped(get_layout(given), places, names, where)
    wanted = set(places)
    built_in = {name: {canonical(joint) for joint in layout.joints} for name, layout in LAYOUTS.items()}
    same = next((name for name, joints in built_in.items() if joints == wanted), None)
    if same is not None:
        return _mapped(LAYOUTS[same], places, names, where)
    holding = [
        name for name, joints in built_in.items() if wanted < joints and len(wanted) >= _SHARE * len(joints)
    ]
    # A file that brings its own tree has the whole of its skeleton.
    if holding and parents is None:
        return _mapped(LAYOUTS[min(holding, key=lambda name: len(built_in[name]))], places, names, where)
    roots = [-1] * len(names) if parents is None else parents
    layout = SkeletonLayout.from_joints(own_name, [str(name) for name in names], roots)
    note = f"{len(names)} joints named {_shown(names)}: no built-in layout has them, kept as a layout of their own"
    return Joints(layout, tuple(range(len(names))), (note,))


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
                f"{where}: {count} joints, but layout {layout.name!r} has {layout.num_joints}; name another layout"
            )
        return Joints(layout, everything)
    found = [name for name, layout in LAYOUTS.items() if layout.num_joints == count]
    found = [(usual or {}).get(count, "")] if count in (usual or {}) else found
    if len(found) == 1:
        note = f"{count} joints without names are taken as layout {found[0]}; --layout says otherwise"
        return Joints(LAYOUTS[found[0]], everything, (note,))
    if found:
        raise ValueError(
            f"{where}: {count} joints without names, which several layouts have; choose one: "
            + " or ".join(f"--layout {name}" for name in found)
        )
    raise ValueError(
        f"{where}: {count} joints in {channels} channels, which is no known skeleton; name its layout with --layout, "
        f"one of {', '.join(LAYOUTS)}"
    )


def _mapped(layout: SkeletonLayout, places: Mapping[str, int], names: Sequence[str], where: str) -> Joints:
    """Return a layout with its joints found by name."""
    wanted = [canonical(joint) for joint in layout.joints]
    order = tuple(places.get(joint, -1) for joint in wanted)
    if all(place < 0 for place in order):
        raise ValueError(
            f"{where}: the joints {_shown(names)} have no name of layout {layout.name!r}; name another layout"
        )
    lacking = [joint for joint, place in zip(layout.joints, order, strict=True) if place < 0]
    beside = [names[place] for joint, place in places.items() if joint not in wanted]
    notes = [f"joints matched by name to layout {layout.name}"]
    notes += [f"joints of {layout.name} that the file lacks, marked as not seen: {_shown(lacking)}"] * bool(
        lacking
    )
    notes += [f"joints of the file that {layout.name} lacks, left out: {_shown(beside)}"] * bool(beside)
    return Joints(layout, order, tuple(notes))


def _shown(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def plain(name: str) -> str:
    """Return a joint's name without case and separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def canonical(name: str) -> str:
    """Return a joint's name without case and separators, its side first: ``LShoulder`` is ``leftshoulder``."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", str(name))
    lower = [word.lower() for word in words]
    sides = [place for place, word in enumerate(lower) if word in _SIDES]
    if len(sides) == 1:
        side = _SIDES[lower.pop(sides[0])]
        return side + "".join(lower)
    return "".join(lower)


def choose_layout(
    given: str | SkeletonLayout | None, joints: int, channels: int, where: str
) -> SkeletonLayout:
    """Return the skeleton of a file by the number of its joints; see :func:`joints_by_count`."""
    usual = {25: "ntu25", 17: "h36m17"} if channels == 3 else {25: "openpose25", 17: "coco17"}
    return joints_by_count(joints, channels, where, given=given, usual=usual).layout


def layout_of_names(names: Sequence[str]) -> SkeletonLayout | None:
    """Return the built-in layout that has joints of just these names, in any order, or None."""
    wanted = {plain(name) for name in names}
    for layout in LAYOUTS.values():
        if len(names) == layout.num_joints and wanted == {plain(joint) for joint in layout.joints}:
            return layout
    return None
