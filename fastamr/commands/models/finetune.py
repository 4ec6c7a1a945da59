"""``fastamr finetune --model MODEL --data FILE --out DIR``: train a classifier on an encoder and save it."""

from __future__ import annotations

from ...finetuning import classifier
from ...finetuning.classifier import ClassifierConfig
from ...finetuning.finetune import FinetuneConfig
from ..options import CommandParser
from ..settings import add_config, build


def run(words: list[str]) -> None:
    """Carry out the command."""
    text = "Train a classifier on a pre-trained encoder and save it."
    parser = CommandParser("finetune", "--model MODEL --data FILE...", text)
    names = "checkpoint data split train_on label_numbers out frozen seed device resume overwrite"
    first = {"encoder, data and folder": names}
    parser.add_fields(ClassifierConfig, first, skip=("recipe",), other_names={"checkpoint": "--model"})
    first = {"recipe": "epochs batch_size lr"}
    parser.add_fields(FinetuneConfig, first, rest="more of the recipe", part="recipe")
    add_config(parser.more("files"))
    classifier.train_classifier(build(parser, ClassifierConfig, words))
