"""``fastamr predict --model MODEL INPUT``: the actions in a skeleton file or a stream."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..options import FLAG, CommandParser, add_reading, reading

if TYPE_CHECKING:
    from ...export import Answer

STREAM = "-"


def run(words: list[str]) -> None:
    """Carry out the command."""
    given = _parser().parse(words)
    from ...data import read
    from ...export import load_predictor, predict_stream
    from ...files import check_writable, make_folder, write_text
    from ...models.base import model_files

    if given.out:
        check_writable(given.out, given.input, *model_files(given.model))

    predictor = load_predictor(given.model, batch_size=given.batch_size, device=given.device)
    names = ("top", "window", "stride", "per_body")
    options = {name: given[name] for name in names}
    answers: Iterator[Answer]
    if given.input == STREAM:
        answers = predict_stream(predictor, sys.stdin, fps=given.fps, **options)
    else:
        data = read(given.input, **reading(given))
        answers = predictor.predict(data, **options)
    lines = (json.dumps(answer.to_dict()) if given.json else str(answer) for answer in answers)
    if given.out:
        text = "".join(f"{line}\n" for line in lines)
        write_text(make_folder(given.out), text)
        return
    for line in lines:
        # At once: whoever reads a stream's answers waits for them.
        print(line, flush=True)


def _window(word: str) -> int | str:
    """Return the frames of a window, or ``auto``."""
    if word == "auto":
        return word
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is neither a number of frames nor auto") from None


def _parser() -> CommandParser:
    parser = CommandParser(
        "predict",
        "INPUT --model MODEL",
        "Name the actions in a skeleton file or a stream, with times.",
        epilog="A stream is a line of JSON a frame: one body [[x, y, z], ...] with a triple a joint (null = not seen), "
        'several [BODY, ...], nobody [], or {"time": seconds, "bodies": ...}.',
    )
    text = "any file that fastamr import reads, or - for a stream on standard input"
    parser.add_argument("input", metavar="INPUT", help=text)
    add = parser.add_argument_group("model and answers").add_argument
    add("--model", required=True, metavar="MODEL",
        help="folder of a classifier (fastamr finetune, distill), owner/name of one on the Hugging Face Hub, or an "
        "exported file *.onnx")  # fmt: skip
    add("--top", type=int, default=5, metavar="K", help="classes of an answer")
    add("--window", type=_window, metavar="FRAMES",
        help="slide a window of so many frames, or auto: of as much time as the training clips' median; by default "
        "whole clips, of a stream auto")  # fmt: skip
    add("--stride", type=int, metavar="FRAMES",
        help="from one window to the next; by default half a window, of a stream a quarter")  # fmt: skip
    add("--per-body", action=FLAG,
        help="name what each person does; by default the people of a clip make one answer")  # fmt: skip
    add("--json", action=FLAG, help="write a line of JSON an answer")
    add("--out", metavar="FILE", help="write to a file, in one piece at the end, instead of standard output")
    add("--device", default="cpu", metavar="NAME", help="of a classifier's folder: cpu, cuda or auto")
    group = parser.more("how the file is read")
    add_reading(group)
    group.add_argument("--batch-size", type=int, default=64, metavar="CLIPS", help="clips at a time")
    return parser
