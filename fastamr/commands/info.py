"""``fastamr info``: versions, devices and back ends."""

from __future__ import annotations


def run(words: list[str]) -> None:
    """Carry out the command."""
    from ..info import report
    from .options import FLAG, CommandParser

    text = "Versions, devices, and which back end each op would use: the text for a bug report."
    parser = CommandParser("info", "", text)
    parser.add_argument(
        "--build", action=FLAG, default=False, help="compile the extension now if that was not done yet"
    )
    print(report(build=parser.parse(words).build))
