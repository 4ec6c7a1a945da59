"""Pre-train an encoder, probe its frozen features, and look up which training clips a test clip resembles.

python examples/pretrain_and_probe.py --data synthetic --out runs/amr --updates 600

A packed file (`fastamr prepare`, `fastamr import`) takes the place of `synthetic`, which is generated motion.
"""

import argparse

import torch
from torch.nn import functional

from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.data.preprocessing.apply import preprocess
from fastamr.evaluation import extract_features
from fastamr.evaluation.evaluate import evaluate
from fastamr.evaluation.protocols.config import EvaluateConfig
from fastamr.models import load_pretrained
from fastamr.training import PretrainConfig, pretrain

SMALL = {
    "frames": 40, "width": 64, "depth": 4, "heads": 4, "decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4,
    "target_patches": 5, "guidance_windows": [4, 8, 16],
}  # fmt: skip


def main(words: list[str] | None = None) -> float:
    """Return the accuracy of 1-NN on the frozen features, in percent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--clips", type=int, default=2048, help="how many to generate")
    parser.add_argument("--out", default="runs/amr")
    parser.add_argument("--updates", type=int, default=600)
    given = parser.parse_args(words)
    if given.data == "synthetic":
        data = synthetic_actions(given.clips)
    else:
        data = PackedSkeletons.load(given.data)

    config = PretrainConfig(
        model="amr", architecture=SMALL, out=given.out, updates=given.updates, batch_size=32
    )
    folder = pretrain(config, data=data)

    report = evaluate(EvaluateConfig(checkpoint=str(folder), data=[given.data], protocol="knn"), data=data)

    model, split = load_pretrained(folder).eval(), data.splits["official"]
    features = functional.normalize(extract_features(model, preprocess(data, config.preprocess)), dim=1)
    train, clip = split.train.nonzero()[:, 0], int(split.test.nonzero()[0])
    near = train[torch.topk(features[train] @ features[clip], 3).indices].tolist()
    print(f"{data.names[clip]} resembles {', '.join(data.names[one] for one in near)}")
    return report["results"]["encoder"]["knn_1"]["accuracy"]


if __name__ == "__main__":
    main()
