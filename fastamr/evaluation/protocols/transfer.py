"""Transfer: from the joint layout of other data to the one that an encoder was pre-trained with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ...data.preprocessing.convert_layout import convert, joint_map
from ...layouts.body import parts_of
from ...skeleton import is_body

if TYPE_CHECKING:
    from ...data import PackedSkeletons
    from ...skeleton import SkeletonLayout


def to_layout(
    data: PackedSkeletons, layout: SkeletonLayout, *, missing: str = "interpolate"
) -> tuple[PackedSkeletons, dict[str, Any]]:
    """Convert a data set to an encoder's layout and say what became of each joint.

    Args:
        data: packed data of any layout; it is left as it is.
        layout: the encoder's.
        missing: see :func:`fastamr.data.preprocessing.convert_layout.convert`; of no effect for ``body``, where joints
            that the data lacks are no tokens.

    Returns:
        The data in the new layout, with a note in its steps, and the note: ``source`` and ``target`` layout, the
        joints that were ``copied``, the ``interpolated`` ones with their weights, those that are ``masked`` for lack
        of a source, and the joints of the data that are ``unused``.

    Raises:
        ValueError: the layouts have no joint in common (naming the joints that are missing), or joints are missing
            and ``missing="refuse"``.
    """
    missing = "mask" if is_body(layout) else missing
    same = (data.layout.joints, data.layout.parents) == (layout.joints, layout.parents)
    try:
        plan = joint_map(data.layout, layout)
    except ValueError:
        ours, theirs = parts_of(data.layout), parts_of(layout)
        raise ValueError(
            f"data of layout {data.layout.name!r} cannot be given to an encoder of layout {layout.name!r}: none of the "
            f"joints that it needs is there. Missing: {', '.join(theirs.values())}; present: "
            f"{', '.join(ours.values())}. Name the joints of the data as in the built-in layouts and import it again"
        ) from None
    converted = data if data.layout == layout else convert(data, layout, missing=missing)
    interpolated, masked = plan.interpolated, list(plan.missing)
    if missing == "mask":
        interpolated, masked = {}, [*plan.interpolated, *masked]
    used = {*plan.copied.values(), *(joint for weights in interpolated.values() for joint in weights)}
    note = {
        "name": "note",
        "about": "transfer",
        "source": data.layout.name,
        "target": layout.name,
        "copied": dict(plan.copied),
        "interpolated": {joint: dict(weights) for joint, weights in interpolated.items()},
        "masked": masked,
        "unused": [joint for joint in data.layout.joints if joint not in used],
    }
    if not same:
        converted = dataclasses.replace(converted, steps=(*converted.steps, note))
    return converted, note


def describe_transfer(note: dict[str, Any]) -> str:
    """Return a note of :func:`to_layout` as a line of text."""
    counts = f"{len(note['copied'])} joints copied"
    for name in ("interpolated", "masked", "unused"):
        if note[name]:
            counts += f", {len(note[name])} {name} ({', '.join(note[name])})"
    return f"layout {note['source']!r} -> {note['target']!r}: {counts}"
