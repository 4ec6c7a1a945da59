"""``fastamr import FILE OUT``: a motion file of any known kind to the packed format."""

from __future__ import annotations

import argparse

from ..options import add_processing, add_reading, check_steps


def run(arguments: list[str]) -> None:
    """Carry out the command.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: OUT cannot be written.
        ValueError: no reader knows the file, or it is damaged (where, and why).
    """
    from ...data.readers.registry import endings

    parser = argparse.ArgumentParser(
        prog="fastamr import",
        description=f"Convert a motion file to the packed format: {endings()}.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the file, or the folder of NW-UCLA, to read")
    parser.add_argument("out", metavar="OUT", help="the packed file to write, for example ucla.safetensors")
    add_reading(parser)
    add_processing(parser)
    given = parser.parse_args(arguments)
    check_steps(parser, given.steps)
    from ...data import import_file

    print(
        import_file(
            given.file,
            given.out,
            steps=given.steps,
            preset=given.preset,
            dtype=given.dtype,
            layout=given.layout,
            min_confidence=given.min_confidence,
        )
    )
