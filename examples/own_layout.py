"""A skeleton that no data set has: name its joints, pack its motion, pre-train on it, and use its features.

python examples/own_layout.py --out runs/lamp --updates 200

The skeleton is a desk lamp, the motion two of its habits. Joints named left and right are pairs. For the command line
a YAML file says the same: `--layout lamp.yaml`, with the keys name, joints and parents.
"""

import argparse

import numpy as np
import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.evaluation import extract_features, knn_accuracy
from fastamr.models import load_pretrained
from fastamr.skeleton import SkeletonLayout
from fastamr.training import PretrainConfig, pretrain

JOINTS = ("foot", "knee", "neck", "shade_left", "shade_right")
LAMP = SkeletonLayout.from_joints("lamp", JOINTS, (-1, 0, 1, 2, 2))
REST = [[0, 0, 0], [0.1, 0.2, 0], [0, 0.4, 0], [0.1, 0.4, 0.05], [0.1, 0.4, -0.05]]
SMALL = {"frames": 16, "width": 32, "depth": 2, "heads": 2, "mask_ratio": 0.7}
SMALL |= {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}


def motion(habit: int, random: np.random.Generator) -> np.ndarray:
    """Return a clip ``(T, 1, V, 3)`` in metres: nodding is up and down, looking around sideways."""
    turns = np.linspace(0, random.uniform(2, 4), random.integers(20, 40)) + random.uniform(0, 1)
    clip = np.tile(REST, (len(turns), 1, 1))
    clip[:, 3:, 1 if habit == 0 else 2] += 0.06 * np.sin(2 * np.pi * turns)[:, None]
    return (clip + random.normal(0, 0.001, clip.shape))[:, None].astype(np.float32)


def main(words: list[str] | None = None) -> float:
    """Return the accuracy of 1-NN on the frozen features, in percent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/lamp")
    parser.add_argument("--updates", type=int, default=200)
    given = parser.parse_args(words)
    random = np.random.default_rng(0)
    labels, train = torch.arange(80) % 2, torch.arange(80) < 60
    clips = [motion(int(habit), random) for habit in labels]
    names, splits = ["nods", "looks around"], {"official": Split(train, ~train)}
    facts = {"label_names": names, "fps": 30, "splits": splits}
    data = PackedSkeletons.from_clips(clips, layout=LAMP, labels=labels, **facts)
    recipe = {"updates": given.updates, "batch_size": 20, "min_frames": 16, "preprocess": []}
    run = pretrain(PretrainConfig("skeleton_mae", SMALL, out=given.out, **recipe), data=data)
    features = extract_features(load_pretrained(run), data)
    accuracy = knn_accuracy(features[train], data.labels[train], features[~train], data.labels[~train])
    print(f"1-NN on {len(features[~train])} clips of a lamp that {' or '.join(names)}: {accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
