"""What a format of a pose tool is, and its reader: of a document, and of a folder with a file a frame."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons
from ..common.frame_names import clips_of_names
from ..common.json_text import load_json, parse_json
from ..common.layout_choice import Joints, joints_by_count, joints_by_name
from ..common.linking import id_text
from ..common.reader import Reader, Reading, Source
from ..common.sources import DamagedFile, Entry, Listing, list_files
from .frames import Form, Frame, clip_of, frames_of, named, people_in, people_of, plain_key, tells_frame
from .numbering import number_frames, rate_of
from .people import People, Person

_SAMPLES = 12
_SHOWN = 5
_TRACKED = ("tracked", "istracked")


@dataclass(frozen=True)
class Naming:
    """How a document names its joints.

    Args:
        names: the ``J`` joints.
        edges: the bones, pairs of joints, or None.
    """

    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def of_bones(cls, names: Sequence[str], bones: Any) -> Naming:
        """Return joints with their bones, pairs of names or places; bones of another form are not used."""
        places = {name: place for place, name in enumerate(names)} | {
            place: place for place in range(len(names))
        }
        try:
            edges = tuple((places[one], places[other]) for one, other in bones)
        except (KeyError, TypeError, ValueError):
            edges = ()
        return cls(tuple(names), edges or None)


@dataclass(frozen=True)
class Tool:
    """A format of a pose tool.

    Args:
        name: its kind.
        title: what it is called.
        holds: what it is recognised by, in words.
        form: how frames and people are nested.
        kinds: the ways in which a person's entry tells its key points, the best first; all people of a source are read
            in the way that is the best of the first person.
        person: reads a person's entry in one of those ways; raises ``ValueError``.
        usual: the layout by the number of joints, by channels.
        naming: what a document says of its joints.
        about: what is to be noted of a way of reading: units, axes.
        marks: tells a document of the format that shows nobody.
        frame_files: whether a folder may hold a file a frame.
        own: the skeleton by the number of joints where no built-in layout is meant, else None.
        scale: what coordinates are multiplied with, if they are as large as millimetres.
        judge: what is to be noted of the data: units that the document does not tell.
    """

    name: str
    title: str
    holds: tuple[str, ...]
    form: Form
    kinds: Callable[[Any], Sequence[str]]
    person: Callable[[Any, str, str], Person]
    usual: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    naming: Callable[[Any], Naming | None] = lambda document: None
    about: Mapping[str, str] = field(default_factory=dict)
    marks: Callable[[Any], bool] = lambda document: False
    frame_files: bool = True
    own: Callable[[int, str], Joints | None] = lambda count, where: None
    scale: float = 1.0
    judge: Callable[[PackedSkeletons, str], Sequence[str]] = lambda data, kind: ()

    def knows(self, document: Any) -> bool:
        """Tell whether a document is of this format."""
        return next(people_in(document, self.form), None) is not None or self.marks(document)

    def choose(self, naming: Naming | None, where: str) -> Callable[..., Joints]:
        """Return the choice of the skeleton, see :data:`~.people.Chooser`."""

        def choose(
            count: int, channels: int, names: tuple[str, ...] | None, given: str | SkeletonLayout | None
        ) -> Joints:
            edges = naming.edges if naming is not None else None
            usual = self.usual.get(channels)
            names = names or (naming.names if naming is not None else None)
            if names is not None and len(names) == count:
                return joints_by_name(
                    names, where, given=given, edges=edges, own_name=self.name, channels=channels, usual=usual
                )
            own = self.own(count, where) if given is None else None
            if own is not None:
                return own
            return joints_by_count(count, channels, where, given=given, usual=usual)

        return choose


def reader_of(tool: Tool) -> Reader:
    """Return the reader of a format."""

    def sniff(source: Source) -> bool:
        if not source.is_folder:
            return tool.knows(source.parsed(load_json))
        return tool.frame_files and is_folder_of_frames(tool, source)

    def read(
        source: Source,
        *,
        layout: str | SkeletonLayout | None = None,
        min_confidence: float = 0.0,
        track: bool = True,
    ) -> Reading:
        session = Session(tool, str(source.path))
        if source.is_folder:
            session.add_folder(source.path)
        else:
            session.add_document(source.parsed(load_json), str(source.path), source.path.stem)
        return session.reading(layout=layout, min_confidence=min_confidence, track=track)

    suffixes = (".json", ".jsonl")
    return Reader(tool.name, suffixes, read, sniff, tool.title, tool.holds, takes_folder=tool.frame_files)


@dataclass
class Session:
    """A source that is being read.

    Args:
        tool: its format.
        where: names it.
    """

    tool: Tool
    where: str
    kind: str | None = None

    def __post_init__(self) -> None:
        self.people = People(self.where, self.tool.choose(None, self.where))

    def add_document(self, document: Any, where: str, name: str, *, label: int = -1) -> None:
        """Add a document of frames as a clip, or as one for each video that its frames name.

        What cannot be read is left out with its place.

        Raises:
            ValueError: the document has no frames, or their numbers are no sequence.
        """
        frames = frames_of(document, self.tool.form)
        self._note_naming(document)
        told = rate_of(document)
        clips: dict[str | None, list[Frame]] = {}
        for frame in frames:
            clips.setdefault(clip_of(frame), []).append(frame)
        if not frames:
            self.people.clip(name, fps=told, label=label)
        for video, members in clips.items():
            numbers = number_frames(members, where)
            fps = told if math.isnan(numbers.fps) else numbers.fps
            clip = self.people.clip(video if video and len(clips) > 1 else name, fps=fps, label=label)
            self.people.say(*numbers.notes)
            for place, frame in enumerate(members):
                at = f"{where}, {frame.place}" if frame.place else where
                if place in numbers.lost and frame.content not in (None, [], {}):
                    self.people.lose(at, numbers.lost[place])
                    continue
                count = self._add_people(clip, int(numbers.frames[place]), frame.content, at)
                if not frame.place and isinstance(document, list) and count > 1:
                    self.people.say(f"{count} people without a frame number are taken as those of one frame")

    def add_folder(self, folder: Path) -> None:
        """Add a folder, or a zip archive, with a document a frame; its files' names tell clips and frames.

        Raises:
            ValueError: the names are no sequence.
        """
        listing = list_frame_files(folder, (".json",))
        self.people.files = len(listing.entries) + len(listing.refused)
        for place, reason in listing.refused.items():
            self.people.lose(place, reason)
        found: list[tuple[Entry, Frame]] = []
        for entry in listing.entries:
            try:
                document = parse_json(entry.read(), str(entry))
                frames = frames_of(document, self.tool.form)
                if len(frames) > 1:
                    raise ValueError(f"holds {len(frames)} frames, the other files one; read it alone")
                found += [(entry, frames[0] if frames else Frame("", None))]
            except (DamagedFile, ValueError) as error:
                self.people.lose(str(entry), str(error))
                continue
            self._note_naming(document)
        note_others(self.people, listing)
        clips = add_clips(self.people, folder, [entry for entry, _ in found])
        for (entry, frame), (clip, number) in zip(found, clips, strict=True):
            self._add_people(clip, number, frame.content, str(entry))

    def reading(self, *, layout: str | SkeletonLayout | None, min_confidence: float, track: bool) -> Reading:
        """Return what was found, see :meth:`People.reading`."""
        people = self.people
        found = people.reading(
            layout=layout, min_confidence=min_confidence, track=track, scale=self.tool.scale
        )
        people.say(*self.tool.judge(found.data, self.kind or ""))
        return found

    def _note_naming(self, document: Any) -> None:
        naming = self.tool.naming(document)
        if naming is not None:
            self.people.choose = self.tool.choose(naming, self.where)

    def _add_people(self, clip: int, number: int, content: Any, where: str) -> int:
        """Add the people of a frame, and return how many it has."""
        try:
            people = people_of(content, self.tool.form)
        except ValueError as error:
            self.people.lose(where, str(error))
            return 0
        for place, entry in enumerate(people):
            if (key := named(entry, _TRACKED)) is not None and entry[key] is False:
                # Kinect tells six bodies, whether they are there or not.
                continue
            at = f"{where}, person {place}" if entry is not content else where
            try:
                person = self.tool.person(entry, self._kind(entry), at)
            except ValueError as error:
                self.people.lose(at, str(error))
            else:
                self.people.add(clip, number, person, at)
        return len(people)

    def _kind(self, entry: Any) -> str:
        """Return the way in which all people are read."""
        kinds = self.tool.kinds(entry)
        if self.kind is None and kinds:
            self.kind = kinds[0]
            self.people.say(*filter(None, [self.tool.about.get(self.kind)]))
        if self.kind is None or self.kind not in kinds:
            raise ValueError(f"no {self.kind or 'key points'}")
        return self.kind


def list_frame_files(path: Path, suffixes: Sequence[str]) -> Listing:
    """List the files that lie in a folder itself, or anywhere in a zip archive; other names in ``others``."""
    if not path.is_dir():
        return list_files(path, suffixes)
    listing = Listing()
    with os.scandir(path) as found:
        items = sorted(found, key=lambda item: item.name)
    for item in items:
        if item.name.startswith("."):
            continue
        if item.is_dir():
            listing.others.append(f"{item.name}/")
        elif not item.name.lower().endswith(tuple(suffixes)):
            listing.others.append(item.name)
        elif not item.is_file():
            listing.refused[item.path] = "is not a plain file"
        else:
            status = item.stat()
            listing.entries.append(
                Entry(str(path), item.name, status.st_size, status.st_mtime_ns, archived=False)
            )
    return listing


def note_others(people: People, listing: Listing) -> None:
    """Note what lies beside the files of frames."""
    if listing.others:
        shown = ", ".join(listing.others[:_SHOWN]) + ", ..." * (len(listing.others) > _SHOWN)
        people.say(f"{len(listing.others)} other entries of the folder are not read: {shown}")


def add_clips(people: People, folder: Path, entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Begin the clips of files, and return clip and frame of each.

    Raises:
        ValueError: the names are no sequence.
    """
    if not entries:
        return []
    # OpenPose's names end so; it is no part of the clip's name.
    names = [re.sub(r"[-_](?:keypoints|pose)(?=\.\w+$)", "", entry.name) for entry in entries]
    found = clips_of_names(names, lambda place: str(entries[place]))
    people.say(*found.notes)
    title = folder.stem if folder.suffix.lower() == ".zip" else folder.absolute().name
    clips = [people.clip(name or title, fps=fps) for name, fps in zip(found.names, found.fps, strict=True)]
    return [(clips[clip], int(frame)) for clip, frame in zip(found.clips, found.frames, strict=True)]


def is_folder_of_frames(tool: Tool, source: Source) -> bool:
    """Tell by a few files whether those of a folder each hold one frame of a format, and are numbered."""
    known = [document for document in source.parsed(_sample) if tool.knows(document)]
    try:
        return bool(known) and all(len(frames_of(document, tool.form)) <= 1 for document in known)
    except ValueError:
        return False


def sample(entries: Sequence[Entry], most: int = 4 << 20) -> list[bytes]:
    """Return the content of some files, from the first to the last, without those that cannot be read or are large."""
    small = [entry for entry in entries if entry.size <= most]
    places = sorted(
        {round(part * (len(small) - 1) / _SAMPLES) for part in range(_SAMPLES + 1)} if small else ()
    )
    contents = []
    for place in places:
        with contextlib.suppress(DamagedFile):
            contents.append(small[place].read())
    return contents


def _sample(path: Path) -> list[Any]:
    """Return some documents of a folder; none where names have no numbers, which frames do."""
    entries = [entry for entry in list_frame_files(path, (".json",)).entries if re.search(r"\d", entry.base)]
    documents = []
    for content in sample(entries):
        with contextlib.suppress(ValueError):
            documents.append(parse_json(content, ""))
    return documents


def track_of(entry: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the id of a person, None where there is none or it is -1; ids may stand in a list."""
    key = named(entry, names)
    value = entry[key] if key is not None else None
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (bool, list, Mapping)):
        return None
    return id_text(value)


def unread_of(entry: Mapping[str, Any], used: Sequence[str]) -> list[str]:
    """Return the keys of a person's entry that hold something and are not among some plain names."""
    told = [key for key, value in entry.items() if value not in (None, [], {}, "")]
    return [str(key) for key in told if plain_key(str(key)) not in used and not tells_frame(str(key))]
