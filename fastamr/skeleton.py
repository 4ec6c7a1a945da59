"""Skeleton layouts: which joints a body has, how they hang together, which are left and right.

25 layouts are built in (:data:`LAYOUTS`); :meth:`SkeletonLayout.from_joints` makes one from a data set's
joint names, finding left and right, hips and spine by name, and :func:`get_layout` reads one from a YAML or JSON file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from .errors import shortened, unknown_name
from .layouts import PARTS, TREES
from .layouts.file import is_layout_file, read_layout_file

__all__ = ["BODY", "LAYOUTS", "SkeletonLayout", "get_layout", "is_body"]

MAX_JOINTS = 4_096
"""Most joints of a layout (choice): whole-body skeletons have 136, body models of markers some hundreds."""


@dataclass(frozen=True)
class SkeletonLayout:
    """The joints of one body and the tree that they form.

    Args:
        name: the layout's name, for example ``"ntu25"``.
        joints: the ``V`` joint names, in the order of the coordinates.
        parents: for each joint the index of its parent, ``-1`` for a root.
        pairs: ``(left, right)`` indices of joints that mirror each other.
        hips: ``(left, right)`` hip joints, or None where the layout has none.
        spine: ``(lower, upper)`` joints whose line is the trunk, or None. In the built-in layouts and in
            :meth:`from_joints` it leads from the joint where the legs meet to the joint where the arms meet
            (choice: the longest trunk line is the least noisy one).

    Raises:
        ValueError: lengths differ, a name occurs twice, an index is out of range, or the parents form a
            cycle.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    hips: tuple[int, int] | None = None
    spine: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        as_tuples: dict[str, Any] = {
            "joints": tuple(str(joint) for joint in self.joints),
            "parents": tuple(_place(parent, f"parents of layout {self.name!r}") for parent in self.parents),
            "pairs": tuple(_two(pair, "pairs") for pair in self.pairs),
            "hips": None if self.hips is None else _two(self.hips, "hips"),
            "spine": None if self.spine is None else _two(self.spine, "spine"),
        }
        for field, value in as_tuples.items():
            object.__setattr__(self, field, value)
        self._check_joints()
        for field, pairs in (("pairs", self.pairs), ("hips", (self.hips,)), ("spine", (self.spine,))):
            for pair in pairs:
                self._check_pair(field, pair)

    @property
    def _where(self) -> str:
        return f"layout {self.name!r}"

    def _check_joints(self) -> None:
        count = len(self.joints)
        if count == 0:
            raise ValueError(f"{self._where}: joints is empty, expected at least one joint name")
        if count > MAX_JOINTS:
            raise ValueError(f"{self._where}: joints has {count} names, expected at most {MAX_JOINTS}")
        if len(self.parents) != count:
            raise ValueError(
                f"{self._where}: parents has {len(self.parents)} entries, expected {count}, one a joint"
            )
        twice = {joint for joint in self.joints if self.joints.count(joint) > 1}
        if twice:
            raise ValueError(f"{self._where}: joint names must differ, {sorted(twice)} occur more than once")
        for joint, parent in enumerate(self.parents):
            if not -1 <= parent < count:
                raise ValueError(
                    f"{self._where}: parents[{joint}] is {parent}, expected -1 or an index below {count}"
                )
        for joint in range(count):
            self._ancestors(joint)

    def _check_pair(self, field: str, pair: tuple[int, int] | None) -> None:
        if pair is None:
            return
        if pair[0] == pair[1] or not all(0 <= joint < self.num_joints for joint in pair):
            raise ValueError(
                f"{self._where}: {field} holds {pair}, expected two different joint indices "
                f"below {self.num_joints}"
            )

    def _ancestors(self, joint: int) -> tuple[int, ...]:
        """Return ``joint`` and its ancestors up to the root."""
        path: list[int] = []
        while joint != -1:
            if joint in path:
                loop = " -> ".join(self.joints[j] for j in [*path, joint])
                raise ValueError(f"{self._where}: parents form a cycle ({loop}), expected a tree")
            path.append(joint)
            joint = self.parents[joint]
        return tuple(path)

    @property
    def num_joints(self) -> int:
        """``V``, the number of joints."""
        return len(self.joints)

    @property
    def root(self) -> int:
        """The first joint without a parent."""
        return self.parents.index(-1)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """``(child, parent)`` of every bone, by child."""
        return tuple((joint, parent) for joint, parent in enumerate(self.parents) if parent != -1)

    @cached_property
    def degrees(self) -> tuple[int, ...]:
        """How many bones meet in each joint."""
        ends = [joint for edge in self.edges for joint in edge]
        return tuple(ends.count(joint) for joint in range(self.num_joints))

    @cached_property
    def shoulders(self) -> tuple[int, int] | None:
        """``(left, right)`` shoulder joints, found by name, or None; for layouts without a spine."""
        return _find_pair(self.joints, self.pairs, _SHOULDER_PATTERNS)

    def index(self, joint: str | int) -> int:
        """Return a joint's index from its name or index.

        Raises:
            ValueError: no joint has that name (with the nearest one) or index.
        """
        if isinstance(joint, str):
            if joint not in self.joints:
                raise unknown_name(f"joint of layout {self.name!r}", joint, self.joints)
            return self.joints.index(joint)
        if not 0 <= joint < self.num_joints:
            raise ValueError(f"joint {joint}: layout {self.name!r} has joints 0 to {self.num_joints - 1}")
        return joint

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SkeletonLayout:
        """Build a layout from :meth:`to_dict`'s dictionary (lists instead of tuples are fine).

        Raises:
            ValueError: a field is missing or unknown, or the layout is not valid.
        """
        known = ("name", "joints", "parents", "pairs", "hips", "spine")
        for field in fields:
            if field not in known:
                raise unknown_name("field of a skeleton layout", field, known)
        missing = [field for field in known[:3] if field not in fields]
        if missing:
            raise ValueError(f"skeleton layout: {', '.join(missing)} is missing, got {sorted(fields)}")
        return cls(**fields)

    @classmethod
    def from_joints(cls, name: str, joints: Sequence[str], parents: Sequence[int]) -> SkeletonLayout:
        """Make a layout from joint names and parents; pairs, hips and spine are found by name.

        Left and right are recognised as ``left``/``right`` anywhere, as a single ``L``/``R`` set off by an
        underscore or by case (``Hand_L``, ``LHip``), or as a prefix of a word (``lfemur``); a joint is paired
        only when the mirrored name exists. The spine leads from the nearest common ancestor of the hips to
        that of the shoulders. A built-in layout with the same joints and parents is returned as it is, under
        its own name.

        Raises:
            ValueError: as the constructor.
        """
        known = _matching_layout(joints, parents)
        if known is not None:
            return known
        pairs = _mirrored_pairs(joints)
        bare = cls(name, tuple(joints), tuple(parents), pairs)
        hips = _find_pair(bare.joints, pairs, _HIP_PATTERNS)
        ends = (bare._common_ancestor(hips), bare._common_ancestor(bare.shoulders))
        spine = None if None in ends or ends[0] == ends[1] else ends
        return cls(name, bare.joints, bare.parents, pairs, hips, spine)  # type: ignore[arg-type]

    def _common_ancestor(self, pair: tuple[int, int] | None) -> int | None:
        """Return the nearest ancestor that both joints share, or None."""
        if pair is None:
            return None
        others = self._ancestors(pair[1])
        return next((joint for joint in self._ancestors(pair[0]) if joint in others), None)


def _two(pair: Sequence[int], field: str) -> tuple[int, int]:
    if len(pair) != 2:
        raise ValueError(f"{field} holds {pair!r}, expected two joint indices")
    return _place(pair[0], field), _place(pair[1], field)


def _place(value: Any, field: str) -> int:
    """Return a joint's index as an ``int``, or raise ``ValueError``."""
    try:
        return int(value)
    except (OverflowError, ValueError, TypeError):
        raise ValueError(f"{field} holds {shortened(value)}, expected joint indices") from None


# The first pattern that fits decides, then the first pair: joints come from the root outwards.
_HIP_PATTERNS = (r"hip", r"upper_?leg|up_?leg|thigh|femur")
_SHOULDER_PATTERNS = (r"shoulder", r"clavicle|collar", r"upper_?arm|humerus")

_MIRRORS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"(?i)left", lambda found: _like(found[0], "right")),
    (r"(?<![A-Za-z])[lL](?![A-Za-z])", lambda found: _like(found[0], "r")),
    (r"(?<![A-Za-z])L(?=[A-Z])", "R"),
    (r"(?<=[a-z])L$", "R"),
    (r"(?<![A-Za-z])l(?=[a-z])", "r"),
)


def _like(model: str, word: str) -> str:
    """Return ``word`` in the case of ``model``."""
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


def _mirrored_pairs(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the ``(left, right)`` indices of the joints whose mirrored name exists too."""
    index = {joint: place for place, joint in enumerate(joints)}
    pairs = []
    for place, joint in enumerate(joints):
        mirrored = (re.sub(pattern, right, joint) for pattern, right in _MIRRORS)
        found = next((index[other] for other in mirrored if other != joint and other in index), None)
        if found is not None:
            pairs.append((place, found))
    return tuple(pairs)


def _find_pair(
    joints: Sequence[str], pairs: Sequence[tuple[int, int]], patterns: Sequence[str]
) -> tuple[int, int] | None:
    """Return the first pair whose left joint fits the earliest possible pattern."""
    for pattern in patterns:
        for pair in pairs:
            if re.search(pattern, joints[pair[0]], re.IGNORECASE):
                return pair
    return None


def _matching_layout(joints: Sequence[str], parents: Sequence[int]) -> SkeletonLayout | None:
    """Return the built-in layout with these joints (case and separators aside) and parents, or None."""

    def plain(names: Sequence[str]) -> list[str]:
        return [re.sub(r"[^a-z0-9]", "", str(joint).lower()) for joint in names]

    for layout in LAYOUTS.values():
        same_tree = list(layout.parents) == [_place(parent, "parents") for parent in parents]
        if same_tree and plain(layout.joints) == plain(joints):
            return layout
    return None


def _built_in(name: str, tree: str) -> SkeletonLayout:
    """Make a built-in layout from its text, see :data:`~fastamr.layouts.TREES`."""
    entries = [entry.split("<") for entry in tree.split()]
    joints = [entry[0] for entry in entries]
    parents = [joints.index(entry[1]) if len(entry) == 2 else -1 for entry in entries]
    layout = SkeletonLayout.from_joints(name, joints, parents)
    # Points of a face have no side in their names, but in their parts.
    sides = {part: joint for joint, part in (entry.split("=") for entry in PARTS[name].split())}
    paired = {place for pair in layout.pairs for place in pair}
    by_parts = [
        (joints.index(joint), joints.index(sides[part.replace("left", "right", 1)]))
        for part, joint in sides.items()
        if part.startswith("left_") and joints.index(joint) not in paired
    ]
    return replace(layout, pairs=layout.pairs + tuple(sorted(by_parts)))


LAYOUTS: dict[str, SkeletonLayout] = {}
"""The built-in layouts by name."""
for _name, _tree in TREES.items():
    LAYOUTS[_name] = _built_in(_name, _tree)


BODY = LAYOUTS["body"]
"""The parts of a body, to which the joints of any other layout belong; no sensor gives it, so that none is guessed."""


def is_body(layout: SkeletonLayout) -> bool:
    """Return whether a layout is :data:`BODY`, whose joints may be there in one sequence and not in another."""
    return layout == BODY


def get_layout(layout: str | SkeletonLayout) -> SkeletonLayout:
    """Return a built-in layout by name, or the layout of a file; a layout passes through unchanged.

    Args:
        layout: a built-in layout's name, the path of a ``.yaml``, ``.yml`` or ``.json`` file
            (:func:`~fastamr.layouts.file.read_layout_file`), or a layout. Pairs, hips and spine that a file does not
            give are found by name, as :meth:`SkeletonLayout.from_joints` does.

    Raises:
        ValueError: the name is unknown (with the nearest one), or the file is not sound.
        FileNotFoundError: there is no such file.
        TypeError: ``layout`` is neither a name nor a layout.
    """
    if isinstance(layout, SkeletonLayout):
        return layout
    if not isinstance(layout, str):
        raise TypeError(f"layout must be a name or a SkeletonLayout, got {type(layout).__name__}")
    if layout in LAYOUTS:
        return LAYOUTS[layout]
    if is_layout_file(layout):
        return _from_file(layout)
    unknown = str(unknown_name("layout", layout, LAYOUTS))
    raise ValueError(
        f"{unknown}{'' if unknown.endswith('?') else '.'} A layout of your own is a file: give NAME.yaml with joints "
        f"and parents; fastamr layouts lists the built-in ones"
    )


def _from_file(path: str) -> SkeletonLayout:
    """Return the layout of a file, the built-in one where it is the same."""
    fields = read_layout_file(path)
    try:
        layout = SkeletonLayout.from_joints(fields["name"], fields["joints"], fields["parents"])
        given = {field: fields[field] for field in ("pairs", "hips", "spine") if field in fields}
        layout = replace(layout, **given)
    except ValueError as error:
        raise ValueError(f"layout file {path}: {error}") from None
    if layout.name in LAYOUTS and layout != LAYOUTS[layout.name]:
        raise ValueError(
            f"layout file {path}: field 'name' is {layout.name!r}, which is a built-in layout of other joints; choose "
            f"another name"
        )
    return layout
