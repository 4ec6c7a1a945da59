"""What must stay on one side of a split: clips of one person, clips that are cut from one recording."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..packed.dataset import PackedSkeletons

RECORDING_COLUMNS = ("recording", "video", "file")
"""Columns that tell a clip's recording; the first that there is counts."""

# wave_03@120 and wave_03#1 are parts of wave_03; so are wave_03_clip2 and wave_03-seg-2, but not wave_03 of wave.
_PART = re.compile(
    r"(?<=.)[\s_\-./](?:clip|seg|segment|part|chunk|window|win|person|body|track)[\s_\-]?\d+$", re.I
)


@dataclass(frozen=True)
class Groups:
    """Clips that stay together.

    Args:
        owner: the group of each clip, an index into ``keys``.
        keys: what each group is called; does not depend on the order of the clips.
        told: how the groups are told, in words.
    """

    owner: list[int]
    keys: list[str]
    told: str


def recordings(data: PackedSkeletons) -> tuple[list[str], str]:
    """Return each clip's recording, and how it was told.

    The first of the columns ``recording``, ``video`` and ``file`` says it; else the name up to ``@`` or ``#``, or
    without ``_clip3``, ``-seg2`` and the like at its end; else each clip is one.
    """
    names = [recording_of(name) for name in data.names]
    for column in RECORDING_COLUMNS:
        if column in data.columns:
            words = values_of(data, column)
            return [word or name for word, name in zip(words, names, strict=True)], f"by column {column!r}"
    if len(set(names)) < len(names):
        return names, "by their names up to '@', '#' or '_clip3'"
    return names, ""


def recording_of(name: str) -> str:
    """Return what a clip's name says of its recording."""
    return _PART.sub("", re.split(r"[@#]", name, maxsplit=1)[0]) or name


def values_of(data: PackedSkeletons, column: str) -> list[str]:
    """Return the values of a column as words; "" = unknown."""
    names = data.column_names.get(column)
    values = data.columns[column].tolist()
    if names:
        return [names[code] if 0 <= code < len(names) else "" for code in values]
    return [
        "" if value == -1 else f"{value:g}" if isinstance(value, float) else str(value) for value in values
    ]


def join(parts: Sequence[Sequence[str]]) -> tuple[list[int], list[str]]:
    """Return groups of clips that share a word in any part, and the least word of each group.

    Args:
        parts: a word a clip, "" = shares with nobody; the words of different parts are different.
    """
    count = len(parts[0])
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for words in parts:
        first: dict[str, int] = {}
        for place, word in enumerate(words):
            if word:
                one, other = root(first.setdefault(word, place)), root(place)
                parent[other] = one
    roots = [root(place) for place in range(count)]
    keys: dict[int, str] = {}
    for place in range(count):
        key = next((f"{number}:{words[place]}" for number, words in enumerate(parts) if words[place]), "")
        keys[roots[place]] = min(keys.get(roots[place], key), key)
    order = {found: number for number, found in enumerate(keys)}
    return [order[found] for found in roots], list(keys.values())
