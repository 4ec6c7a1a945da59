"""The pages that people read, their blocks of code, and the command lines in these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
_FENCE = re.compile(r"^ *```(.*)$")
_SETTING = re.compile(r"^[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block: page, number of its first line, language and text."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a shell block: its words and environment, and what comes before it in a pipe."""

    page: str
    line: int
    words: tuple[str, ...]
    settings: tuple[str, ...] = ()
    source: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words, as they stand in the table of what is not run."""
        return " ".join(self.words)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def read(page: str) -> str:
    """Return the text of a page; a page that does not exist has none."""
    path = ROOT / page
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    language, first, inside = "", 0, False
    lines: list[str] = []
    for number, line in enumerate(read(page).splitlines(), 1):
        if fence := _FENCE.match(line):
            if inside:
                found.append(Block(page, first, language, "\n".join(lines) + "\n"))
            language, first, inside, lines = fence[1].strip(), number + 1, not inside, []
        elif inside:
            lines.append(line)
    return found


def prose(page: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", read(page), flags=re.DOTALL | re.MULTILINE)


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a shell block; a backslash continues a line, ``|`` feeds the next command."""
    lines = block.text.splitlines()
    place = 0
    while place < len(lines):
        first, line = place, lines[place]
        while line.endswith("\\"):
            place += 1
            line = line[:-1] + lines[place]
        place += 1
        source: tuple[str, ...] = ()
        for words in _split(shlex.split(line, comments=True)):
            count = next((k for k, word in enumerate(words) if not _SETTING.match(word)), len(words))
            yield Command(block.page, block.line + first, words[count:], words[:count], source)
            source = words[count:]


def _split(words: list[str]) -> Iterator[tuple[str, ...]]:
    while words:
        end = words.index("|") if "|" in words else len(words)
        yield tuple(words[:end])
        words = words[end + 1 :]


ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]
ALL_COMMANDS = [command for block in ALL_BLOCKS if block.language == "sh" for command in commands(block)]
