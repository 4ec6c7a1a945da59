"""Labels of YOLO-pose in text (ultralytics, ``save_txt``): a file a frame, a line a person.

``class cx cy w h x1 y1 v1 x2 y2 v2 ... [confidence] [track]``, all but the last two as shares of the image; some models
write no ``v``. The number of numbers tells which of them there are.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....skeleton import SkeletonLayout, get_layout
from ..common.layout_choice import Joints, joints_by_count
from ..common.reader import Reader, Reading, Source
from ..common.sources import DamagedFile, Entry
from ..common.text_numbers import as_float32
from .people import People, Person
from .tool import add_clips, list_frame_files, note_others, sample
from .yolo import refuse_other_models

_BOX = 5
_USUAL = 17


@dataclass(frozen=True)
class _Columns:
    """What the numbers of a line are: ``joints`` times ``width`` points, then perhaps a confidence and a track."""

    joints: int
    width: int
    has_score: bool
    has_track: bool


def sniff(source: Source) -> bool:
    """Tell whether a text, or some texts of a folder, are lines of a person each, and nothing else."""
    if not source.is_folder:
        return _is_text_of_people(source.head(1 << 16))
    return source.parsed(_is_folder_of_people)


def read(
    source: Source,
    *,
    layout: str | SkeletonLayout | None = None,
    min_confidence: float = 0.0,
    track: bool = True,
) -> Reading:
    """Read a folder or zip archive of texts, or the text of one frame; images without a text show nobody.

    Args:
        source: where it is; the files' names tell clip and frame.
        layout: the skeleton; None = COCO's 17 joints, or what has as many joints as the lines.
        min_confidence: joints of a lower ``v``, or of 0, are not seen.
        track: link people from frame to frame where lines have no track.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no line can be read, the numbers of a line fit several skeletons, or names are no sequence.
    """
    path = source.path
    people = People(
        str(path), lambda count, channels, names, given: _choose(str(path), count, channels, given)
    )
    if source.is_folder:
        listing = list_frame_files(path, (".txt",))
        for place, reason in listing.refused.items():
            people.lose(place, reason)
        note_others(people, listing)
        entries, is_one = listing.entries, False
    else:
        status = path.stat()
        entries, is_one = [Entry(str(path.parent), path.name, status.st_size, 0, archived=False)], True
    people.files = len(entries)
    rows = [(entry, found) for entry in entries if (found := _rows(entry, people, is_one)) is not None]
    columns = _columns([row for _, found in rows for _, row in found], layout, str(path))
    clips = add_clips(people, Path(path.stem) if is_one else path, [entry for entry, _ in rows])
    classes: Counter[int] = Counter()
    for (entry, found), (clip, frame) in zip(rows, clips, strict=True):
        for line, row in found:
            place = f"{entry}, line {line}"
            try:
                people.add(clip, frame, _person(row, columns), place)
            except ValueError as error:
                people.lose(place, str(error))
            else:
                classes[int(row[0])] += 1
    if len(classes) > 1:
        shown = ", ".join(f"{number} ({count} times)" for number, count in sorted(classes.items()))
        people.say(f"the lines' classes {shown} are all read as people")
    people.say("not read: the boxes" + " and the boxes' confidences" * columns.has_score)
    return people.reading(layout=layout, min_confidence=min_confidence, track=track)


READER = Reader(
    "yolo-txt",
    (".txt",),
    read,
    sniff,
    title="YOLO-pose labels, a folder with a file a frame",
    holds=("lines of a class, a box and key points",),
    takes_folder=True,
)


def _rows(entry: Entry, people: People, is_one: bool) -> list[tuple[int, np.ndarray]] | None:
    """Return the numbers of a file's lines; None where the file is not read."""
    try:
        content = entry.read().decode("utf-8-sig")
    except (DamagedFile, UnicodeDecodeError) as error:
        people.lose(
            str(entry), "is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        )
        return None
    rows: list[tuple[int, np.ndarray]] = []
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            rows.append((number, np.array([float(word) for word in words], dtype=np.float64)))
        except ValueError:
            people.lose(f"{entry}, line {number}", "holds something that is no number")
    is_foreign = bool(content.strip()) and not rows and not is_one
    return None if is_foreign else rows


def _columns(rows: list[np.ndarray], layout: str | SkeletonLayout | None, where: str) -> _Columns:
    """Return what the numbers of most lines are.

    Raises:
        ValueError: there are no lines, or their number fits no skeleton, or several.
    """
    if not rows:
        raise ValueError(f"{where}: no line holds a person; the data set is empty")
    count = Counter(len(row) for row in rows).most_common(1)[0][0]
    usual = np.stack([row for row in rows if len(row) == count])
    options = []
    for width, extra in itertools.product((3, 2), (0, 1, 2)):
        joints, rest = divmod(count - _BOX - extra, width)
        if rest == 0 and joints > 0:
            is_track = extra == 2 or (extra == 1 and _are_tracks(usual[:, -1]))
            options.append(_Columns(joints, width, extra == 2 or (extra == 1 and not is_track), is_track))
    options = [option for option in options if _fits(usual, option)]
    wanted = _USUAL if layout is None else get_layout(layout).num_joints
    found = [option for option in options if option.joints == wanted]
    if layout is None and not found:
        found = [option for option in options if _are_in_box(usual, option)] if len(options) > 1 else options
    if len(found) == 1:
        return found[0]
    shown = " or ".join(f"{option.joints} joints of {option.width}" for option in found or options)
    raise ValueError(
        f"{where}: {count} numbers a line are a class, a box and {shown or 'no key points'}, perhaps a confidence and "
        f"a track; name the skeleton with --layout"
    )


def _are_tracks(values: np.ndarray) -> bool:
    """Tell the numbers of tracks, whole and from 1, from confidences."""
    return bool((values == np.floor(values)).all() and (values >= 1).all())


def _fits(rows: np.ndarray, option: _Columns) -> bool:
    """Tell whether the values can be what an option says: confidences of 0 to 1, whole tracks."""
    if option.has_track and not (rows[:, -1] == np.floor(rows[:, -1])).all():
        return False
    score = rows[:, -2] if option.has_track else rows[:, -1]
    if option.has_score and not ((score >= 0) & (score <= 1)).all():
        return False
    points = _points(rows, option)
    return option.width == 2 or bool(np.isin(points[..., 2], (0, 1, 2)).all() or (points[..., 2] <= 1).all())


def _points(rows: np.ndarray, option: _Columns) -> np.ndarray:
    return rows[:, _BOX : _BOX + option.joints * option.width].reshape(len(rows), option.joints, option.width)


def _are_in_box(rows: np.ndarray, option: _Columns) -> bool:
    """Tell whether nearly all points that were found lie in the lines' boxes, made a quarter wider."""
    points = _points(rows, option)[..., :2]
    low, high = rows[:, None, 1:3] - 0.75 * rows[:, None, 3:5], rows[:, None, 1:3] + 0.75 * rows[:, None, 3:5]
    inside: np.ndarray = np.all((points >= low) & (points <= high), axis=2)
    found: np.ndarray = np.any(points != 0, axis=2)
    return bool(found.any()) and bool(inside[found].mean() >= 0.9)


def _person(row: np.ndarray, columns: _Columns) -> Person:
    extra = columns.has_score + columns.has_track
    expected = _BOX + columns.joints * columns.width + extra
    # A tracker gives no number to a person whom it has just met.
    lacks_track = columns.has_track and len(row) == expected - 1
    if len(row) != expected and not lacks_track:
        raise ValueError(f"{len(row)} numbers, most lines have {expected}")
    if not row[0].is_integer() or row[0] < 0:
        raise ValueError(f"class {row[0]:g}, expected a whole number from 0")
    points = _points(row[None], columns)[0]
    coords = as_float32(points)
    track = str(int(row[-1])) if columns.has_track and not lacks_track and np.isfinite(row[-1]) else None
    return Person(coords[:, :2], coords[:, 2] if columns.width == 3 else None, track)


def _choose(where: str, count: int, channels: int, given: str | SkeletonLayout | None) -> Joints:
    if given is None:
        refuse_other_models(count, where)
    return joints_by_count(count, channels, where, given=given, usual={_USUAL: "coco17"})


def _is_folder_of_people(folder: Path) -> bool:
    found = sample(list_frame_files(folder, (".txt",)).entries)
    told = [content for content in found if content.strip()]
    # A folder may also hold classes.txt.
    return 2 * sum(map(_is_text_of_people, told)) > len(told)


def _is_text_of_people(content: bytes) -> bool:
    """Tell a text whose lines are a whole class from 0, a box of shares of an image, and key points."""
    line = next((line for line in content.splitlines() if line.strip()), b"")
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        return False
    is_box = all(0 <= value <= 1.5 for value in values[1:_BOX])
    return len(values) >= _BOX + 6 and is_box and values[0] >= 0 and float(values[0]).is_integer()
