"""``fastamr demo``: pre-train, probe and compare on generated motion."""

from __future__ import annotations

from .. import demo
from .options import CommandParser
from .settings import add_config, build


def run(words: list[str]) -> None:
    """Carry out the command."""
    parser = CommandParser(
        "demo", "", "Pre-train both methods for the same time on generated motion, probe and compare."
    )
    names = "out clips seconds epochs batch_size lr step_sequences step_rounds seed"
    parser.add_fields(demo.DemoConfig, {"what the demonstration does": names})
    add_config(parser.add_argument_group("files"))
    demo.run(build(parser, demo.DemoConfig, words))
