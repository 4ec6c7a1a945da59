"""Who is who, which clip and which frame in COCO's JSON: the dialects of its tools, and what is said about them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons, read
from fastamr.skeleton import get_layout

from .. import writers_generic as write
from ..reading import clip_of, one_line, person

SHAPE = person(0)


def at(x: float, frame: int = 0) -> np.ndarray:
    """A body whose nose is at ``x`` and moves by a pixel a frame."""
    return SHAPE + np.array([x + frame - SHAPE[0, 0], 0, 0])


def two_walk(frames: int = 12, ids: Any = (None, None), name: str = "{}.jpg") -> list[dict[str, Any]]:
    """Two people whose order changes from frame to frame, as AlphaPose writes them."""
    entries = []
    for frame in range(frames):
        for person_ in ((0, 1), (1, 0))[frame % 2]:
            own = ids(person_, frame) if callable(ids) else ids[person_]
            entry = {
                "image_id": name.format(frame),
                "category_id": 1,
                "keypoints": at((100, 500)[person_], frame).ravel().tolist(),
                "score": 2.5,
            }
            entries.append(entry if own is None else entry | {"idx": own})
    return entries


def dump(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def noses(data: PackedSkeletons, clip: int = 0) -> list[list[float]]:
    return [body[:, 0, 0].round(2).tolist() for body in clip_of(data, data.names[clip])]


STRAIGHT = [[100.0 + frame for frame in range(12)], [500.0 + frame for frame in range(12)]]


class TestTracks:
    @pytest.mark.parametrize(
        ("ids", "names"),
        [
            ((1, 2), ["1", "2"]),
            (([1.0], [2.0]), ["1", "2"]),
            (([[3.0]], [[10.0]]), ["3", "10"]),
            (("b", "a"), ["b", "a"]),
            (lambda who, frame: [[1.0], [1.0, 2.0]][who] if frame == 5 else who + 1, ["1", "2"]),
            (lambda who, frame: [2, 1, 2] if frame == 3 and who else [who + 1], ["1", "2"]),
        ],
    )
    def test_ids_of_alphapose(self, tmp_path: Path, ids: Any, names: list[str]) -> None:
        said: list[str] = []
        data = read(dump(tmp_path / "poses.json", two_walk(ids=ids)), track=False, say=said.append)
        assert dict(zip(data.body_names, noses(data), strict=True)) == dict(zip(names, STRAIGHT, strict=True))
        assert bool([line for line in said if "several track ids" in line]) == callable(ids)

    @pytest.mark.parametrize(
        "ids", [(None, None), (0, 0), ([0.0], [0.0]), ([[0.0], [0.0]], [0.0]), (-1, -1), ("", None), (7, 7)]
    )
    def test_no_tracks_are_linked(self, tmp_path: Path, ids: Any) -> None:
        path = dump(tmp_path / "poses.json", two_walk(ids=ids))
        said: list[str] = []
        data = read(path, say=said.append)
        assert (noses(data), data.body_names) == (STRAIGHT, [])
        assert [line for line in said if "linked from frame to frame by the overlap" in line]
        shared = [line for line in said if "several people of an image share the track id" in line]
        assert bool(shared) == (ids[0] not in (None, -1, ""))
        with pytest.raises(ValueError, match="several people in a frame and no tracks") as error:
            read(path, track=False)
        one_line(error, "poses.json: entry 0", "--pose_track", "--no-track")

    def test_ids_that_count_the_poses(self, tmp_path: Path) -> None:
        path = dump(tmp_path / "poses.json", two_walk(ids=lambda who, frame: 2 * frame + who))
        said: list[str] = []
        assert noses(read(path, say=said.append)) == STRAIGHT
        assert [line for line in said if "no track id comes back in a second frame, in 1 clips" in line]
        with pytest.raises(ValueError, match="no tracks"):
            read(path, track=False)

    def test_one_id_that_tells_nobody_beside_others(self, tmp_path: Path) -> None:
        """A tracker that began late: id 0 for everybody, then real ones."""
        entries = two_walk(ids=lambda who, frame: 0 if frame < 6 else who + 1)
        data = read(dump(tmp_path / "poses.json", entries), say=lambda line: None)
        assert sorted(noses(data)) == sorted(
            [*(walk[:6] for walk in STRAIGHT), *(walk[6:] for walk in STRAIGHT)]
        )
        assert data.body_names == ["", "", "1", "2"]

    def test_some_without_an_id(self, tmp_path: Path) -> None:
        entries = two_walk(ids=(4, None))
        data = read(dump(tmp_path / "poses.json", entries), track=False, say=lambda line: None)
        assert dict(zip(data.body_names, noses(data), strict=True)) == {"4": STRAIGHT[0], "": STRAIGHT[1]}

    def test_one_person_is_one_body(self, tmp_path: Path) -> None:
        entries = [entry | {"idx": 0} for entry in two_walk() if entry["keypoints"][0] < 300]
        said: list[str] = []
        data = read(dump(tmp_path / "poses.json", entries), track=False, say=said.append)
        assert (noses(data), data.body_names) == (STRAIGHT[:1], ["0"])
        assert not [line for line in said if "linked" in line]

    def test_poseflow_lists_people_by_image(self, tmp_path: Path) -> None:
        document: dict[str, list[dict[str, Any]]] = {}
        for entry in two_walk(ids=(1, 2), name="v\\{:05d}.png"):
            document.setdefault(entry.pop("image_id"), []).append(entry)
        data = read(dump(tmp_path / "poses.json", document), track=False, say=lambda line: None)
        assert (data.names, noses(data), data.body_names) == (["v"], STRAIGHT, ["1", "2"])

    def test_an_object_without_tracks(self, tmp_path: Path) -> None:
        frames = {frame: {who: at((100, 500)[who], frame) for who in (1, 0)} for frame in range(12)}
        document = write.coco_document({"v": frames}, fps=30)
        for annotation in document["annotations"]:
            del annotation["track_id"]
        assert noses(read(dump(tmp_path / "poses.json", document), say=lambda line: None)) == STRAIGHT
        with pytest.raises(ValueError, match="give the annotations of a person one 'track_id'"):
            read(tmp_path / "poses.json", track=False)


class TestImages:
    def test_names_with_times(self, tmp_path: Path) -> None:
        names = [f"2024-05-01T10_00_{17 + (738369 + 51000 * frame) / 1e6:09.6f}.png" for frame in range(12)]
        entries = [entry for entry in two_walk() if entry["keypoints"][0] < 300]
        for entry, name in zip(entries, names, strict=True):
            entry["image_id"] = name
        said: list[str] = []
        data = read(dump(tmp_path / "poses.json", entries), say=said.append)
        assert noses(data) == STRAIGHT[:1]
        assert data.fps.tolist() == [pytest.approx(19.6, abs=0.1)]
        assert [line for line in said if "told by the times in the images' names" in line]

    def test_videos_whose_images_have_no_frame_number(self, tmp_path: Path) -> None:
        document = write.coco_document(
            {"a": {frame: {0: at(100, frame)} for frame in range(12)}}, label="wave"
        )
        document["videos"].append({"id": 7, "name": "b", "label": "jump", "fps": 10})
        for frame in range(3):
            document["images"].append({"id": frame, "vid_id": "7", "file_name": f"x/{frame + 9}_1080p.jpg"})
            document["annotations"].append({"image_id": frame, "keypoints": at(7, frame).ravel().tolist()})
        random.Random(0).shuffle(document["images"])
        data = read(dump(tmp_path / "poses.json", document), say=lambda line: None)
        assert {name: noses(data, place) for place, name in enumerate(data.names)} == {
            "a": STRAIGHT[:1],
            "b": [[7.0, 8.0, 9.0]],
        }
        assert data.label_names == ("jump", "wave")
        assert [data.label_names[label] for label in data.labels.tolist()] == [
            {"a": "wave", "b": "jump"}[name] for name in data.names
        ]

    def test_cameras_in_one_folder(self, tmp_path: Path) -> None:
        entries = two_walk(name="cam1_{:04d}.png", ids=(1, 2)) + two_walk(name="cam2_{:04d}.png", ids=(1, 2))
        data = read(dump(tmp_path / "poses.json", entries), say=lambda line: None)
        assert data.names == ["cam1", "cam2"]
        assert noses(data, 1) == STRAIGHT

    def test_stills_of_an_object(self, tmp_path: Path) -> None:
        document = write.coco_document({"v": {frame: {0: at(100)} for frame in (785, 40083, 196141, 197388)}})
        for image in document["images"]:
            image["file_name"] = f"{image.pop('frame_id'):012d}.jpg"
            del image["video_id"]
        with pytest.raises(
            ValueError, match="clip 'poses' has poses in frames 785, 40083, 196141, 197388"
        ) as error:
            read(dump(tmp_path / "poses.json", document))
        one_line(error, "photographs are no motion", "'video_id' and 'frame_id'")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda image: image.update(id=1000), "images[1]: 'id' 1000 is that of"),
            (lambda image: image.update(frame_id=0), "images[1]: clip 'v' has its frame 0 in"),
        ],
    )
    def test_two_images_of_one_place(self, tmp_path: Path, change: Any, message: str) -> None:
        document = write.coco_document({"v": {frame: {0: at(100)} for frame in range(3)}})
        change(document["images"][1])
        with pytest.raises(ValueError, match="images") as error:
            read(dump(tmp_path / "poses.json", document))
        one_line(error, message)

    def test_keys_of_images_and_single_frames_are_said(self, tmp_path: Path) -> None:
        document = write.coco_document({name: {0: {0: at(100)}} for name in "abc"})
        for image in document["images"]:
            image |= {"camera": 4, "width": 3, "id": str(image["id"])}
        said: list[str] = []
        assert read(dump(tmp_path / "poses.json", document), say=said.append).num_clips == 3
        assert [line for line in said if line.endswith("keys of images that are not read: camera")]
        assert [line for line in said if "each clip is a single frame" in line]


class TestThirdNumber:
    @pytest.mark.parametrize(
        ("third", "message"),
        [
            (0.0, "the third number of every joint is 0, which means not labelled"),
            (431.0, "goes from 431 to 431, which is no visibility or confidence; write x, y, v"),
            (-1.5, "goes from -1.5 to -1.5, which is no visibility"),
        ],
    )
    def test_it_is_no_visibility(self, tmp_path: Path, third: float, message: str) -> None:
        points = np.c_[SHAPE[:, :2], np.full(17, third)]
        document = write.coco_document({"v": {frame: {0: points} for frame in range(3)}})
        with pytest.raises(ValueError, match="third number") as error:
            read(dump(tmp_path / "poses.json", document))
        one_line(error, "annotations[0]", message)

    @pytest.mark.parametrize("third", [1.0, 2.0, 0.3, 5.8])
    def test_it_is_one(self, tmp_path: Path, third: float) -> None:
        points = np.c_[SHAPE[:, :2], np.full(17, third)]
        nested = write.coco_document({"v": {frame: {0: points} for frame in range(3)}})
        for annotation in nested["annotations"]:
            annotation["keypoints"] = np.reshape(annotation["keypoints"], (17, 3)).tolist()
        data = read(dump(tmp_path / "poses.json", nested), say=lambda line: None)
        assert (data.num_frames, data.valid) == (3, None)


class TestCategories:
    def test_mmpose_names_of_human36m(self, tmp_path: Path) -> None:
        names = "root (pelvis),left_hip,left_knee,left_foot,right_hip,right_knee,right_foot,spine,thorax,neck_base,"
        names += "head,left_shoulder,left_elbow,left_wrist,right_shoulder,right_elbow,right_wrist"
        document = write.coco_document(
            {"v": {frame: {0: at(9, frame)} for frame in range(3)}}, names.split(",")
        )
        data = read(dump(tmp_path / "poses.json", document), say=lambda line: None)
        assert (data.layout.name, data.valid) == ("h36m17", None)

    def test_numbers_that_do_not_fit_the_names(self, tmp_path: Path) -> None:
        """18 joints of two numbers each are no 12 joints of three."""
        document = write.coco_document({"v": {0: {0: SHAPE}}}, list(get_layout("openpose18").joints))
        document["annotations"][0]["keypoints"] = [0.5] * 36
        with pytest.raises(ValueError, match=r"12 joints, category .* names 18; write x, y, v"):
            read(dump(tmp_path / "poses.json", document))

    def test_posetrack_names_and_bones(self, tmp_path: Path) -> None:
        names = list(get_layout("posetrack17").joints)
        document = write.coco_document({"v": {frame: {0: at(9, frame)} for frame in range(3)}}, names[::-1])
        said: list[str] = []
        data = read(dump(tmp_path / "poses.json", document), say=said.append)
        assert data.layout.name == "posetrack17"
        np.testing.assert_array_equal(data.coords[0].numpy(), at(9)[::-1, :2].astype(np.float32))

    @pytest.mark.parametrize("base", [0, 1])
    def test_a_skeleton_of_their_own(self, tmp_path: Path, base: int) -> None:
        names = [*(f"l_arm{joint}" for joint in range(8)), *(f"tail{joint}" for joint in range(9))]
        document = write.coco_document({"v": {frame: {0: at(9, frame)} for frame in range(3)}}, names)
        document["categories"][0] |= {
            "name": "octopus",
            "skeleton": [[joint + base, joint + 1 + base] for joint in range(16)],
        }
        said: list[str] = []
        data = read(dump(tmp_path / "poses.json", document), say=said.append)
        assert (data.layout.name, list(data.layout.joints)) == ("octopus17", names)
        assert sum(parent < 0 for parent in data.layout.parents) == 1
        assert [line for line in said if "layout of their own" in line]

    def test_one_kind_of_several_has_key_points(self, tmp_path: Path) -> None:
        document = write.coco_document(
            {"v": {frame: {0: at(9, frame)} for frame in range(3)}}, list(get_layout("coco17").joints)
        )
        document["categories"] += [
            {"id": 2, "name": "ball"},
            {"id": 3, "name": "dog", "keypoints": ["a", "b"]},
        ]
        for annotation in document["annotations"]:
            annotation |= {"category_id": 1, "bbox": [1, 2, 3, 4], "keypoints_3d": [0] * 68}
        document["annotations"].append({"image_id": 1000, "category_id": 2, "bbox": [1, 2, 3, 4]})
        path = dump(tmp_path / "poses.json", document)
        said: list[str] = []
        assert read(path, say=said.append).num_bodies == 1
        assert [
            line
            for line in said
            if line.endswith("keys of annotations that are not read: bbox, keypoints_3d")
        ]
        assert [line for line in said if "left out 1 annotations of categories without key points" in line]
        document["annotations"][1]["category_id"] = 3
        with pytest.raises(ValueError, match="annotations of 2 categories") as error:
            read(dump(path, document))
        one_line(error, "annotations[1]", "dog", "one file for each category")


def _told(data: PackedSkeletons) -> list[Any]:
    """What a data set holds, whatever the order of its clips."""
    order = sorted(range(data.num_clips), key=lambda clip: data.names[clip])
    return [
        (data.names[clip], float(data.fps[clip]), [body.tolist() for body in clip_of(data, data.names[clip])])
        for clip in order
    ] + sorted(data.body_names)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.sampled_from([(None, None), (0, 0), (3, 1), ([2.0], [[9.0]]), (4, None)]),
    name=st.sampled_from(["{}.jpg", "a\\{}_1080p.png", "cam1_{:05d}.png", "20240501_1000{:02d}_500000.png"]),
    seed=st.integers(0, 999),
)
def test_the_order_of_entries_does_not_matter(tmp_path: Path, ids: Any, name: str, seed: int) -> None:
    entries = [*two_walk(ids=ids, name=name), *two_walk(frames=5, ids=ids, name="other/" + name)]
    before = read(dump(tmp_path / "poses.json", entries), say=lambda line: None)
    random.Random(seed).shuffle(entries)
    after = read(dump(tmp_path / "poses.json", entries), say=lambda line: None)
    assert [str(value) for value in _told(after)] == [str(value) for value in _told(before)]


def test_results_of_other_things(tmp_path: Path) -> None:
    """A detector of many kinds writes them all; 1 is a person in COCO, and a list names no categories."""
    points = at(100).ravel().tolist()
    entries = [
        {"image_id": f"{frame}.jpg", "category_id": kind, "keypoints": points, "score": 1.0}
        for frame in range(4)
        for kind in (1, 3)
    ]
    notes: list[str] = []
    data = read(dump(tmp_path / "a.json", entries), say=notes.append)
    assert data.num_bodies == 1
    assert "left out 4 annotations of a 'category_id' other than 1" in "\n".join(notes)
    only = [entry | {"category_id": 3} for entry in entries[::2]]
    assert read(dump(tmp_path / "b.json", only)).num_bodies == 1


def test_a_crowd_without_points_is_nobody(tmp_path: Path) -> None:
    points = at(100).ravel().tolist()
    entries = [{"image_id": f"{frame}.jpg", "keypoints": points} for frame in range(4)]
    entries += [{"image_id": f"{frame}.jpg", "keypoints": [0.0] * 51} for frame in range(4)]
    notes: list[str] = []
    data = read(dump(tmp_path / "a.json", entries), track=False, say=notes.append)
    assert data.num_bodies == 1
    assert "linked" not in "\n".join(notes)


def test_tracks_below_attributes(tmp_path: Path) -> None:
    """CVAT exports tracks so."""
    points = at(100).ravel().tolist()
    entries = [
        {
            "image_id": f"{frame}.jpg",
            "keypoints": points,
            "attributes": {"occluded": False, "track_id": track},
        }
        for frame in range(4)
        for track in (7, 3)
    ]
    assert read(dump(tmp_path / "a.json", entries)).body_names == ["3", "7"]
