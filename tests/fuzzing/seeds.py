"""Sound files of every kind that is loaded, small, as the tests' writers make them."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.export.description import describe
from fastamr.models import ActionClassifier, MAMPModel, build_model
from fastamr.skeleton import LAYOUTS, get_layout
from fastamr.training.config import PretrainConfig

from ..data.readers import writers, writers_generic, writers_motion, writers_pose, writers_tables
from ..data.readers.mocap.test_bvh import ARM

SMALL = {
    "layout": "sbu15",
    "frames": 8,
    "patch_frames": 2,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
}
MARKERS = "layout: kinect20\njoints:\n  hip_center: [LASI, RASI]\n  knee_left: LKNE\n  knee_right: [RKNE]\n"
LAYOUT = "name: mine\njoints: [hip, chest, head]\nparents: [null, hip, chest]\nspine: [hip, chest]\n"


def data() -> PackedSkeletons:
    """A few clips with labels, a split, columns and gaps."""
    random = np.random.default_rng(0)
    train = torch.arange(6) < 4
    return PackedSkeletons.from_clips(
        [random.normal(size=(5, 1 + place % 2, 15, 3)).astype("f4") for place in range(6)],
        layout="sbu15", labels=[place % 2 for place in range(6)], label_names=["wave", "squat"],
        names=[f"clip{place}" for place in range(6)], splits={"official": Split(train, ~train)},
        columns={"subject": np.array(["a", "b"] * 3)}, fps=30.0,
        valid=[random.random((5, 1 + place % 2, 15)) < 0.9 for place in range(6)],
    )  # fmt: skip


def arrays(compressed: bool, **more: Any) -> bytes:
    """An archive of arrays."""
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **more)
    return file.getvalue()


def files() -> dict[str, bytes]:
    """Content by file name; the ending says which loader is asked."""
    random = np.random.default_rng(1)
    layout = LAYOUTS["sbu15"]
    found: dict[str, bytes] = {}
    x = random.normal(size=(12, 1, 15, 3)).astype("f4")
    about = {
        "offsets": np.array([0, 6, 12]), "label": np.array([0, 1]), "label_names": np.array(["a", "b"]),
        "joint_names": np.array(layout.joints), "parents": np.array(layout.parents), "fps": np.array([30.0, 25.0]),
        "name": np.array(["one", "two"]), "fold": np.array([0, 1]), "is_train": np.array([True, False]),
        "visible": np.ones((12, 1, 15), bool), "subject": np.array([3, 4]), "x_scale": np.array(1.0),
    }  # fmt: skip
    found["packed.npz"] = arrays(False, x=x, **about)
    found["packed_deflated.npz"] = arrays(True, x=x, **about)
    found["ctrgcn.npz"] = arrays(
        False, x_train=random.normal(size=(3, 6, 150)).astype("f4"), y_train=np.eye(60, dtype="f4")[:3],
        x_test=random.normal(size=(2, 6, 150)).astype("f4"), y_test=np.eye(60, dtype="f4")[:2],
    )  # fmt: skip
    found["motion.npz"] = arrays(
        False, positions=random.normal(size=(8, 22, 3)), label=np.array(3), fps=np.array(30)
    )
    for name, shape in (("motion.npy", (7, 22, 3)), ("batch.npy", (2, 3, 7, 33, 1))):
        file = io.BytesIO()
        np.save(file, random.normal(size=shape).astype("f4"))
        found[name] = file.getvalue()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_folder(folder, random)
        found |= {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    found["arm.bvh"] = ARM.encode()
    text = writers.skeleton_text(writers.frames_of((7, 0, writers.standing(4, 1))))
    found["S001C001P001R001A001.skeleton"] = text
    found["clips.zip"] = _archive(
        {"wave/a.csv": found["wide.csv"], "b.csv": found["long.csv"], "c.csv": found["wide.csv"]}
    )
    names = [f"S001C001P00{person}R001A00{action}.skeleton" for person in (1, 2) for action in (1, 2)]
    found["ntu.zip"] = _archive(dict.fromkeys(names, text), zipfile.ZIP_LZMA)
    found["layout.yaml"] = LAYOUT.encode()
    found["layout_of_own.json"] = json.dumps(get_layout("sbu15").to_dict()).encode()
    found["markers.yaml"] = MARKERS.encode()
    return found


def _write_folder(folder: Path, random: np.random.Generator) -> None:
    sbu = LAYOUTS["sbu15"].joints
    clip = writers_pose.motion(6, 2)
    writers_tables.write_wide(
        folder / "wide.csv", random.normal(size=(6, 15, 3)), lambda joint, axis: f"{sbu[joint]}_{axis}"
    )
    writers_tables.write_dlc(folder / "dlc.csv", {"": random.normal(size=(5, 15, 2))}, sbu)
    rows = writers_generic.csv_rows("a", random.normal(size=(4, 1, 15, 3)), sbu, label="wave")
    writers_generic.write_csv(
        folder / "long.csv", rows, ["clip", "frame", "body", "joint", "x", "y", "z", "label"]
    )
    annotations = [
        writers_generic.pyskl_annotation(f"c{place}", random.normal(size=(1, 6, 17, 2)).astype("f4"), place,
                                         keypoint_score=np.ones((1, 6, 17), "f4"), img_shape=(640, 480))
        for place in range(3)
    ]  # fmt: skip
    writers_generic.write_pyskl(folder / "pyskl.pkl", annotations, {"train": ["c0", "c1"], "val": ["c2"]})
    points = random.normal(size=(17, 2)) * 100 + 300
    writers_generic.write_alphapose(
        folder / "alphapose.json", [(f"{frame}.jpg", points + frame, 1) for frame in range(5)]
    )
    seen = np.c_[points, np.full(17, 2)]
    videos = {"v1": {frame: {0: np.add(seen, [frame, 0, 0])} for frame in range(4)}}
    (folder / "coco.json").write_text(json.dumps(writers_generic.coco_document(videos)))
    writers_pose.write(folder / "kinetics.json", writers_pose.kinetics_document(clip))
    writers_pose.write(folder / "mmpose.json", writers_pose.mmpose_frames(clip))
    writers_pose.write(folder / "azure.json", writers_pose.azure_document(writers_pose.motion(5, 1, 32, 3)))
    writers_pose.write(folder / "a_000000000000_keypoints.json", writers_pose.openpose_frame(clip[0]))
    writers_motion.write_clip(folder / "mediapipe", "mediapipe", random.normal(size=(5, 33, 3)))
    writers_generic.write_nw_ucla(folder, {"a01_s01_e00_v01": random.normal(size=(5, 20, 3))})
    lines = [" ".join(f"{value:.3f}" for value in row) for row in random.normal(size=(60, 4))]
    (folder / "a01_s01_e01_skeleton3D.txt").write_text("\n".join(lines) + "\n")
    data().save(folder / "data.safetensors")
    _write_mat(folder, random)
    _write_c3d(folder, random)


def _write_mat(folder: Path, random: np.random.Generator) -> None:
    from scipy.io import savemat

    savemat(folder / "a1_s1_t1_skeleton.mat", {"d_skel": random.normal(size=(20, 3, 6))})
    penn = {
        "x": random.normal(size=(6, 13)),
        "y": random.normal(size=(6, 13)),
        "visibility": np.ones((6, 13)),
    }
    savemat(folder / "penn.mat", {**penn, "action": "jump", "train": 1.0}, do_compression=True)


def _write_c3d(folder: Path, random: np.random.Generator) -> None:
    try:
        from ..data.readers.mocap.test_c3d import LABELS, write_c3d
    except BaseException as error:  # pytest's skip, where the package is absent
        if type(error).__name__ != "Skipped":
            raise
        return
    write_c3d(folder / "walk.c3d", random.uniform(100, 900, (6, 4, 3)).astype("f4"), LABELS)


def _archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def model_files() -> dict[str, dict[str, bytes]]:
    """The files of a saved encoder, a classifier and a run, by folder."""
    found: dict[str, dict[str, bytes]] = {}
    encoder = build_model("mamp", SMALL)
    classifier = ActionClassifier(
        build_model("mamp", SMALL), 2, hidden=8, class_names=["wave", "squat"], steps=[{"name": "center"}]
    )
    for name, model in (("encoder", encoder), ("classifier", classifier)):
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            found[name] = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return found


def released() -> bytes:
    """A checkpoint of MAMP's public code, as PyTorch writes it."""
    from fastamr.models.released import _EMBED, _public_name

    model = MAMPModel(**SMALL)
    weights = {_public_name(name): value.clone() for name, value in model.state_dict().items()}
    width, size = weights[_EMBED].shape
    weights[_EMBED] = weights[_EMBED].reshape(width, size // 3, 3, 1).permute(0, 2, 1, 3).contiguous()
    shapes = {"temp_embed": (1, 4, 1, 16), "pos_embed": (1, 1, 15, 16), "mask_token": (1, 1, 16)}
    weights = {
        name: value.reshape(shapes[name]) if name in shapes else value for name, value in weights.items()
    }
    file = io.BytesIO()
    torch.save({"model": weights, "epoch": 3}, file)
    return file.getvalue()


def description() -> bytes:
    """What an exported classifier says of itself."""
    classifier = ActionClassifier(
        build_model("mamp", SMALL), 2, hidden=8, class_names=["wave", "squat"], steps=[{"name": "center"}]
    )
    return json.dumps(describe(classifier, ("clips",), ("logits",))).encode()


def config() -> bytes:
    """The configuration of a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        PretrainConfig(model="mamp", architecture=SMALL, updates=4, batch_size=2).save(path)
        return path.read_bytes()


def evil(canary: Path) -> bytes:
    """A pickle that writes a file when Python's own unpickler reads it."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(canary), "w"))

    return pickle.dumps(Evil())
