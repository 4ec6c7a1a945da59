"""The files and folders that the pages name, small: what a reader has when a page begins."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastamr.data import PackedSkeletons, preprocess, synthetic_actions
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.export import export_onnx
from fastamr.finetuning.classifier import ClassifierConfig, train_classifier
from fastamr.models import ActionClassifier
from fastamr.skeleton import get_layout
from fastamr.training import PretrainConfig, pretrain

from ..data.prepare.ntu_folder import fill
from ..data.readers.writers import (
    frames_of,
    pku_label_text,
    pku_split_text,
    pku_text,
    skeleton_text,
    standing,
)
from ..data.readers.writers_generic import (
    csv_rows,
    pyskl_annotation,
    write_alphapose,
    write_csv,
    write_nw_ucla,
    write_pyskl,
)
from ..data.readers.writers_motion import write_actions

MODEL = {"frames": 16, "width": 16, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1}
SMALL_AMR = MODEL | {"decoder_heads": 1, "target_patches": 2, "mask_ratio": 0.75}


@functools.cache
def motion(layout: str = "ntu25", *splits: str) -> PackedSkeletons:
    """Return 32 clips of four actions."""
    actions = ["push", "punch", "throw", "handshake"]
    data = synthetic_actions(32, actions=actions, frames=(10, 16), subjects=8, train_share=0.5)
    halves = dict.fromkeys(splits or ("official",), data.splits["official"])
    if layout != data.layout.name:
        data = preprocess(data, [f"convert:layout={layout}"])
    return dataclasses.replace(data, splits=halves, steps=())


@functools.cache
def _kept() -> Path:
    """Return a folder for what is made once and copied."""
    return Path(tempfile.mkdtemp(prefix="fastamr-docs-"))


def packed(layout: str = "ntu25", *splits: str) -> Callable[[Path], None]:
    """Return the maker of a packed file."""
    return lambda path: motion(layout, *splits).save(path)


def run_of(layout: str, split: str, data: str) -> Callable[[Path], None]:
    """Return the maker of a run of AMR with an evaluation; its config.yaml names the data as the page does."""

    def make(path: Path) -> None:
        kept = _kept() / f"{layout}-{split}"
        if not kept.is_dir():
            clips = motion(layout, split)
            settings = {"updates": 3, "batch_size": 8, "min_frames": 8, "log_every": 1, "split": split}
            folder = {"out": str(kept), "tensorboard": False, "progress": False, "device": "cpu"}
            pretrain(PretrainConfig(architecture=SMALL_AMR, **settings, **folder), data=clips)
            config = EvaluateConfig(str(kept), [data], protocol="knn", split=split, cache=False)
            evaluate(config, data=clips, quiet=True)
        shutil.copytree(kept, path)
        PretrainConfig.load(path / "config.yaml", data=[data]).save(path / "config.yaml")

    return make


def classifier(path: Path) -> None:
    """Make the folder of a classifier of 3-D skeletons of NTU RGB+D."""
    kept = _kept() / "classifier"
    if not kept.is_dir():
        run_of("ntu25", "xsub", "ntu60.safetensors")(_kept() / "teacher")
        recipe = {"epochs": 1, "batch_size": 8, "hidden": 8, "min_frames": 8}
        config = ClassifierConfig(str(_kept() / "teacher"), [], out=str(kept), split="xsub", recipe=recipe)
        train_classifier(config, data=motion("ntu25", "xsub"), quiet=True)
    shutil.copytree(kept, path)


def onnx(path: Path) -> None:
    """Make an ONNX file of the classifier."""
    folder = path.with_suffix(".folder")
    classifier(folder)
    export_onnx(ActionClassifier.from_pretrained(folder), path)


def ntu_raw(path: Path) -> None:
    """Make 16 raw files of NTU RGB+D: two cameras, four people, training subjects and others."""
    names = [
        f"S{1 + place // 8:03}C{1 + place % 2:03}P{1 + place % 4:03}R001A{1 + place // 4:03}"
        for place in range(16)
    ]
    fill(
        path,
        {
            f"{name}.skeleton": skeleton_text(frames_of((7, 0, standing(13 + k, k))))
            for k, name in enumerate(names)
        },
    )


def pku_raw(ending: str) -> Callable[[Path], None]:
    """Return the maker of a phase of PKU-MMD: four streams of two actions."""

    def make(path: Path) -> None:
        files = {}
        for place, name in enumerate(names := ["0002-L", "0003-M", "0004-R", "0005-L"]):
            stream = np.stack([standing(90, place), np.zeros((90, 25, 3), np.float32)], axis=1)
            stream[30 * (place % 2) :, 0, :, 0] += 1
            files[f"skeleton/{name}.txt"] = pku_text(stream)
            files[f"label/{name}.txt"] = pku_label_text([(1 + place % 2, 5, 40, 1), (3, 45, 85, 1)])
        for protocol in ("subject", "view"):
            files[f"cross{ending[:1] or '-'}{protocol}{ending}.txt"] = pku_split_text(names[:2], names[2:])
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)

    return make


def nw_ucla_zip(path: Path) -> None:
    """Make a zip archive of NW-UCLA's files."""
    clips = {
        f"a{action:02}_s{subject:02}_e00_v{view:02}": standing(9 + subject, action)[:, :20]
        for action in (1, 2, 12) for subject in (1, 2) for view in (1, 2, 3)
    }  # fmt: skip
    folder = path.with_suffix("")
    write_nw_ucla(folder, clips)
    shutil.make_archive(str(folder), "zip", folder)


def pyskl(path: Path) -> None:
    """Make an annotation file of PYSKL."""
    names = [f"S001C00{1 + k % 2}P00{1 + k}R001A001" for k in range(6)]
    notes = [pyskl_annotation(name, standing(9, k)[None], 0) for k, name in enumerate(names)]
    write_pyskl(path, notes, {"xsub_train": names[:3], "xsub_val": names[3:]})


def npz(layout: str) -> Callable[[Path], None]:
    """Return the maker of a ragged archive with the first body of each clip."""

    def make(path: Path) -> None:
        data, skeleton = motion(layout), get_layout(layout)
        first = [int(place) for place in (data.body_clip.diff(prepend=data.body_clip[:1] - 1) > 0).nonzero()]
        clips = [data.coords[int(data.offsets[k]) : int(data.offsets[k + 1])].numpy() for k in first]
        train = data.splits["official"].train.numpy()
        np.savez(
            path, x=np.concatenate(clips)[:, None], offsets=np.cumsum([0, *map(len, clips)]),
            label=data.labels.numpy(), is_train=train, is_train_dedup=train, split_name=np.array("official"),
            joint_names=np.array(skeleton.joints), parents=np.array(skeleton.parents),
        )  # fmt: skip

    return make


def poses(path: Path) -> None:
    """Make a list of AlphaPose: 12 images of one person."""
    points = standing(12)[:, :17, :2] * 100 + 300
    write_alphapose(path, [(f"{place:04}.jpg", frame, 1) for place, frame in enumerate(points)])


def recording(path: Path) -> None:
    """Make a table of one clip of 90 frames."""
    rows = csv_rows("first", standing(90)[:, None], get_layout("ntu25").joints)
    write_csv(path, rows, ["clip", "frame", "body", "joint", "x", "y", "z"])


def frame_lines(path: Path) -> None:
    """Make a stream of 90 poses, a line of JSON each."""
    path.write_text("".join(json.dumps(pose.tolist()) + "\n" for pose in standing(90)), encoding="utf-8")


def actions(kind: str) -> Callable[[Path], None]:
    """Return the maker of a folder with six clips each of four actions, a folder an action."""
    names = ("bow", "kick", "squat", "wave")
    return lambda path: write_actions(path, kind, actions=names, clips=6, frames=(30, 45))


def labels_of_moves(path: Path) -> None:
    """Make a table of the clips in ``moves`` beside it: six people who do everything once."""
    clips = sorted((path.parent / "moves").glob("*/*.csv"))
    rows = [
        f"{clip.parent.name}/{clip.name},{clip.parent.name},{1 + place % 6}"
        for place, clip in enumerate(clips)
    ]
    path.write_text("\n".join(["name,label,subject", *rows]) + "\n", encoding="utf-8")


def names_of_clips(path: Path) -> None:
    """Make a list of clips to skip."""
    path.write_text("S001C002P002R001A001\n", encoding="utf-8")


def settings(path: Path) -> None:
    """Make a YAML file of one's own."""
    path.write_text("model: amr\narchitecture: {width: 32}\nlr: 1e-3\n", encoding="utf-8")


NTU = {
    "ntu60.safetensors": packed("ntu25", "xsub", "xview"),
    "runs/amr": run_of("ntu25", "xsub", "ntu60.safetensors"),
}
UCLA = {"ucla.safetensors": packed("kinect20", "official", "dedup")}

PREPARED: dict[str, dict[str, Callable[[Path], None]]] = {
    "README.md": {
        "moves": actions("csv"),
        "DOWNLOADS": ntu_raw,
        "motion.npz": npz("ntu25"),
    },
    "docs/results.md": {"../shared/data/nw_ucla/nw_ucla.npz": npz("kinect20")},
    "docs/quickstart.md": {"moves": actions("csv")},
    "docs/tutorials/ntu60.md": {
        "DOWNLOADS": ntu_raw,
        "NTU_RGBD_samples_with_missing_skeletons.txt": names_of_clips,
        "amr.yaml": settings,
        "runs/amr/seed-0": run_of("ntu25", "xsub", "ntu60.safetensors"),
    },
    "docs/pretraining.md": NTU | UCLA | {"my.yaml": settings, "own.safetensors": packed()},
    "docs/body.md": NTU | UCLA | {
        "msr.safetensors": packed("kinect20", "official"),
        "sbu.safetensors": packed("sbu15", "official"),
        "own.safetensors": packed("h36m17", "official"),
    },
    "docs/data.md": {
        "DOWNLOADS": ntu_raw,
        "NTU_RGBD_samples_with_missing_skeletons.txt": names_of_clips,
        "NTU_RGBD120_samples_with_missing_skeletons.txt": names_of_clips,
        "PKU_V1": pku_raw(""),
        "PKU_V2": pku_raw("_v2"),
        "all_sqe.zip": nw_ucla_zip,
        "ntu60_3danno.pkl": pyskl,
        "recording.csv": recording,
        "poses.json": poses,
        "video.safetensors": packed("coco17"),
        "runs/amr": run_of("ntu25", "xsub", "ntu60.safetensors"),
        "runs/mae": run_of("ntu25", "xsub", "ntu60.safetensors"),
    },
    "docs/evaluation.md": NTU | UCLA | {
        "PKU_V1": pku_raw(""),
        "runs/ucla": run_of("kinect20", "official", "ucla.safetensors"),
        "runs/ntu": run_of("ntu25", "xsub", "ntu60.safetensors"),
        "runs/pku": run_of("ntu25", "xsub", "pku1.safetensors"),
        "runs/mae": run_of("ntu25", "xsub", "ntu60.safetensors"),
    },
    "docs/own_data.md": {
        "moves": actions("csv"),
        "labels.csv": labels_of_moves,
        "pose": actions("yolo"),
        "landmarks": actions("mediapipe"),
    },
    "docs/distillation.md": NTU
    | {"runs/classifier": classifier, "clip.safetensors": packed(), "own.safetensors": packed()},
    "docs/weights.md": {"own.safetensors": packed("coco17")},
    "docs/export.md": NTU | {
        "recording.csv": recording,
        "clip.safetensors": packed(),
        "clips.safetensors": packed(),
        "frames.jsonl": frame_lines,
    },
}  # fmt: skip


def prepare_page(page: str, folder: Path) -> None:
    """Make what a page names below a folder."""
    for name, make in PREPARED.get(page, {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
