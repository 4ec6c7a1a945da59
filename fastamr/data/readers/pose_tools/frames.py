"""The frames of a JSON document, however deep they are nested, and the people in a frame."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..common.json_text import Lines
from ..common.layout_choice import plain

_DEPTH = 6
_LOOK = 100


@dataclass(frozen=True)
class Form:
    """How a format nests frames and people; names are written as :func:`plain` writes them.

    Args:
        is_person: tells a person from everything else.
        lists: names of a document's list of frames.
        people: names of a frame's list of people.
        lone: whether a document that lists people has one in each frame; else they are the people of one frame.
        split: parts an object whose fields list several people, or frames, each; None where it does not.
    """

    is_person: Callable[[Any], bool]
    lists: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    lone: bool = False
    split: Callable[[Mapping[str, Any]], list[Any] | None] = lambda content: None


@dataclass(frozen=True)
class Frame:
    """A frame of a document.

    Args:
        place: where it stands, ``frames[3]``; "" where the document is the frame.
        content: an object, a list of people, a person, or None where nobody was seen.
        key: the name that stands before it in an object of frames, or None.
    """

    place: str
    content: Any
    key: str | None = None


def named(entry: Any, names: tuple[str, ...]) -> str | None:
    """Return the key of an object that has the first possible of some plain names, or None."""
    if not isinstance(entry, Mapping):
        return None
    keys = {plain_key(key): key for key in entry}
    return next((keys[name] for name in names if name in keys), None)


@functools.lru_cache(maxsize=4096)
def plain_key(key: str) -> str:
    """Return a key without case and separators; files have few, and many times."""
    return plain(str(key))


def frames_of(document: Any, form: Form, place: str = "") -> list[Frame]:
    """Return the frames of a document.

    Raises:
        ValueError: it has no frames in any known form.
    """
    if isinstance(document, Lines):
        return [Frame(f"line {number}", line) for number, line in enumerate(document, 1)]
    if document is None or form.is_person(document):
        return [Frame(place, document)]
    if isinstance(document, Mapping):
        return _frames_of_object(document, form, place)
    if not isinstance(document, list):
        raise ValueError(
            f"{place or 'the document'} is a {type(document).__name__}, expected frames of people"
        )
    if (
        not form.lone
        and any(map(form.is_person, document))
        and not any(frame_key(entry) for entry in document)
    ):
        return [Frame(place, document)]
    return [Frame(f"{place}[{number}]", entry) for number, entry in enumerate(document)]


def _frames_of_object(document: Mapping[str, Any], form: Form, place: str) -> list[Frame]:
    key = named(document, form.lists)
    if key is not None and isinstance(document[key], (list, Mapping)):
        return frames_of(document[key], form, f"{place}.{key}".lstrip("."))
    parts = form.split(document)
    if parts is not None and form.lone and frame_key(document) is None and len(parts) > 1:
        return [Frame(f"{place}[{number}]", entry) for number, entry in enumerate(parts)]
    if parts is not None or named(document, form.people) is not None:
        return [Frame(place, document)]
    if is_object_of_frames(document):
        return [Frame(f"{place}[{key!r}]", value, str(key)) for key, value in document.items()]
    others = [key for key in document if _is_list_of_frames(document[key], form)]
    if len(others) == 1:
        return frames_of(document[others[0]], form, f"{place}.{others[0]}".lstrip("."))
    shown = ", ".join(str(key)[:40] for key in list(document)[:6])
    raise ValueError(f"{place or 'the document'} holds {shown or 'nothing'}, expected frames of people")


def is_object_of_frames(document: Any) -> bool:
    """Tell whether an object's names all hold numbers, and its values lists or objects: ``{"frame_0": [...]}``."""
    return (
        isinstance(document, Mapping)
        and bool(document)
        and all(re.search(r"\d", str(key)) for key in document)
        and all(value is None or isinstance(value, (list, Mapping)) for value in document.values())
    )


def people_of(content: Any, form: Form) -> list[Any]:
    """Return the people of a frame's content.

    Raises:
        ValueError: there is no list of people.
    """
    if content is None or content == {}:
        return []
    if form.is_person(content):
        return [content]
    if isinstance(content, Mapping):
        parts = form.split(content)
        if parts is not None:
            return [part for part in parts if part is not None]
        key = named(content, (*form.people, *form.lists))
        if key is None:
            raise ValueError(f"no people, expected {' or '.join(map(repr, form.people))}")
        return people_of(content[key], form)
    if not isinstance(content, list):
        raise ValueError(f"a {type(content).__name__}, expected a list of people")
    people = []
    for entry in content:
        # Batches of one image: [[person, person]].
        nested = isinstance(entry, list) and not form.is_person(entry)
        people += people_of(entry, form) if nested else [entry] if entry is not None else []
    return people


def people_in(document: Any, form: Form, depth: int = _DEPTH) -> Iterator[Any]:
    """Yield people of a document in some of its frames, without checking the others; for a look at what a file is."""
    if form.is_person(document):
        yield document
    elif depth == 0:
        return
    elif isinstance(document, list):
        # Long lists are looked into at the beginning, and at places up to their end.
        step = max(1, (len(document) - _LOOK) // _LOOK)
        for entry in [*document[:_LOOK], *document[_LOOK::step]]:
            yield from people_in(entry, form, depth - 1)
    elif isinstance(document, Mapping):
        parts = form.split(document)
        key = named(document, (*form.lists, *form.people))
        if parts is not None:
            yield from people_in(parts, form, depth - 1)
            return
        values = [document[key]] if key is not None else list(document.values())
        if key is None and not is_object_of_frames(document):
            values = [value for value in values if _is_list_of_frames(value, form)]
        for value in values:
            yield from people_in(value, form, depth - 1)


def _is_list_of_frames(value: Any, form: Form) -> bool:
    """Tell a list of frames whose name is not known; nested lists of numbers may be anything."""
    first = next(people_in(value, form, _DEPTH - 1), None) if isinstance(value, list) else None
    return isinstance(first, Mapping) or (isinstance(first, list) and isinstance(first[0], Mapping))


_FRAMES = ("frameid", "frameindex", "frameidx", "framenumber", "framenum", "frameno", "frame", "framecount")
_IMAGES = (
    "imageid",
    "imagename",
    "imagefile",
    "imagepath",
    "image",
    "imgpath",
    "imgname",
    "filename",
    "path",
)


_CLIPS = (
    "video",
    "videoid",
    "videoname",
    "videopath",
    "clip",
    "clipid",
    "clipname",
    "sequence",
    "sequenceid",
)


_AROUND = frozenset((*_FRAMES, *_IMAGES, *_CLIPS))


def clip_of(frame: Frame) -> str | None:
    """Return the video that a frame says it is of, or None."""
    key = named(frame.content, _CLIPS)
    value = frame.content[key] if key is not None else None
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None


def tells_frame(key: str) -> bool:
    """Tell whether a key is that of a frame's number, image or clip."""
    return plain_key(key) in _AROUND


def frame_key(entry: Any) -> str | None:
    """Return the key of an object that tells its frame: a number, or the name of an image."""
    for names in (_FRAMES, _IMAGES):
        key = named(entry, names)
        if key is not None and isinstance(entry[key], (int, float, str)) and entry[key] is not True:
            return key
    return None
