"""From the people of frames, collected one after another, to a data set: joints, tracks, and what was left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ....skeleton import SkeletonLayout
from ..common.layout_choice import Joints
from ..common.linking import bodies_of
from ..common.poses import Poses, pack_poses, reading_note, seen_from
from ..common.reader import Damage, Reading
from ..common.score_channel import looks_like_score
from .points import Points
from .upright import upright_notes

_FARTHEST = 1e6
"""Coordinates beyond this are no pixels and no millimetres (choice)."""
_SHARES = 2.0
"""2-D coordinates that all lie within this are shares of an image (choice)."""
_LARGE = 10.0
"""No body is so large in metres."""

SHARES_NOTE = (
    "x and y are shares of the image's width and height, whose ratio the file does not tell: bodies are stretched "
    "unless the images are square"
)

Chooser = Callable[[int, int, "tuple[str, ...] | None", "str | SkeletonLayout | None"], Joints]
"""The skeleton by the number of joints, the channels, the joints' names and the layout that was asked for."""


@dataclass(frozen=True)
class Person:
    """A person in a frame.

    Args:
        coords: ``(J, C)`` float32, C 2 or 3.
        confidence: ``(J,)`` float32, or None where the file tells none.
        track: the id that the tool gave, or None.
        names: the joints, or None.
        is_open: whether the third coordinate may be a score.
        unread: what else the person's entry tells.
        what: what the tool says that it is, ``"person"`` or another object; "" = nothing.
    """

    coords: np.ndarray
    confidence: np.ndarray | None = None
    track: str | None = None
    names: tuple[str, ...] | None = None
    is_open: bool = False
    unread: tuple[str, ...] = ()
    what: str = ""


def person_of(
    points: Points,
    where: str,
    *,
    third: str = "open",
    track: str | None = None,
    unread: Sequence[str] = (),
    what: str = "",
) -> Person:
    """Return a person from key points of two to five numbers: x, y; x, y, z or score; x, y, z, score, anything.

    Args:
        points: the key points.
        where: names the person in errors.
        third: what a third number without scores beside it is: ``"score"``, ``"depth"`` or ``"open"``, told later by
            all people's numbers.
        track: see :class:`Person`.
        unread: as well.
        what: as well.

    Raises:
        ValueError: another number of numbers, or of scores.
    """
    values, scores = points.values, points.scores
    count, width = values.shape
    if count == 0 or not 2 <= width <= 5:
        raise ValueError(
            f"{where}: key points of shape {values.shape}, expected 2 to 5 numbers for each joint"
        )
    if scores is not None and len(scores) != count:
        raise ValueError(f"{where}: {len(scores)} scores for {count} joints")
    channels = 2 if width == 2 or (width == 3 and scores is None and third == "score") else 3
    if scores is None and width > channels:
        scores = values[:, channels]
    return Person(
        values[:, :channels],
        scores,
        track,
        points.names,
        is_open=width == 3 and scores is None and third == "open" and not points.has_depth,
        unread=(*unread, *points.unread),
        what=what,
    )


@dataclass
class People:
    """The people that were found so far.

    Args:
        where: the source, for errors.
        choose: see :data:`Chooser`.
        files: how many files were read.
    """

    where: str
    choose: Chooser
    files: int = 1
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: dict[str, None] = field(default_factory=dict)
    label_names: Sequence[str] = ()
    _rows: list[tuple[int, int, Person, str]] = field(default_factory=list)

    def clip(self, name: str, *, fps: float = math.nan, label: int = -1) -> int:
        """Begin a clip and return its number."""
        self.names.append(name)
        self.fps.append(fps)
        self.labels.append(label)
        return len(self.names) - 1

    def add(self, clip: int, frame: int, person: Person, place: str) -> None:
        """Add a person of a frame; ``place`` says where it stands."""
        self._rows.append((clip, frame, person, place))
        self.unread |= dict.fromkeys(person.unread)

    def lose(self, place: str, reason: str) -> None:
        """Leave out a person, a frame or a file."""
        if reason.startswith(place):
            reason = reason[len(place) :].lstrip(":, ")
        self.damaged.append(Damage(place, reason))

    def say(self, *notes: str) -> None:
        """Note what a person must know, once."""
        self.notes += [note for note in notes if note not in self.notes]

    def reading(
        self, *, layout: str | SkeletonLayout | None, min_confidence: float, track: bool, scale: float = 1.0
    ) -> Reading:
        """Return the data set.

        Args:
            layout: the skeleton; None tells it from the joints' names or number.
            min_confidence: joints below it, or of confidence 0, are not seen.
            track: link people without tracks; False refuses them where a frame has several.
            scale: what coordinates are multiplied with, if bodies are larger than 10 units.

        Raises:
            ValueError: nobody was found, the skeleton is not told, or people without tracks are refused.
        """
        seen_from(np.zeros(0), min_confidence)
        self._keep_usual_shape()
        coords, confidence = self._arrays()
        seen = seen_from(confidence, min_confidence)
        if coords.shape[2] == 2:
            # Tools write 0, 0 for a joint that was not found.
            seen &= (coords != 0).any(axis=2)
        sound = self._sound(coords, seen)
        coords, seen = coords[sound], seen[sound]
        rows = [row for row, good in zip(self._rows, sound, strict=True) if good]
        if not rows:
            raise self._nobody()
        joints = self.choose(coords.shape[1], coords.shape[2], rows[0][2].names, layout)
        self.say(*joints.notes)
        coords, seen = joints.take(coords, seen)
        if scale != 1 and _sizes(coords, seen) > _LARGE:
            coords = coords * np.float32(scale)
            self.say(f"coordinates are multiplied with {scale:g}: millimetres become metres")
        clip = np.array([row[0] for row in rows], dtype=np.int64)
        frame = np.array([row[1] for row in rows], dtype=np.int64)
        # A tool's ids that clash cannot be mended by whoever reads its file.
        bodies = bodies_of(
            *(clip, frame, coords, seen),
            [() if row[2].track is None else (row[2].track,) for row in rows],
            track=track,
            where=lambda place: rows[place][3],
            way_on="run the tool with tracking",
            share=0.0,
        )
        self.say(*bodies.notes)
        if coords.shape[2] == 2:
            is_share = seen.any() and np.abs(coords[seen]).max() <= _SHARES
            self.say(*(SHARES_NOTE,) * bool(is_share), *upright_notes(coords, seen, joints.layout))
        self._say_left_out()
        data = pack_poses(
            Poses(clip, bodies.body, frame, coords, seen),
            layout=joints.layout,
            names=self.names,
            where=lambda row: rows[row][3],
            labels=self.labels,
            label_names=self.label_names,
            fps=self.fps,
            body_names=bodies.names or None,
            steps=reading_note(min_confidence),
            notes=self.notes,
        )
        data.dropped |= {damage.file: damage.reason for damage in self.damaged}
        return Reading(data, self.files, self.damaged, self.notes)

    def _nobody(self) -> ValueError:
        if self.damaged:
            return ValueError(
                f"{self.where}: nobody can be read; the first of {len(self.damaged)} is {self.damaged[0]}"
            )
        return ValueError(f"{self.where}: nobody was seen in any frame; the data set is empty")

    def _keep_usual_shape(self) -> None:
        """Leave out people with another number of joints or channels than most have, or with other names."""
        if not self._rows:
            raise self._nobody()
        self._keep_persons()
        self._align_names()
        shapes = Counter((row[2].coords.shape, row[2].names) for row in self._rows)
        (usual, names), _ = shapes.most_common(1)[0]
        kept = []
        for row in self._rows:
            shape = row[2].coords.shape
            if shape != usual:
                reason = (
                    f"{shape[0]} joints in {shape[1]} channels, most people have {usual[0]} in {usual[1]}"
                )
                self.lose(row[3], reason)
            elif row[2].names != names:
                self.lose(row[3], "joints of other names or in another order than those of most people")
            else:
                kept.append(row)
        self._rows = kept

    def _align_names(self) -> None:
        """Give people whose named joints are not all there, or stand in another order, the joints of all."""
        orders = Counter(row[2].names for row in self._rows if row[2].names)
        if len(orders) < 2:
            return
        usual = orders.most_common(1)[0][0]
        # A person without any of the usual joints is another thing; names that occur twice tell no joint.
        alike = {
            names for names in orders if len(set(names)) == len(names) and not set(names).isdisjoint(usual)
        }
        every = tuple(dict.fromkeys((*usual, *(name for names in sorted(alike) for name in names))))
        self._rows = [
            (clip, frame, _with_joints(person, every) if person.names in alike else person, place)
            for clip, frame, person, place in self._rows
        ]

    def _keep_persons(self) -> None:
        """Leave out objects that are no persons; where none is called one, all are read, and it is said."""
        others = {row[2].what for row in self._rows} - {"", "person"}
        if not others:
            return
        shown = ", ".join(sorted(others)[:4])
        if others == {row[2].what for row in self._rows}:
            self.say(f"no object is named 'person'; those named {shown} are read as people")
            return
        for row in self._rows:
            if row[2].what in others:
                self.lose(row[3], f"an object named {row[2].what[:40]!r}, no person")
        self._rows = [row for row in self._rows if row[2].what not in others]

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the coordinates ``(n, J, C)`` and the confidences ``(n, J)``, 1 or 0 where none are told."""
        people = [row[2] for row in self._rows]
        coords = np.stack([person.coords for person in people])
        confidence = np.ones(coords.shape[:2], dtype=np.float32)
        for place, person in enumerate(people):
            told = person.confidence
            confidence[place] = ~np.isnan(coords[place]).any(axis=1) if told is None else told
        if all(person.is_open for person in people) and _is_score(coords):
            self.say("the third number of each joint looks like a score and is taken as its confidence")
            confidence = np.where(confidence > 0, coords[..., 2], 0)
            coords = coords[..., :2]
        return coords, confidence

    def _sound(self, coords: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return which people are sound ``(n,)`` bool, and leave out the others."""
        broken = seen & ~(np.abs(coords) < _FARTHEST).all(axis=2)
        for row, joint in zip(*np.nonzero(broken & (broken.cumsum(axis=1) == 1)), strict=True):
            point = ", ".join(f"{value:g}" for value in coords[row, joint])
            self.lose(
                self._rows[row][3],
                f"joint {joint} is at {point}, expected finite numbers below {_FARTHEST:g}",
            )
        return ~broken.any(axis=1)

    def _say_left_out(self) -> None:
        if self.unread:
            self.say(f"not read: {', '.join(self.unread)}")
        if self.damaged:
            self.say(
                f"left out because of what is in them: {len(self.damaged)}; the first is {self.damaged[0]}"
            )


def _with_joints(person: Person, names: tuple[str, ...]) -> Person:
    """Return a person with some named joints in their order; those that it lacks have no coordinates."""
    places = {name: place for place, name in enumerate(person.names or ())}
    order = np.array([places.get(name, -1) for name in names])
    lacking = order < 0
    coords = np.where(lacking[:, None], np.float32("nan"), person.coords[order])
    told = person.confidence
    confidence = None if told is None else np.where(lacking, np.float32(0), told[order])
    return replace(person, coords=coords, confidence=confidence, names=names)


def _sizes(coords: np.ndarray, seen: np.ndarray) -> float:
    """Return the median extent of the poses' seen joints, 0 where there are none."""
    shown = seen.sum(axis=1) > 1
    points = np.where(seen[..., None], coords, np.nan)[shown]
    return float(np.median(np.nanmax(np.nanmax(points, 1) - np.nanmin(points, 1), 1))) if len(points) else 0.0


def _is_score(coords: np.ndarray) -> bool:
    """Tell whether the third coordinate is a score, beside pixels or beside shares of an image."""
    if looks_like_score(coords[..., 2], coords[..., :2]):
        return True
    values = coords[np.isfinite(coords).all(axis=2)]
    return bool(len(values)) and bool((values >= 0).all() and (values <= 1).all() and values[:, 2].any())
