"""``fastamr evaluate --checkpoint RUN --data FILE``: probe or fine-tune a pre-trained encoder."""

from __future__ import annotations

from ...evaluation.protocols.config import PARTS, EvaluateConfig
from ..options import CommandParser
from ..settings import add_config, build

FIRST = {
    "what is evaluated": "checkpoint data split label_numbers protocol fuse out",
    "how": "seeds standardize device batch_size",
}


def run(words: list[str]) -> None:
    """Carry out the command."""
    from ...evaluation.evaluate import evaluate

    text = "Probe or fine-tune a pre-trained encoder."
    parser = CommandParser("evaluate", "--checkpoint RUN --data FILE...", text)
    parser.add_fields(EvaluateConfig, FIRST, skip=tuple(PARTS))
    for part, config in PARTS.items():
        parser.add_fields(config, {}, rest=f"settings of {part}", part=part)
    add_config(parser.more("files"))
    evaluate(build(parser, EvaluateConfig, words))
