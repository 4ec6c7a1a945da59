"""``fastamr distill --teacher DIR --data FILE --out DIR``: a small classifier that learns from a large one."""

from __future__ import annotations

from ...finetuning import distill
from ...finetuning.distill_config import DistillConfig, StudentConfig, StudentRecipe
from ..options import CommandParser
from ..settings import add_config, build


def run(words: list[str]) -> None:
    """Carry out the command."""
    distill.distill(build(_parser(), DistillConfig, words))


def _parser() -> CommandParser:
    text = "Train a small classifier that learns from a large one."
    parser = CommandParser("distill", "--teacher DIR --data FILE... --out DIR", text)
    first = {"teacher, data and folder": "teacher data split label_numbers out seeds device"}
    more = {
        "few labels, and clips without": "label_share label_seed unlabelled_data unlabelled_rest unlabelled_share"
    }
    more |= {"what the teacher teaches": "temperature soft feature"}
    parser.add_fields(DistillConfig, first, more, skip=("student", "recipe"))
    parser.add_fields(StudentConfig, {"the student": "width depth heads patch_frames"}, part="student")
    parser.add_fields(
        StudentRecipe, {"recipe": "epochs batch_size lr"}, rest="more of the recipe", part="recipe"
    )
    add_config(parser.more("files"))
    return parser
