"""``fastamr info``: versions, devices and back ends."""

from __future__ import annotations


def run(words: list[str]) -> None:
    """Carry out the command."""
    if words:
        from .options import CommandParser

        text = "Versions, devices, and which back end each op would use: the text for a bug report."
        CommandParser("info", "", text).parse(words)
    from ..info import report

    print(report())
