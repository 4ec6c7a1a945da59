"""``fastamr bench recipe``: the full pipeline on data of NTU RGB+D 60's size, projected to a whole run."""

from __future__ import annotations

from ...benchmarking import RecipeOptions, run_recipe
from ...benchmarking.ntu_sized import PRESETS
from ...benchmarking.recipe import as_text
from ...files import write_text
from ..spelling import notice
from .common import bench_parser, make_out, parse, write_json

FIRST = {"what": "updates full clips batch_size precision seed progress"}


def run(words: list[str]) -> None:
    """Carry out the command."""
    parser = bench_parser("recipe", "the full pipeline on data of NTU RGB+D 60's size, projected", words)
    parser.add_fields(RecipeOptions, FIRST, skip=("preset", "model", "architecture", "device"))
    more = parser.more("data and length")
    more.add_argument(
        "--recipe", default=RecipeOptions.preset, metavar="NAME", help=f"of {', '.join(PRESETS)}"
    )
    given = parse(parser, _recipe_named(words))
    folder = given.pop("out")
    options = RecipeOptions(preset=given.pop("recipe"), **given)
    out = make_out(folder)
    report = run_recipe(options, out)
    print(as_text(report))
    write_json(out / "recipe.json", report)
    write_text(out / "recipe.txt", as_text(report) + "\n")
    print(f"written to {out}")


def _recipe_named(words: list[str]) -> list[str]:
    """Name the recipe with ``--recipe`` where ``--preset`` does, as it did in the last release."""
    words = [part for word in words for part in (word.split("=") if word.startswith("--preset=") else [word])]
    for place, word in enumerate(words[1:]):
        if words[place] == "--preset" and word in PRESETS:
            notice(f"--preset {word} is now written --recipe {word}")
            words[place] = "--recipe"
    return words
