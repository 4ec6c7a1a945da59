"""``fastamr import FILE ... OUT``: motion files and folders of any known kind to the packed format."""

from __future__ import annotations

from ..options import CommandParser, add_labels, add_processing, add_reading, reading


def run(words: list[str]) -> None:
    """Carry out the command."""
    from ...data.readers.registry import endings

    text = f"Convert motion files to the packed format: {endings()}."
    parser = CommandParser("import", "FILE ... OUT", text)
    parser.add_argument("file", metavar="FILE", nargs="+", help="the files and folders to read")
    parser.add_argument("out", metavar="OUT", help="the packed file to write, for example ucla.safetensors")
    add_labels(parser)
    add_reading(parser.add_argument_group("reading"))
    add_processing(parser)
    given = parser.parse(words)
    from ...data import import_file

    print(
        import_file(
            given.file[0] if len(given.file) == 1 else given.file,
            given.out,
            steps=given.preprocess,
            preset=given.preset,
            dtype=given.dtype,
            labels=given.labels,
            **reading(given),
        )
    )
