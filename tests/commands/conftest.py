from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastamr import cli
from fastamr.commands import spelling
from fastamr.commands.options import CommandParser


class _Seen(BaseException):
    """Ends a command as soon as its words are parsed."""


@pytest.fixture(autouse=True)
def _notices() -> Iterator[None]:
    """Notices are told once in a process; each test is one."""
    spelling.notice.cache_clear()
    yield
    spelling.notice.cache_clear()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Parses a command line after ``fastamr``, which then does nothing, and returns what was asked for."""
    parse = CommandParser.parse

    def stop(parser: CommandParser, words: list[str]) -> None:
        raise _Seen(parse(parser, words).as_dict())

    def ask(line: str) -> dict[str, Any]:
        monkeypatch.setattr(CommandParser, "parse", stop)
        with pytest.raises(_Seen) as seen:
            cli.main(shlex.split(line))
        return dict(seen.value.args[0])

    return ask


@pytest.fixture
def options_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[argparse.Action]]:
    """Returns all options and positional words of a command."""

    def stop(parser: CommandParser, words: list[str]) -> None:
        raise _Seen(list(parser._actions))

    def ask(command: str) -> list[argparse.Action]:
        monkeypatch.setattr(CommandParser, "parse", stop)
        with pytest.raises(_Seen) as seen:
            cli.main([*command.split(), "words"])
        return list(seen.value.args[0])

    return ask
