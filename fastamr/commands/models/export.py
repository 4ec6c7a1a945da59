"""``fastamr export CHECKPOINT --onnx FILE.onnx | --torch-export FILE.pt2``: a model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..options import FLAG, CommandParser


def run(words: list[str]) -> None:
    """Carry out the command."""
    given = _parser().parse(words)
    if given.onnx is None and given.torch_export is None:
        raise UsageError("nothing to write: give --onnx FILE.onnx, --torch-export FILE.pt2, or both")
    from ...export import export_onnx, export_program
    from ...export.description import check_ending
    from ...features.run_settings import run_steps
    from ...files import check_writable, make_folder
    from ...models import ActionClassifier, load_pretrained
    from ...models.base import model_files, read_description

    for path, ending in ((given.onnx, ".onnx"), (given.torch_export, ".pt2")):
        if path is not None:
            check_ending(path, ending)
            check_writable(path, *model_files(given.checkpoint))
    steps: Any = ()
    model: Any
    if read_description(given.checkpoint)["model"] == ActionClassifier.name:
        model = ActionClassifier.from_pretrained(given.checkpoint)
        if given.encoder:
            steps, model = model.steps, model.encoder
    else:
        model, steps = load_pretrained(given.checkpoint), run_steps(given.checkpoint)
    kind = "classifier" if isinstance(model, ActionClassifier) else "encoder"
    if given.onnx is not None:
        difference = export_onnx(
            model, make_folder(given.onnx), steps=steps, opset=given.opset, pooling=given.pooling
        )
        size = Path(given.onnx).stat().st_size / 1e6
        print(
            f"{kind} written to {given.onnx} ({size:.2f} MB); onnxruntime differs from the model by {difference:.1g} "
            "of the largest output"
        )
    if given.torch_export is not None:
        export_program(model, make_folder(given.torch_export), steps=steps, pooling=given.pooling)
        print(f"{kind} written to {given.torch_export}")


def _parser() -> CommandParser:
    text = "Write a classifier, or an encoder, as a file for other runtimes. The batch size is free."
    parser = CommandParser("export", "CHECKPOINT", text)
    parser.add_argument("checkpoint", metavar="CHECKPOINT",
        help="folder of a classifier (fastamr finetune, distill) or of a run, a shipped model, or owner/name of the "
        "Hugging Face Hub")  # fmt: skip
    add = parser.add_argument_group("files").add_argument
    add("--onnx", metavar="FILE.onnx", help="write ONNX, and compare it with the model in onnxruntime")
    add("--torch-export", metavar="FILE.pt2", help="write what torch.export.load reads")
    add("--encoder", action=FLAG, help="of a classifier's folder, write the encoder alone")
    add("--pooling", default="mean", metavar="NAME",
        help="of an encoder's features: mean (default), regions, regions+time or mean+max")  # fmt: skip
    add("--opset", type=int, help="version of ONNX's operators, by default PyTorch's choice")
    return parser
