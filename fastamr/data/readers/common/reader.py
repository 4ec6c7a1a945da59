"""What a reader is: how a format is called, how it is recognised, and the function that reads it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ....files import check_plain
from ...packed.dataset import PackedSkeletons

T = TypeVar("T")


class Source:
    """A file or a folder that is to be read, with what was parsed of it so far.

    Args:
        path: where it is; a reader may also look at the files beside it.

    ``seen`` is what a reader saw when it looked at the content, for the error where no reader knows it: ``"the arrays
    a, b"``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.seen = ""
        self._parsed: dict[Callable[[Path], Any], Any] = {}

    @property
    def ending(self) -> str:
        """The ending of the name, in lower case with its dot, or ""."""
        return self.path.suffix.lower()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, or a zip archive, which is read like one (see :mod:`.sources`)."""
        return self.path.is_dir() or self.ending == ".zip"

    def check(self) -> None:
        """Raise ``FileNotFoundError`` where there is nothing, ``ValueError`` where it is a pipe or a device."""
        check_plain(self.path)
        if not self.path.exists():
            raise FileNotFoundError(f"no file {self.path} to import")

    def head(self, count: int = 64) -> bytes:
        """Return the first bytes of a file; nothing where there is no file."""
        if not self.path.is_file():
            return b""
        with self.path.open("rb") as file:
            return file.read(count)

    def parsed(self, parse: Callable[[Path], T]) -> T:
        """Return what a function makes of the path, which it reads once, however many readers ask.

        Raises:
            FileNotFoundError: there is nothing.
        """
        if parse not in self._parsed:
            self.check()
            self._parsed[parse] = parse(self.path)
        found: T = self._parsed[parse]
        return found


@dataclass(frozen=True)
class Damage:
    """A file that was left out because of what is in it.

    Args:
        file: where it lies.
        reason: what is wrong.
        line: where, from 1, or None.
    """

    file: str
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.file}{line}: {self.reason}"


@dataclass
class Reading:
    """What came of a source.

    Args:
        data: its clips.
        files: how many files were read, the damaged ones among them.
        damaged: files that were left out because of what is in them; ``data.dropped`` lists them, too.
        notes: what a person must know of how the source was understood, a line each: a skeleton told by the number of
            joints, columns that were not read, how people were linked.
    """

    data: PackedSkeletons
    files: int = 1
    damaged: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """A format of files that are read in one go.

    Args:
        name: its kind, for ``fastamr prepare``; the forms of one kind may share a name.
        suffixes: the endings of its files' names, ``.csv`` or ``_keypoints.json``, in lower case; () = any name, and
            ``sniff`` decides.
        read: reads a :class:`Source`; its keywords are the options that the format takes. Raises ``ValueError`` for a
            damaged source (where, and why); the file's name is added where the error does not name it.
        sniff: whether the content of a source with a fitting ending is of this format, at best from
            :meth:`Source.head` or :meth:`Source.parsed`. By default all are, which suits the last reader of an ending:
            its errors say more.
        title: what it is called, where the ending does not say it.
        holds: what ``sniff`` looks for, in words.
        takes_folder: whether ``sniff`` and ``read`` also know folders and zip archives.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[..., Reading]
    sniff: Callable[[Source], bool] = lambda source: True
    title: str = ""
    holds: tuple[str, ...] = ()
    takes_folder: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that the format takes."""
        parameters = inspect.signature(self.read).parameters.values()
        return tuple(item.name for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY)

    @property
    def text(self) -> str:
        """What it is made from, for help."""
        names = ", ".join(self.suffixes) + (f" ({self.title})" if self.title else "")
        folder = ", or a folder or zip archive of them" if self.takes_folder else ""
        return ": ".join(filter(None, (names, " or ".join(self.holds)))) + folder

    def fits(self, source: Source) -> bool:
        """Tell whether a source may be of this format: from its name, or by a look where all names will do."""
        if not self.suffixes:
            return self.sniff(source)
        return self.takes_folder if source.is_folder else source.path.name.lower().endswith(self.suffixes)
