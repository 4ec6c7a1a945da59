"""Clips by their names as people write them: with or without folders and endings."""

from __future__ import annotations

import re
from collections import defaultdict

from ..packed.dataset import PackedSkeletons

_ENDING = re.compile(r"(?<=[^/])\.[A-Za-z0-9]{1,12}$")
_FILE = "file"


class ClipNames:
    """The clips of a data set, found by name.

    Args:
        data: the data set; its text column ``file`` tells which clips a file holds.
    """

    def __init__(self, data: PackedSkeletons) -> None:
        self.names = list(data.names)
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._whole: dict[str, set[str]] = defaultdict(set)
        self._ends: dict[str, set[str]] = defaultdict(set)
        for place, name in enumerate(self.names):
            self._add(name, place)
        if _FILE in data.columns and _FILE in data.column_names:
            for place, code in enumerate(data.columns[_FILE].tolist()):
                if code >= 0 and data.column_names[_FILE][code] != self.names[place]:
                    self._add(data.column_names[_FILE][code], place)

    def find(self, word: str) -> list[int]:
        """Return the clips that a word names: by the whole name, or by the end of a path, with endings or without.

        Raises:
            ValueError: it is the end of several clips' paths.
        """
        word = _plain(word)
        if word in self._exact:
            return self._exact[word]
        for spelling in dict.fromkeys((word, _ENDING.sub("", word))):
            for text in (spelling, spelling.lower()):
                if found := self._found(text, word):
                    return found
        return []

    def _found(self, text: str, word: str) -> list[int]:
        names = self._whole.get(text) or self._ends.get(text, set())
        parts = text.split("/")
        for start in range(1, len(parts)):
            if names:
                break
            names = self._whole.get("/".join(parts[start:]), set())
        if len(names) > 1:
            shown = ", ".join(map(repr, sorted(names)[:3]))
            raise ValueError(f"name {word!r} fits several clips: {shown}; write their folders, too")
        return self._exact[next(iter(names))] if names else []

    def _add(self, name: str, place: int) -> None:
        key = _plain(name)
        self._exact[key].append(place)
        for spelling in {key, _ENDING.sub("", key)}:
            for text in {spelling, spelling.lower()}:
                self._whole[text].add(key)
                parts = text.split("/")
                for start in range(1, len(parts)):
                    self._ends["/".join(parts[start:])].add(key)


def _plain(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./").strip("/")
