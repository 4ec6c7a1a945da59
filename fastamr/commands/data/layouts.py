"""``fastamr layouts [NAME]``: the built-in skeleton layouts, or the joints of one."""

from __future__ import annotations

from pathlib import Path

from ...documents import printable_lines
from ...layouts.about import USERS, tree_text
from ...skeleton import LAYOUTS, SkeletonLayout, get_layout
from ...tables import aligned
from ..options import CommandParser, usage


def run(words: list[str]) -> None:
    """Carry out the command."""
    text = "List the built-in skeleton layouts, or show the joints of one, as text and as pictures."
    parser = CommandParser("layouts", "[NAME]", text)
    parser.add_argument("name", metavar="NAME", nargs="?",
        help="a built-in layout, or a YAML or JSON file with name, joints and parents")  # fmt: skip
    parser.add_argument("--out", metavar="PATH",
        help="draw: with NAME a picture (.png, .svg, .pdf), else a folder for a picture of each")  # fmt: skip
    given = parser.parse(words)
    layout = None if given.name is None else usage(get_layout, given.name)
    print(printable_lines(_overview() if layout is None else describe(layout)))
    if given.out is not None:
        from ...visualization.figures import picture_format

        if layout is not None:
            usage(picture_format, given.out)
        _draw(given.out, layout)


def _draw(out: str, layout: SkeletonLayout | None) -> None:
    from ...files import make_folder
    from ...visualization.layout_picture import draw_layout

    pictures = (
        {Path(out): layout}
        if layout is not None
        else {Path(out) / f"{one.name}.png": one for one in LAYOUTS.values()}
    )
    for path, one in pictures.items():
        draw_layout(make_folder(path), one)
    print(f"\n{len(pictures)} picture{'s' * (len(pictures) > 1)} in {out}")


def _overview() -> str:
    rows = [("layout", "joints", "usual", "used by")]
    rows += [(name, str(LAYOUTS[name].num_joints), *USERS[name]) for name in LAYOUTS]
    return (
        aligned(rows, left=(0, 2, 3))
        + "\n\nfastamr layouts NAME shows the joints. Another skeleton: --layout FILE.yaml (name, joints, parents)."
    )


def describe(layout: SkeletonLayout) -> str:
    """Return a layout as text: its joints in the order of the coordinates, its tree, its sides."""
    channels, users = USERS.get(layout.name, ("", "a layout of your own"))
    rows = [("index", "joint", "parent")]
    rows += [
        (str(joint), name, layout.joints[parent] if parent >= 0 else "-")
        for joint, (name, parent) in enumerate(zip(layout.joints, layout.parents, strict=True))
    ]

    def named(pair: tuple[int, int] | None, word: str) -> str:
        return "none" if pair is None else f"{layout.joints[pair[0]]} {word} {layout.joints[pair[1]]}"

    lines = [
        f"{layout.name}: {layout.num_joints} joints" + f", {channels}" * bool(channels) + f"; {users}",
        f"hips   {named(layout.hips, 'and')}",
        f"trunk  {named(layout.spine, 'to')}",
        f"pairs  {len(layout.pairs)} of left and right",
    ]
    return "\n\n".join(
        ["\n".join(lines), aligned(rows, left=(1, 2)), tree_text(layout.joints, layout.parents)]
    )
