"""NTU RGB+D 60 and 120: ``.skeleton`` text files of the Kinect v2.

A file is a frame count; for each frame a body count; for each body a line of 10 numbers, of which the first is the
body's number, a joint count (25), and for each joint a line of 12: x y z, two pairs of image coordinates, four of
orientation, and the tracking state (0 not tracked, 1 inferred, 2 tracked).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...packed.dataset import PackedSkeletons
from ..common import ntu_protocols
from ..common.reader import Damage, Reader, Reading, Source
from ..common.sources import DamagedFile, Listing, whole_file
from ..common.text_numbers import NumberText, as_float32, read_numbers
from .bodies import RECIPE, BodyChoice, Track, body_arrays, choose_bodies
from .raw import Found, RawClip, RawSet, Task, without_copies

JOINTS = 25
_BODY_NUMBERS, _JOINT_NUMBERS = 10, 12
_STATE = 11
_ENDING = ".skeleton"
# github.com/shahroudy/NTURGB-D, NTU_RGBD_samples_with_missing_skeletons.txt and NTU_RGBD120_...
_INCOMPLETE = {60: 302, 120: 535}


@dataclass(frozen=True)
class NtuReader:
    """Reads NTU RGB+D.

    Args:
        actions: 60 or 120, which of the two data sets.
        choice: how to choose the people of a clip.
        min_state: joints with a lower tracking state are marked as not seen: 1 marks those that are not tracked, 2
            also those that are inferred; 0 marks none, and the data set has no mask.
        skip: clips to leave out, such as the authors' list of samples with missing skeletons.
    """

    actions: int = 60
    choice: BodyChoice = RECIPE
    min_state: int = 0
    skip: frozenset[str] = frozenset()

    suffixes: ClassVar[tuple[str, ...]] = (_ENDING,)
    layout: ClassVar[str] = "ntu25"
    fps: ClassVar[float] = 30.0
    column_names: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        if self.actions not in ntu_protocols.SETUPS:
            raise ValueError(f"actions is {self.actions}, expected 60 or 120")
        if self.min_state not in (0, 1, 2):
            raise ValueError(f"min_state is {self.min_state}, expected 0, 1 or 2")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes; class 0 is A001."""
        return ntu_protocols.ACTIONS[: self.actions]

    @property
    def notes(self) -> tuple[dict[str, Any], ...]:
        """How the bodies were chosen, and where the mask of joints comes from."""
        bodies = {"name": "note", "about": "bodies", **self.choice.to_dict()}
        validity = {
            "name": "note",
            "about": "validity",
            "source": "tracking state",
            "min_state": self.min_state,
        }
        return (bodies, validity) if self.min_state else (bodies,)

    def find(self, listing: Listing) -> Found:
        """Say which files to read, one a clip."""
        found = Found([], self._finish)
        for entry in without_copies(listing.entries, found.left_out):
            name = entry.base[: -len(_ENDING)]
            parsed = ntu_protocols.ClipName.parse(name)
            if parsed is None:
                found.damaged.append(
                    Damage(str(entry), "its name is not of the form SsssCcccPpppRrrrAaaa.skeleton")
                )
            elif not parsed.belongs(self.actions):
                found.left_out[str(entry)] = f"is no clip of NTU-{self.actions}"
            elif name in self.skip:
                found.dropped[name] = "in the list of clips to skip"
            else:
                found.tasks.append(Task(name, (entry,)))
        if not self.skip:
            found.notes.append(
                f"no list of clips to skip is given: of the {_INCOMPLETE[self.actions]} that the authors list as "
                f"missing or incomplete only those without a body are left out; published numbers leave out all"
            )
        return found

    def read(self, task: Task) -> list[RawClip]:
        """Read a clip."""
        name = ntu_protocols.ClipName.parse(task.name)
        assert name is not None  # find() takes no others
        frames, tracks = parse(task.entries[0].read(), min_state=self.min_state)
        coords, valid = body_arrays(choose_bodies(tracks, self.choice), frames, JOINTS, 3)
        return [RawClip(task.name, coords, name.action - 1, name.columns(), valid)]

    def _finish(self, data: PackedSkeletons) -> PackedSkeletons:
        return dataclasses.replace(data, splits=ntu_protocols.splits(data.columns, self.actions))


def read_clip(source: Source) -> Reading:
    """Read one file, whatever it is called, with the recipe for choosing its people; the label is unknown.

    Raises:
        OSError: the file cannot be opened.
        DamagedFile: it is no such file (in which line).
        ValueError: it shows nobody.
    """
    frames, tracks = parse(whole_file(source.path))
    coords, _ = body_arrays(choose_bodies(tracks, RECIPE), frames, JOINTS, 3)
    data = PackedSkeletons.from_clips(
        [coords], layout=NtuReader.layout, fps=NtuReader.fps, names=[source.path.stem]
    )
    return Reading(data)


_TEXT = "a folder with .skeleton files, the downloaded zip archives, or a folder with those"
SETS = (RawSet("ntu60", NtuReader, 60, _TEXT), RawSet("ntu120", NtuReader, 120, _TEXT))
READER = Reader("ntu-clip", NtuReader.suffixes, read_clip, title="a clip of NTU RGB+D")


def parse(content: bytes, *, min_state: int = 0) -> tuple[int, list[Track]]:
    """Read the text of a ``.skeleton`` file.

    Args:
        content: the file.
        min_state: as in :class:`NtuReader`.

    Returns:
        The number of frames, and the tracked bodies in the order in which they appear. A number that occurs twice
        in a frame is two bodies.

    Raises:
        DamagedFile: the text is not such a file, with the line where it departs.
    """
    text = read_numbers(content)
    frames, bodies = _Walk(text).bodies()
    if not bodies:
        return frames, []
    first = np.array([line + 2 for _, line in bodies])
    starts = text.first[first[:, None] + np.arange(JOINTS)]
    coords = as_float32(text.values[starts[..., None] + np.arange(3)])
    finite = np.isfinite(coords).all(axis=2)
    if not finite.all():
        body, joint = np.argwhere(~finite)[0]
        line = text.lines[first[body] + joint]
        raise DamagedFile(f"joint {joint} of frame {bodies[body][0]} is not finite", int(line))
    valid = None if min_state == 0 else _valid(text, first, starts, min_state)
    return frames, _tracks(text, bodies, coords, valid)


def _valid(text: NumberText, first: np.ndarray, starts: np.ndarray, min_state: int) -> np.ndarray:
    """Return ``(bodies, joints)`` bool: whether the tracking state is at least ``min_state``."""
    state = text.values[starts + _STATE]
    wrong = ~np.isin(state, (0, 1, 2))
    if wrong.any():
        body, joint = np.argwhere(wrong)[0]
        line = text.lines[first[body] + joint]
        raise DamagedFile(f"tracking state is {state[body, joint]:g}, expected 0, 1 or 2", int(line))
    return state >= min_state


def _tracks(
    text: NumberText, bodies: Sequence[tuple[int, int]], coords: np.ndarray, valid: np.ndarray | None
) -> list[Track]:
    """Group bodies by their number, which is read as text: it has more digits than a float64 holds."""
    rows: dict[tuple[bytes, int], list[int]] = {}
    seen: dict[bytes, int] = {}
    frame_before = -1
    for row, (frame, line) in enumerate(bodies):
        if frame != frame_before:
            seen, frame_before = {}, frame
        number = text.word(int(text.first[line]))
        seen[number] = seen.get(number, 0) + 1
        rows.setdefault((number, seen[number]), []).append(row)
    frames = np.array([frame for frame, _ in bodies])
    return [
        Track(frames[chosen], coords[chosen], None if valid is None else valid[chosen])
        for chosen in rows.values()
    ]


class _Walk:
    """Goes through the lines of a file; nothing is set aside for what the file merely claims."""

    def __init__(self, text: NumberText) -> None:
        self._text = text
        self._counts: list[int] = text.counts.tolist()
        self._heads: list[float] = text.values[text.first].tolist()
        self._place = 0

    def bodies(self) -> tuple[int, list[tuple[int, int]]]:
        """Return the number of frames, and of each body its frame and the index of its first line."""
        frames = self._whole_number("frame count", "at the start")
        found: list[tuple[int, int]] = []
        for frame in range(frames):
            where = f"in frame {frame} of {frames}"
            for _ in range(self._whole_number("body count", where)):
                found.append((frame, self._place))
                self._body(where)
        if self._place < len(self._counts):
            raise self._damage(f"goes on after its {frames} frames; the frame count or a body count is wrong")
        return frames, found

    def _body(self, where: str) -> None:
        self._expect(_BODY_NUMBERS, "a body's numbers", where)
        joints = self._whole_number("joint count", where)
        if joints != JOINTS:
            self._place -= 1
            raise self._damage(f"joint count is {joints}, expected {JOINTS}")
        block = self._counts[self._place : self._place + JOINTS]
        if block.count(_JOINT_NUMBERS) == JOINTS:
            self._place += JOINTS
            return
        for joint in range(JOINTS):
            self._expect(_JOINT_NUMBERS, f"joint {joint}", where)

    def _whole_number(self, what: str, where: str) -> int:
        self._expect(1, f"the {what}", where)
        value = self._heads[self._place - 1]
        if not (value >= 0 and value.is_integer()):
            self._place -= 1
            raise self._damage(f"{what} is {value:g}, expected a whole number from 0")
        return int(value)

    def _expect(self, count: int, what: str, where: str) -> None:
        if self._place >= len(self._counts):
            raise DamagedFile(f"ends {where}, where {what} should be", int(self._text.lines[-1]))
        if self._counts[self._place] != count:
            numbers = "1 number" if count == 1 else f"{count} numbers"
            raise self._damage(f"has {self._counts[self._place]}, expected {numbers}, {what}, {where}")
        self._place += 1

    def _damage(self, reason: str) -> DamagedFile:
        return DamagedFile(reason, int(self._text.lines[self._place]))
