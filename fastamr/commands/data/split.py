"""``fastamr split DATA``: part packed data into training and test clips."""

from __future__ import annotations

from ...errors import UsageError
from ..options import FLAG, CommandParser, Given


def run(words: list[str]) -> None:
    """Carry out the command."""
    given = _parser().parse(words)
    share, values = _asked(given)
    from ...data import PackedSkeletons, make_split
    from ...data.packed.file import check_packed_target
    from ...files import make_folder

    out = given.out or given.data
    data = PackedSkeletons.load(given.data)
    check_packed_target(out)
    data = make_split(
        data,
        given.by,
        test=share,
        values=values,
        seed=given.seed,
        name=given.name,
        overwrite=bool(given.overwrite),
        say=print,
    )
    data.save(make_folder(out))
    print(f"written to {out}; use it with --split {given.name}")


def _asked(given: Given) -> tuple[float, list[str] | None]:
    """Return the share of test clips, or the values whose clips test."""
    if given.test_values:
        return 0.2, given.test_values
    if len(given.test) == 1:
        try:
            share = float(given.test[0])
        except ValueError:
            share = 1.0
        if 0 < share < 1:
            return share, None
    if given.by in ("random", "clip"):
        raise UsageError(
            f"--test {' '.join(given.test)}: --by {given.by} takes a share between 0 and 1, as --test 0.2"
        )
    return 0.2, given.test


def _parser() -> CommandParser:
    text = "Part packed data into training and test clips, balanced by class, and write that into the file."
    parser = CommandParser("split", "DATA", text)
    parser.add_argument("data", metavar="DATA", help="a packed file, as fastamr import writes it")
    add = parser.add_argument_group("split").add_argument
    add("--by", default="random", metavar="WAY",
        help="what stays on one side: subject, random (recordings, and subjects where the data knows them), recording, "
        "the name of any column (view, session, ...), or clip (nothing)")  # fmt: skip
    add("--test", nargs="+", default=["0.2"], metavar="SHARE|VALUE",
        help="the share of test clips, or the values of --by that test, as --by subject --test 3 5")  # fmt: skip
    add(
        "--test-values",
        nargs="+",
        default=[],
        metavar="VALUE",
        help="the same values, where one looks like a share",
    )
    add("--seed", type=int, default=0, help="of the choice; the same clips and seed give the same split")
    add("--name", default="mine", metavar="NAME", help="what the split is called, for --split NAME")
    add("--out", metavar="FILE", help="write another file and leave DATA as it is")
    add("--overwrite", action=FLAG, help="replace a split of that name")
    return parser
