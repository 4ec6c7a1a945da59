"""No format of a pose tool is taken for another one, or for COCO's lists and NW-UCLA's clips; and what folders hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read
from fastamr.data.readers.common.reader import Reader, Source
from fastamr.data.readers.registry import READERS

from .. import writers_generic
from .. import writers_pose as pose
from ..reading import one_line, person

CLIP = pose.motion(3)
SPACE = pose.motion(3, joints=33, channels=3)


def write_json(document: Any) -> Callable[[Path], Path]:
    return lambda folder: pose.write(folder / "some.json", document)


def write_frames(documents: list[Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for number, document in enumerate(documents):
            pose.write(folder / "in" / f"v_{number}.json", document)
        return folder / "in"

    return write


def write_texts(folder: Path) -> Path:
    (folder / "in").mkdir()
    for number, people in enumerate(pose.motion(3, scale=0.2)):
        (folder / "in" / f"v_{number}.txt").write_text(pose.yolo_line(people[0]))
    return folder / "in"


def write_coco_list(folder: Path) -> Path:
    writers_generic.write_alphapose(
        folder / "some.json", [(f"{frame}.jpg", CLIP[frame, 0], None) for frame in range(3)]
    )
    return folder / "some.json"


def write_nw_ucla(folder: Path) -> Path:
    writers_generic.write_nw_ucla(folder / "in", {"a01_s01_e00_v01": np.ones((3, 20, 3))})
    return folder / "in"


def yolo(people: np.ndarray) -> list[Any]:
    return [pose.yolo_detection(points) for points in people]


KINDS: dict[str, list[Callable[[Path], Path]]] = {
    "openpose": [
        write_json([pose.openpose_frame(people) for people in pose.motion(3, joints=25)]),
        write_json({"version": 1.3, "people": []}),
        write_frames([pose.openpose_frame(people) for people in pose.motion(3, joints=25)]),
        write_frames([{"people": []}, pose.openpose_frame(pose.motion(1, joints=18)[0])]),
    ],
    "kinetics-skeleton": [
        write_json(pose.kinetics_document(pose.motion(3, joints=18))),
        write_frames([pose.kinetics_document(pose.motion(3, joints=18))]),
    ],
    "azure-kinect": [write_json(pose.azure_document(pose.motion(3, joints=32, channels=3)))],
    "mmpose": [
        write_json(pose.mmpose_frames(CLIP)),
        write_json({"meta_info": {}, "instance_info": []}),
        write_json([[], [pose.mmpose_instance(CLIP[0, 0])]]),
        write_frames([[pose.mmpose_instance(points) for points in people] for people in CLIP]),
    ],
    "yolo": [
        write_json([yolo(people) for people in CLIP]),
        write_frames([[], *(yolo(people) for people in CLIP)]),
    ],
    "yolo-txt": [write_texts],
    "mediapipe": [
        write_json([pose.landmarks(people[0]) for people in SPACE]),
        write_json({"pose_landmarks": pose.landmarks(SPACE[0, 0])}),
        write_frames([{"landmarks": pose.landmarks(people[0])} for people in SPACE]),
    ],
    "coco": [
        write_coco_list,
        write_json(writers_generic.coco_document({"a": {0: {1: person(0)}}})),
        write_json([{"image_id": 1, "keypoints": [[1, 2, 1]] * 17, "score": 1}]),
    ],
    "nw-ucla": [write_nw_ucla, write_json({"skeletons": np.ones((2, 20, 3)).tolist()})],
}


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, number) for kind, some in KINDS.items() for number in range(len(some))]
)
def test_one_reader_knows_a_source(tmp_path: Path, kind: str, number: int) -> None:
    source = Source(KINDS[kind][number](tmp_path))
    readers = [
        reader for reader in READERS if isinstance(reader, Reader) and reader.suffixes and reader.fits(source)
    ]
    asked = [reader.name for reader in readers if reader.name != "coco" and reader.sniff(source)]
    # COCO's reader is asked last of those that look into JSON, and takes any list of objects with key points.
    found = next(reader.name for reader in readers if reader.sniff(source))
    assert found == kind
    assert set(asked) <= {kind, "mediapipe"}


class TestFolders:
    def test_an_empty_one(self, tmp_path: Path) -> None:
        for kind in KINDS:
            readers = [reader for reader in READERS if isinstance(reader, Reader) and reader.name == kind]
            assert not any(
                reader.fits(Source(tmp_path)) and reader.sniff(Source(tmp_path)) for reader in readers
            )

    def test_documents_of_many_frames_are_no_frames(self, tmp_path: Path) -> None:
        """A folder of videos is no video: each file is a clip."""
        for name in ("a1", "b2"):
            pose.write(tmp_path / f"{name}.json", pose.mmpose_frames(CLIP))
        assert not any(
            reader.sniff(Source(tmp_path))
            for reader in READERS
            if isinstance(reader, Reader) and reader.takes_folder
        )

    def test_the_look_is_short(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whether a folder is a clip is told by a few files of thousands, read once for all formats."""
        from fastamr.data.readers.common.sources import Entry

        for number in range(200):
            pose.write(tmp_path / f"{number}.json", {"people": []})
        names: list[str] = []
        whole = Entry.read

        def count(entry: Entry, most: int | None = None) -> bytes:
            names.append(entry.name)
            return whole(entry, most)

        monkeypatch.setattr(Entry, "read", count)
        source = Source(tmp_path)
        sniffed = [
            reader.name
            for reader in READERS
            if isinstance(reader, Reader) and reader.takes_folder and reader.sniff(source)
        ]
        assert sniffed == ["openpose"]
        assert len(names) <= 30


@pytest.mark.parametrize(
    "document", [{}, {"a": 1}, [], [1], [[1, 2], [3, 4]], {"frames": []}, {"data": [{}]}, "x", None]
)
def test_other_json_names_what_is_read(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"some\.json holds neither") as error:
        read(path)
    one_line(
        error,
        "'people' with 'pose_keypoints_2d'",
        "'instance_info'",
        "'annotations'",
        "'skeletons'",
        "landmarks",
    )
