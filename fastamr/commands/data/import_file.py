"""``fastamr import FILE OUT``: a motion file of any known kind to the packed format."""

from __future__ import annotations

import argparse

from ..options import add_layout, add_processing, check_steps


def run(arguments: list[str]) -> None:
    """Carry out the command.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: OUT cannot be written.
        ValueError: no reader knows the file, or it is damaged (where, and why).
    """
    parser = argparse.ArgumentParser(
        prog="fastamr import",
        description="Convert a motion file to the packed format: .npz (ragged, MAMP, CTR-GCN), .pkl (PYSKL), .json "
        "(COCO key points, AlphaPose, a clip of NW-UCLA), .csv (frame, body, joint, x, y[, z][, confidence][, clip]).",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the file to read")
    parser.add_argument("out", metavar="OUT", help="the packed file to write, for example ucla.safetensors")
    add_layout(parser, "the skeleton of a file that does not tell it")
    parser.add_argument(
        "--min-confidence", type=float, metavar="X",
        help="mark joints of a lower confidence as not seen (default: those of confidence 0)",
    )  # fmt: skip
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
