"""``fastamr convert IN OUT``: packed data in another joint layout, or with more pre-processing."""

from __future__ import annotations

from ...data.preprocessing.convert_layout import MISSING, joint_map
from ...errors import UsageError
from ...skeleton import get_layout
from ..options import CommandParser, add_labels, add_layout, add_processing, choice


def run(words: list[str]) -> None:
    """Carry out the command."""
    text = "Write packed data in another joint layout, with more pre-processing, or both (layout first)."
    parser = CommandParser("convert", "IN OUT", text)
    parser.add_argument("source", metavar="IN", help="a packed file, as fastamr import or prepare writes it")
    parser.add_argument("out", metavar="OUT", help="the packed file to write")
    group = parser.add_argument_group("layout")
    add_layout(group, "the new joint layout")
    group.add_argument(
        "--missing", **choice("missing", MISSING), default="interpolate",
        help="joints that IN lacks: interpolate them where a rule tells how and mark the rest as not seen, "
        "mask all of them, or refuse to convert",
    )  # fmt: skip
    add_labels(parser)
    add_processing(parser)
    given = parser.parse(words)
    asked = []
    if given.layout is not None:
        asked = [{"name": "convert", "layout": given.layout, "missing": given.missing}]
    if not (asked or given.labels or given.preset or given.preprocess or given.dtype == "float16"):
        raise UsageError("nothing to do: give --layout, --labels, --preset, --preprocess or --dtype float16")

    from ...data import PackedSkeletons, label_clips, preprocess
    from ...data.packed.file import check_packed_target
    from ...data.preprocessing.presets import preset_steps
    from ...files import make_folder

    check_packed_target(given.out, given.source, given.labels, given.layout)
    data = PackedSkeletons.load(given.source)
    if given.layout is not None and data.layout != get_layout(given.layout):
        plan = joint_map(data.layout, given.layout)
        print(plan.masked() if given.missing == "mask" else plan)
    if given.labels is not None:
        data = label_clips(data, given.labels)
    data = preprocess(data, [*asked, *preset_steps(given.preset), *given.preprocess])
    if given.dtype == "float16":
        data = data.half()
    data.save(make_folder(given.out))
    print(data.summary())
