"""From an encoder to a file that runs without PyTorch: a classifier, a small student of it, ONNX, an answer.

python examples/distill_and_export.py runs/amr --data synthetic --out runs/student

The encoder is the folder of a run (examples/pretrain_and_probe.py). The student learns from labels and teacher. What
is written is compared with the model; examples/onnx_without_torch.py runs it where only onnxruntime is.
"""

import argparse
from pathlib import Path

from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.export import export_onnx, load_predictor
from fastamr.finetuning.classifier import ClassifierConfig, train_classifier
from fastamr.finetuning.distill import distill
from fastamr.finetuning.distill_config import DistillConfig
from fastamr.models import ActionClassifier


def main(words: list[str] | None = None) -> Path:
    """Return the path of the ONNX file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", help="the folder of a run")
    parser.add_argument("--data", default="synthetic", help="a packed file with labels and a split")
    parser.add_argument("--clips", type=int, default=2048, help="how many to generate")
    parser.add_argument("--out", type=Path, default=Path("runs/student"))
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args(words)
    if given.data == "synthetic":
        data = synthetic_actions(given.clips)
    else:
        data = PackedSkeletons.load(given.data)
    teacher, student, recipe = given.out / "teacher", given.out / "student", {"epochs": given.epochs}

    config = ClassifierConfig(given.encoder, [given.data], str(teacher), recipe=recipe, overwrite=True)
    train_classifier(config, data=data)

    small = {"width": 32, "depth": 2, "heads": 2}
    options = {"student": small, "recipe": recipe, "latency": False, "overwrite": True}
    distill(DistillConfig(str(teacher), [given.data], str(student), **options), data=data)

    path = given.out / "student.onnx"
    difference = export_onnx(ActionClassifier.from_pretrained(student), path)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, at most {difference:.1e} from the model")

    clip = data.select([int(data.splits["official"].test.nonzero()[0])])
    for answer in load_predictor(path).predict(clip, top=1):
        print(f"{answer}; it is {data.label_names[int(clip.labels[0])]}")
    return path


if __name__ == "__main__":
    main()
