"""What the columns of a table are, by their names: the spellings that people and tools use, in any case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .column_names import UNITS, Part, part_of, part_of_path, with_first_number, without_box
from .text import Header

LONG = "a row a joint (frame, joint, x, y[, z])"
WIDE = "a row a frame (frame, nose_x, nose_y[, nose_z], left_eye_x, ...)"


def _with(words: str, ends: str) -> tuple[str, ...]:
    """Return words alone and with each ending."""
    return tuple(word + end for word in words.split() for end in ["", *ends.split()])


_ID = "id ids idx index number num no nr"
# Spellings without case and separators, in tiers: of two columns of different tiers the earlier one is meant.
_ROLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "frame": (_with("frame", f"{_ID} n nb i s"), _with("framename image img", f"{_ID} name path file"), ("step",)),
    "body": (
        _with("track tracking", f"{_ID} name"),
        _with("body person people skeleton human individual instance object obj user player", f"{_ID} name s"),
        ("id", "idx", "pid"),
    ),
    "joint": (
        (*_with("joint keypoint kp kpt landmark lm marker bodypart part point node bone", f"{_ID} name type label"),),
        ("name",),
    ),
    "clip": (
        _with("clip", f"{_ID} name"),
        _with("sequence seq sample recording trial take", f"{_ID} name"),
        _with("video vid movie", f"{_ID} name path file"),
        _with("file filename filepath path source", f"{_ID} name"),
        ("name",),
    ),
    "label": (_with("label action class activity gesture target category exercise", f"{_ID} name label class"),),
    "fps": (("fps", "framerate", "framespersecond", "samplerate", "samplingrate", "hz"),),
    "subject": (_with("subject actor performer participant", f"{_ID} name"),),
    "view": (_with("view camera cam", f"{_ID} name"),),
}  # fmt: skip
_SECONDS = {
    **dict.fromkeys(("s", "secs", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "usec", "microseconds"), 1e-6), **dict.fromkeys(("ns", "nanoseconds"), 1e-9),
}  # fmt: skip
_TIME = re.compile(
    rf"(?:video|frame|device|capture|relative|elapsed|system|unix|sensor)?(?:timestamps?|times?|timecode|t)?(?:in)?(?:{'|'.join(_SECONDS)})?|milliseconds?"
)
_SPLITS = ("split", "splitname", "subset", "partition", "dataset", "set", "usage")


@dataclass
class JointColumns:
    """Where a joint of a table with a row a frame stands.

    Args:
        body: the person that the columns name, or "".
        joint: its name or index.
        axes: the columns of x, y and perhaps z.
        score: that of its confidence, or None.
    """

    body: str
    joint: str
    axes: tuple[int, ...]
    score: int | None


@dataclass
class Plan:
    """What the columns of a table are.

    Args:
        roles: columns by what they are: ``frame``, ``time``, ``body``, ``joint``, ``clip``, ``label``, ``fps``,
            ``subject``, ``view``; those that the table lacks are missing.
        axes: of a table with a row a joint: the columns of x, y and perhaps z.
        score: its column of confidence, or None.
        joints: of a table with a row a frame; empty = a row a joint.
        splits: columns that say whether a clip trains or tests, by the name of the split.
        others: the rest.
        time_unit: seconds of a unit of ``time``, None = its name does not say.
        unit: the unit that the names state, of :data:`UNITS` or an unknown one; "" = none.
        notes: what a person should know of it, a line each.
    """

    roles: dict[str, int] = field(default_factory=dict)
    axes: tuple[int, ...] = ()
    score: int | None = None
    joints: list[JointColumns] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    others: list[int] = field(default_factory=list)
    time_unit: float | None = None
    unit: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        """The columns that hold numbers."""
        places = [*self.axes, *[place for joint in self.joints for place in joint.axes]]
        scores = [self.score, *[joint.score for joint in self.joints]]
        return places + [place for place in scores if place is not None]


def plan_columns(header: Header, where: str) -> Plan:
    """Tell what the columns are.

    Raises:
        ValueError: two columns could both be the same thing (both named), or the names are neither those of a table
            with a row a joint nor those of one with a row a frame, or of both.
    """
    names = header.names
    if all(re.fullmatch(r"[-+]?[\d.,]*\d(e[-+]?\d+)?", name, re.IGNORECASE) for name in names if name):
        raise ValueError(
            f"{where}, line {header.line}: numbers, expected the names of the columns; put a line above the first: "
            f"{LONG} or {WIDE}"
        )
    plan = Plan()
    parts = (
        [part_of(name) for name in names]
        if header.paths is None
        else [part_of_path(path) for path in header.paths]
    )
    parts = without_box(with_first_number(parts, names), names)
    plan.joints = _joints(parts, names, where)
    used = {place for joint in plan.joints for place in (*joint.axes, joint.score)}
    _find_roles(plan, names, used, where)
    if header.paths is not None:
        # Rows are named by frames, or by folder, video and image.
        rows = [place for place, path in enumerate(header.paths) if not any(path)]
        plan.roles |= dict(zip(("frame", "clip"), reversed(rows), strict=False))
    axes = _axes(names, parts, where) if "joint" in plan.roles else {}
    _choose_form(plan, axes, parts, names, f"{where}, line {header.line}")
    units = {parts[place].unit for place in plan.numbers if parts[place] and parts[place].value in "xyz"}  # type: ignore[union-attr]
    if len(units) > 1 and units & set(UNITS):
        raise ValueError(
            f"{where}: the columns of coordinates are in several units: {', '.join(sorted(filter(None, units)))}"
            f"{' and none' if '' in units else ''}; write all in one"
        )
    # Words in brackets that differ tell joints, and no unit.
    plan.unit = next(iter(units)) if len(units) == 1 else ""
    used = {*plan.numbers, *plan.roles.values(), *plan.splits.values()}
    plan.others = [place for place in range(len(names)) if place not in used]
    return plan


def _choose_form(
    plan: Plan, axes: Mapping[str, int], parts: Sequence[Part | None], names: Sequence[str], where: str
) -> None:
    """Keep what belongs to the form of the table, a row a joint or a row a frame."""
    is_long = "joint" in plan.roles and {"x", "y"} <= set(axes)
    if is_long and len(plan.joints) > 2:
        raise ValueError(
            f"{where}: the columns are those of two forms, {names[plan.roles['joint']]!r} with "
            f"{names[axes['x']]!r} and {names[plan.joints[0].axes[0]]!r}; keep {LONG} or {WIDE}"
        )
    if is_long:
        plan.joints = []
        plan.axes = tuple(axes[axis] for axis in "xyz" if axis in axes)
        scores = [
            (part.rank, place)
            for place, part in enumerate(parts)
            if part and part.value == "score" and not part.joint
        ]
        plan.score = _one(scores, names, where, "the confidence")
        return
    if len(plan.joints) > 1:
        plan.roles.pop("joint", None)
        return
    lacking = [role for role in ("joint", *"xy") if role not in {**plan.roles, **axes}]
    told = f"no column {lacking[0]!r}, " if len(lacking) == 1 else ""
    raise ValueError(
        f"{where}: {told}the columns are {_shown(names)}; expected {LONG} or {WIDE}; rename the columns so"
    )


def _shown(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(name or "(no name)" for name in names[:most]) + (", ..." if len(names) > most else "")


def _plain(name: str) -> str:
    """Return a name without case, separators, and a unit in brackets."""
    return re.sub(r"[\W_]+", "", re.sub(r"\(.*?\)|\[.*?\]", "", name)).lower()


def _find_roles(plan: Plan, names: Sequence[str], used: Iterable[int | None], where: str) -> None:
    """Find the columns that are not those of joints."""
    taken = {place for place in used if place is not None}
    free = {place: _plain(name) for place, name in enumerate(names) if place not in taken}
    for place, name in free.items():
        word = re.sub(r"[\W_]+", "_", names[place]).strip("_").lower()
        if name in _SPLITS or name in ("istrain", "istraining"):
            key = "own" if name.startswith("is") else "official"
        elif found := re.fullmatch(r"split_(\w+)|(\w+)_split", word):
            key = found[1] or found[2]
        else:
            continue
        other = plan.splits.setdefault(key, place)
        if other != place:
            raise _both(names, other, place, where, "the split")
    for role, tiers in _ROLES.items():
        fitting = [
            (tier, place)
            for place, name in free.items()
            for tier, spellings in enumerate(tiers[:1] if role == "joint" and plan.joints else tiers)
            if name in spellings and place not in plan.roles.values()
        ]
        chosen = _one(fitting, names, where, f"the {role}")
        if chosen is not None:
            plan.roles[role] = chosen
    times = {
        place: _time_unit(names[place]) for place, name in free.items() if name and _TIME.fullmatch(name)
    }
    times = {place: unit for place, unit in times.items() if place not in plan.roles.values()}
    if times:
        # A time with its unit says more than one without.
        plan.roles["time"] = min(times, key=lambda place: times[place] is None)
        plan.time_unit = times[plan.roles["time"]]
    if {"frame", "time"}.isdisjoint(plan.roles):
        index = next((place for place, name in free.items() if name in ("", "index", "unnamed0")), None)
        if index is not None:
            plan.roles["frame"] = index


def _time_unit(name: str) -> float | None:
    """Return the seconds of the unit that the name of a column of times states, or None."""
    words = re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).strip(")] ").lower())
    end = re.search(r"(?:ms|msec|us|usec|ns|milliseconds|microseconds|nanoseconds|seconds)$", words[-1])
    return _SECONDS.get(end[0] if end else words[-1])


def _one(fitting: Sequence[tuple[int, int]], names: Sequence[str], where: str, what: str) -> int | None:
    """Return the one column of the earliest tier; of a name and a number of one thing, the name.

    Raises:
        ValueError: two columns of a tier could both be it.
    """
    if not fitting:
        return None
    best = [place for tier, place in fitting if tier == min(fitting)[0]]
    named = [place for place in best if re.search(r"name$|.label$", _plain(names[place]))]
    if len(best) > 1 and len(named) == 1:
        best = named
    if len(best) > 1:
        raise _both(names, best[0], best[1], where, what)
    return best[0]


def _both(names: Sequence[str], one: int, other: int, where: str, what: str) -> ValueError:
    if names[one].strip().lower() == names[other].strip().lower():
        return ValueError(f"{where}: column {names[one]!r} occurs twice; rename or remove one")
    return ValueError(
        f"{where}: columns {names[one]!r} and {names[other]!r} could both be {what}; rename or remove one"
    )


def _axes(names: Sequence[str], parts: Sequence[Part | None], where: str) -> dict[str, int]:
    """Return the columns of x, y and z of a table with a row a joint."""
    found: dict[str, int] = {}
    for place, part in enumerate(parts):
        if part and not part.joint and part.value in ("x", "y", "z"):
            other = found.setdefault(part.value, place)
            if other != place:
                raise _both(names, other, place, where, part.value)
    return found


def _joints(parts: Sequence[Part | None], names: Sequence[str], where: str) -> list[JointColumns]:
    """Return the joints of a table with a row a frame: those that have x and y."""
    values: dict[tuple[str, str], dict[str, int]] = {}
    scores: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for place, part in enumerate(parts):
        if part is None or not part.joint:
            continue
        key = part.body, part.joint
        if part.value == "score":
            scores.setdefault(key, []).append((part.rank, place))
            continue
        other = values.setdefault(key, {}).setdefault(part.value, place)
        if other != place:
            raise _both(names, other, place, where, f"{part.value} of {part.joint}")
    whole = {key: found for key, found in values.items() if {"x", "y"} <= set(found)}
    deep = [key for key, found in whole.items() if "z" in found]
    if deep and len(deep) < len(whole):
        flat = next(key for key in whole if key not in deep)
        raise ValueError(
            f"{where}: {deep[0][1]!r} has x, y and z, {flat[1]!r} has x and y only; give all joints the same columns"
        )
    return [
        JointColumns(
            *key,
            tuple(found[axis] for axis in "xyz" if axis in found),
            _one(scores.get(key, []), names, where, f"the confidence of {key[1]}"),
        )
        for key, found in whole.items()
    ]
