"""``fastamr import FILE OUT``: a motion file of any known kind to the packed format."""

from __future__ import annotations

from ..options import CommandParser, add_layout, add_processing, check_steps


def run(words: list[str]) -> None:
    """Carry out the command.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: OUT cannot be written.
        ValueError: no reader knows the file, or it is damaged (where, and why).
    """
    parser = CommandParser(
        "import",
        "FILE OUT",
        "Convert a motion file to the packed format: .npz (ragged, MAMP, CTR-GCN), .pkl (PYSKL), .json "
        "(COCO key points, AlphaPose, a clip of NW-UCLA), .csv (frame, body, joint, x, y[, z][, confidence][, clip]).",
    )
    parser.add_argument("file", metavar="FILE", help="the file to read")
    parser.add_argument("out", metavar="OUT", help="the packed file to write, for example ucla.safetensors")
    group = parser.add_argument_group("reading")
    add_layout(group, "the skeleton of a file that does not tell it")
    group.add_argument("--min-confidence", type=float, metavar="NUMBER",
        help="mark joints of a lower confidence as not seen; by default those of confidence 0")  # fmt: skip
    add_processing(parser)
    given = parser.parse(words)
    check_steps(given.preprocess)
    from ...data import import_file

    print(
        import_file(
            given.file,
            given.out,
            steps=given.preprocess,
            preset=given.preset,
            dtype=given.dtype,
            layout=given.layout,
            min_confidence=given.min_confidence,
        )
    )
