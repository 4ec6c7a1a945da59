"""``fastamr cache``: where the compiled extension is kept, and how to empty that folder."""

from __future__ import annotations


def run(words: list[str]) -> None:
    """Carry out the command."""
    from ..native import cache
    from .options import FLAG, CommandParser

    text = "The folder that the compiled extension is kept in, and what lies there. FASTAMR_CACHE names another one."
    parser = CommandParser("cache", "", text)
    parser.add_argument(
        "--clear", action=FLAG, default=False, help="delete what was built; it is built again when it is used"
    )
    given = parser.parse(words)
    print(cache.cache_folder())
    if given.clear:
        print(f"deleted: {cache.clear() / 2**20:.1f} MiB")
        return
    for path in cache.files():
        print(f"  {path} ({path.lstat().st_size / 2**20:.1f} MiB)")
