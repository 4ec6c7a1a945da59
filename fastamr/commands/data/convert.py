"""``fastamr convert IN OUT``: packed data in another joint layout, or with more pre-processing."""

from __future__ import annotations

import argparse

from ..options import add_layout, add_processing, check_steps


def run(arguments: list[str]) -> None:
    """Carry out the command.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: OUT cannot be written.
        ValueError: the file is not packed data, or what is asked for does not suit it.
    """
    parser = argparse.ArgumentParser(
        prog="fastamr convert",
        description="Write packed data in another joint layout, with more pre-processing, or both (layout first).",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="IN", help="a packed file, as fastamr import or prepare writes it")
    parser.add_argument("out", metavar="OUT", help="the packed file to write")
    add_layout(parser, "the new joint layout")
    parser.add_argument(
        "--missing", choices=["interpolate", "mask", "refuse"], default="interpolate",
        help="joints that IN lacks: interpolate them where a rule tells how and mark the rest as not seen (default), "
        "mask all of them, or refuse to convert",
    )  # fmt: skip
    add_processing(parser)
    given = parser.parse_args(arguments)
    check_steps(parser, given.steps)
    asked = (
        []
        if given.layout is None
        else [{"name": "convert", "layout": given.layout, "missing": given.missing}]
    )
    if not (asked or given.preset or given.steps or given.dtype == "float16"):
        parser.error("nothing to do: give --layout, --preset, --steps or --dtype float16")

    from ...data import PackedSkeletons, preprocess
    from ...data.preprocessing.convert_layout import joint_map
    from ...data.preprocessing.presets import preset_steps
    from ...files import check_writable, make_folder

    check_writable(given.out)
    data = PackedSkeletons.load(given.source)
    if given.layout is not None and data.layout.name != given.layout:
        print(joint_map(data.layout, given.layout))
    data = preprocess(data, [*asked, *preset_steps(given.preset), *given.steps])
    if given.dtype == "float16":
        data = data.half()
    data.save(make_folder(given.out))
    print(data.summary())
