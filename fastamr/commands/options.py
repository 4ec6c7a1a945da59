"""Options that the commands which write packed files share."""

from __future__ import annotations

import argparse

from ..skeleton import LAYOUTS


def add_processing(parser: argparse.ArgumentParser) -> None:
    """Add ``--preset``, ``--steps`` and ``--dtype``."""
    from ..data.preprocessing.presets import PRESETS

    parser.add_argument(
        "--preset", choices=list(PRESETS), metavar="NAME", help=f"a recipe of the field: {', '.join(PRESETS)}"
    )
    parser.add_argument(
        "--steps", nargs="*", default=[], metavar="STEP",
        help="pre-processing to apply after that, as center align_body resample:fps=30",
    )  # fmt: skip
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16"],
        default="float32",
        help="of the coordinates; float16 is for centred data",
    )


def add_layout(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--layout``."""
    parser.add_argument(
        "--layout", choices=list(LAYOUTS), metavar="NAME", help=f"{text}: {', '.join(LAYOUTS)}"
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add ``--layout`` and ``--min-confidence``, what a reader may need to know beside the file."""
    add_layout(parser, "the skeleton of a file that does not tell it")
    parser.add_argument(
        "--min-confidence", type=float, metavar="X",
        help="mark joints of a lower confidence as not seen (default: those of confidence 0)",
    )  # fmt: skip


def check_steps(parser: argparse.ArgumentParser, steps: list[str]) -> None:
    """End the command with a usage error unless all steps exist."""
    from ..data.preprocessing.apply import parse_steps

    try:
        parse_steps(steps)
    except (TypeError, ValueError) as error:
        parser.error(f"argument --steps: {error}")
