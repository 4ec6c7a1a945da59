"""BVH (Biovision hierarchy): a tree of joints with offsets, and each frame's angles; positions follow by kinematics.

``HIERARCHY`` lists ``ROOT`` and ``JOINT`` with ``OFFSET`` and ``CHANNELS``, ``MOTION`` has ``Frames:``, ``Frame Time:``
and a line of channels a frame, angles in degrees. Rotations apply in the order of the channels; positions replace the
offset (as in LAFAN1 and in files with six channels a joint). The ends of the chains (``End Site``) are no joints here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons
from ..common.layout_choice import Joints, joints_by_name
from ..common.reader import Reader, Reading, Source
from ..common.sources import whole_file

# A line may hold several; what follows ROOT or JOINT is a name, whatever it is.
_STATEMENTS = re.compile(r"([{}])|(?<!ROOT )(?<!JOINT )(?=\b(?:JOINT|OFFSET|CHANNELS|MOTION)\b)")
MAX_JOINTS = 1000
"""More joints than any skeleton has (choice)."""
FREE_PLACES = 10_000_000
MAX_STRETCH = 30
"""A file of ``n`` numbers may have ``FREE_PLACES + MAX_STRETCH * n`` places of joints in its frames (choice): joints
without channels cost it nothing, and must not fill the memory."""

_KINDS = {f"{axis}{kind}" for axis in "XYZ" for kind in ("POSITION", "ROTATION")}


def read(source: Source, *, layout: str | SkeletonLayout | None = None) -> Reading:
    """Read a file as one clip of one body.

    Positions stay in the file's unit, which BVH does not tell; y points up by custom.

    Args:
        source: the file.
        layout: a skeleton whose joints bear the file's names; None keeps the file's tree, or takes the built-in layout
            of just these names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or cut off (which line, and why), or the layout does not fit.
    """
    source.check()
    tree, motion, frame_time = _Text(source.path).parse()
    coords = positions(tree, motion)
    found = _skeleton(tree, layout, source.path)
    points, seen = found.take(coords, np.ones(coords.shape[:2], dtype=bool))
    data = PackedSkeletons.from_clips(
        [points[:, None]],
        layout=found.layout,
        fps=1 / frame_time if frame_time > 0 else None,
        names=[source.path.stem],
        valid=None if seen.all() else [seen[:, None]],
    )
    height = float(np.median(np.ptp(coords, axis=1).max(axis=1)))
    size = f"BVH tells no unit of length; the body spans {height:.3g} units (in metres it would be about 1.7)"
    return Reading(data, notes=[*found.notes, size])


READER = Reader("bvh", (".bvh",), read, title="motion capture, BVH")


@dataclass
class Tree:
    """The joints of a file.

    Args:
        names: ``V`` names, without the name of the character before a colon.
        parents: ``V`` indices, -1 = the root.
        offsets: ``V`` triples, from the parent.
        channels: for each joint its channels in order, ``XPOSITION``, ``ZROTATION``, ...
    """

    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)


def positions(tree: Tree, motion: np.ndarray) -> np.ndarray:
    """Return where the joints are, by forward kinematics.

    Args:
        tree: the joints, parents first.
        motion: ``(T, channels)`` float64, degrees and lengths.

    Returns:
        ``(T, V, 3)`` float64, in the file's unit.
    """
    frames, places = len(motion), np.zeros((len(motion), len(tree.names), 3))
    turns = np.zeros((frames, len(tree.names), 3, 3))
    column = 0
    for joint, (parent, offset, channels) in enumerate(
        zip(tree.parents, tree.offsets, tree.channels, strict=True)
    ):
        values = motion[:, column : column + len(channels)]
        column += len(channels)
        place, turn = np.tile(np.array(offset), (frames, 1)), np.tile(np.eye(3), (frames, 1, 1))
        for channel, value in zip(channels, values.T, strict=True):
            if channel.endswith("POSITION"):
                place[:, "XYZ".index(channel[0])] = value
            else:
                turn = (
                    turn @ Rotation.from_euler(channel[0].lower(), value[:, None], degrees=True).as_matrix()
                )
        if parent < 0:
            places[:, joint], turns[:, joint] = place, turn
        else:
            places[:, joint] = places[:, parent] + np.einsum("tij,tj->ti", turns[:, parent], place)
            turns[:, joint] = turns[:, parent] @ turn
    return places


def _skeleton(tree: Tree, layout: str | SkeletonLayout | None, path: Path) -> Joints:
    """Return the skeleton; a root without a place of its own (Bandai-Namco's ``joint_Root``) may be left out."""
    own_name = f"bvh{len(tree.names)}"
    whole = joints_by_name(tree.names, str(path), given=layout, parents=tree.parents, own_name=own_name)
    if (
        layout is not None
        or whole.layout.name != own_name
        or len(tree.names) < 2
        or tree.parents.count(0) != 1
    ):
        return whole
    rest = joints_by_name(
        tree.names[1:], str(path), parents=[parent - 1 for parent in tree.parents[1:]], own_name=own_name
    )
    if rest.layout.name == own_name:
        return whole
    notes = (*rest.notes, f"joint {tree.names[0]} is no joint of {rest.layout.name}, left out")
    return Joints(rest.layout, tuple(place + 1 if place >= 0 else place for place in rest.order), notes)


class _Text:
    """The lines of a file, read one after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Names may be in any encoding; everything that counts is ASCII.
        self.lines = whole_file(path).decode("utf-8-sig", errors="replace").splitlines()
        self.line = 0
        self._rest: list[str] = []

    def parse(self) -> tuple[Tree, np.ndarray, float]:
        """Return the tree, the motion ``(T, channels)`` and the seconds between frames."""
        if self._next("HIERARCHY")[0].upper() != "HIERARCHY":
            raise self._error("expected HIERARCHY, the first word of a BVH file")
        tree = self._tree()
        frames, frame_time = self._count(), self._frame_time()
        columns = sum(map(len, tree.channels))
        rows = [row for row in self.lines[self.line :] if row.strip()]
        if len(rows) != frames:
            raise self._error(
                f"Frames says {frames}, but {len(rows)} lines of channels follow; the file is cut off or was edited"
            )
        if frames * len(tree.names) > FREE_PLACES + MAX_STRETCH * frames * columns:
            raise self._error(
                f"{frames} frames of {len(tree.names)} joints, but {columns} channels a frame; give the joints channels"
            )
        motion = np.empty((frames, columns))
        for place, row in enumerate(rows):
            self.line += 1
            motion[place] = self._numbers(row.split(), columns, "channels")
        return tree, motion, frame_time

    def _tree(self) -> Tree:
        tree, ended = Tree(), False
        open_joints: list[int] = []
        while True:
            words = self._next("MOTION")
            key = words[0].upper()
            if key == "MOTION":
                break
            if key in ("ROOT", "JOINT"):
                if not open_joints and tree.names:
                    raise self._error(f"a second {key}; save each skeleton in a file of its own")
                self._add(tree, " ".join(words[1:]), open_joints[-1] if open_joints else -1)
            elif key == "END":
                ended = True
            elif key == "{":
                open_joints.append(-1 if ended else len(tree.names) - 1)
                ended = False
            elif key == "}":
                if not open_joints:
                    raise self._error("a } without its {")
                open_joints.pop()
            elif key in ("OFFSET", "CHANNELS"):
                if open_joints and open_joints[-1] >= 0:
                    self._describe(tree, open_joints[-1], key, words[1:])
            else:
                raise self._error(
                    f"{words[0][:40]!r}, expected ROOT, JOINT, End Site, OFFSET, CHANNELS or MOTION"
                )
        if open_joints or not tree.names or any(len(offset) != 3 for offset in tree.offsets):
            raise self._error("the hierarchy is not complete: a joint lacks its OFFSET, or a { its }")
        return tree

    def _add(self, tree: Tree, name: str, parent: int) -> None:
        name = name.rsplit(":", 1)[-1].strip()
        if not name or len(tree.names) >= MAX_JOINTS:
            raise self._error("a joint without a name" if not name else f"more than {MAX_JOINTS} joints")
        tree.names.append(name)
        tree.parents.append(parent)
        tree.offsets.append([])
        tree.channels.append([])

    def _describe(self, tree: Tree, joint: int, key: str, words: list[str]) -> None:
        if key == "OFFSET":
            tree.offsets[joint] = self._numbers(words, 3, "OFFSET").tolist()
            return
        channels = [word.upper() for word in words[1:]]
        if not words or words[0] != str(len(channels)) or not set(channels) <= _KINDS:
            raise self._error(
                f"CHANNELS {' '.join(words)[:60]!r}, expected their number and names such as Xposition or Zrotation"
            )
        tree.channels[joint] = channels

    def _count(self) -> int:
        found = re.fullmatch(r"(?i)frames\s*:\s*(\d{1,9})", " ".join(self._next("Frames:")))
        if found is None:
            raise self._error("expected 'Frames: N' after MOTION")
        if int(found[1]) == 0:
            raise self._error("Frames: 0; the file holds no motion")
        return int(found[1])

    def _frame_time(self) -> float:
        found = re.fullmatch(r"(?i)frame\s*time\s*:\s*(\S+)", " ".join(self._next("Frame Time:")))
        if found is None:
            raise self._error("expected 'Frame Time: SECONDS'")
        value = float(self._numbers([found[1]], 1, "Frame Time")[0])
        if value < 0:
            raise self._error(f"Frame Time is {value:g}, expected seconds")
        return value

    def _numbers(self, words: list[str], count: int, what: str) -> np.ndarray:
        """Return numbers; blanks stand between them, so that a comma is a decimal one."""
        try:
            values = np.array([word.replace(",", ".") for word in words], dtype=np.float64)
        except ValueError:
            raise self._error(f"{what} holds something that is no number") from None
        if len(values) != count:
            raise self._error(f"{len(values)} {what}, expected {count}")
        if not np.isfinite(values).all():
            raise self._error(f"{what} holds a number that is not finite")
        return values

    def _next(self, expected: str) -> list[str]:
        """Return the words of the next statement."""
        while not self._rest:
            if self.line >= len(self.lines):
                raise self._error(f"the file ends before {expected}")
            self._rest = [part for part in _STATEMENTS.split(self.lines[self.line]) if part and part.strip()]
            self.line += 1
        return self._rest.pop(0).split()

    def _error(self, reason: str) -> ValueError:
        return ValueError(f"{self.path}, line {self.line}: {reason}")
