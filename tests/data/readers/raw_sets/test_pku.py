from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastamr.data.prepare.prepare import prepare
from fastamr.data.readers.common.sources import DamagedFile, list_files
from fastamr.data.readers.raw_sets.pku import PkuReader, parse, parse_labels
from fastamr.data.readers.raw_sets.pku_protocols import ACTIONS

from ..writers import pku_label_text, pku_split_text, pku_text

STREAM = np.random.default_rng(0).normal(size=(60, 2, 25, 3)).astype(np.float32)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def phase_one() -> dict[str, bytes]:
    alone = STREAM.copy()
    alone[:, 1] = 0
    return {
        "skeleton/0002-L.txt": pku_text(STREAM),
        "skeleton/0002-M.txt": pku_text(alone),
        "skeleton/0003-R.txt": pku_text(alone[:20]),
        "label/0002-L.txt": pku_label_text([(8, 0, 10, 2), (51, 20, 60, 1)]),
        "label/0002-M.txt": pku_label_text([(1, 5, 9, 2)]),
        "label/0003-R.txt": pku_label_text([(41, 3, 9, 2)]),
        "cross-subject.txt": pku_split_text(["0002-L", "0002-M"], ["0003-R"]),
        "cross-view.txt": pku_split_text(["0002-M", "0003-R"], ["0002-L"]),
    }


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(2), st.just(25), st.just(3)),
               elements=st.floats(-8, 8, width=32)),
    st.sampled_from(["\n", "\r\n"]),
)  # fmt: skip
def test_round_trip_of_streams(stream: np.ndarray, end: str) -> None:
    np.testing.assert_array_equal(parse(pku_text(stream, end)), stream)


@given(
    st.lists(
        st.tuples(st.integers(1, 51), st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 2)),
        min_size=1,
    )
)
def test_round_trip_of_labels(rows: list[tuple[int, int, int, int]]) -> None:
    assert parse_labels(pku_label_text(rows)) == rows


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (pku_text(STREAM[:3])[:-20], 3, "numbers, expected 150"),
        (pku_text(STREAM[:3]).replace(b"\n", b" 1\n", 2), 1, "has 151 numbers, expected 150"),
        (b"1 2 3\n" + pku_text(STREAM[:3]), 1, "has 3 numbers, expected 150"),
        (pku_text(np.where(np.arange(3)[:, None, None, None] == 1, np.nan, STREAM[:3])), 2, "not finite"),
        (pku_text(STREAM[:3].astype(float) * 1e39), 1, "not finite"),
        (b"", None, "is empty"),
    ],
)
def test_damaged_streams(content: bytes, line: int | None, message: str) -> None:
    with pytest.raises(DamagedFile, match=message) as raised:
        parse(content)
    assert raised.value.line == line


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"1,2,3,1\n4,5,6\n", 2, "has 3 numbers, expected action,start,end,confidence"),
        (b"1,2,3,1\n52,5,6,1\n", 2, "action is 52, expected 1 to 51"),
        (b"0,5,6,1\n", 1, "action is 0"),
        (b"1,2.5,3,1\n", 1, "not whole numbers"),
        (b"1,nan,3,1\n", 1, "not whole numbers"),
        (b"1,2,3,1\n1,2,drink,1\n", 2, "'drink' is not a number"),
    ],
)
def test_damaged_labels(content: bytes, line: int, message: str) -> None:
    with pytest.raises(DamagedFile, match=message) as raised:
        parse_labels(content)
    assert raised.value.line == line


class TestDataSet:
    def test_clips(self, tmp_path: Path) -> None:
        report = prepare("pku1", write(tmp_path / "raw", phase_one()), tmp_path / "pku.safetensors")
        data = load(tmp_path)
        assert data.names == ["0002-L_0", "0002-L_1", "0002-M_0", "0003-R_0"]
        assert data.labels.tolist() == [7, 50, 0, 40]
        assert [data.label_names[label] for label in (7, 50, 0, 40)] == [
            "drink water",
            "writing",
            "bow",
            "throw",
        ]
        assert data.clip_frames().tolist() == [10, 40, 4, 6]
        assert data.body_clip.tolist() == [0, 0, 1, 1, 2, 3]
        np.testing.assert_array_equal(data.coords[:10], STREAM[:10, 0])
        np.testing.assert_array_equal(data.coords[60:100], STREAM[20:60, 1])
        np.testing.assert_array_equal(data.coords[100:104], STREAM[5:9, 0])
        assert data.columns["start"].tolist() == [0, 20, 5, 3]
        assert data.columns["confidence"].tolist() == [2, 1, 2, 2]
        assert [data.column_names["view"][view] for view in data.columns["view"]] == ["L", "L", "M", "R"]
        assert [data.column_names["video"][video] for video in data.columns["video"]] == ["0002"] * 3 + [
            "0003"
        ]
        assert data.splits["xsub"].train.tolist() == [True, True, True, False]
        assert data.splits["xsub"].test.tolist() == [False, False, False, True]
        assert data.splits["xview"].train.tolist() == [False, False, True, True]
        assert data.splits["xview"].test.tolist() == [True, True, False, False]
        assert (report.damaged, report.dropped, report.left_out, report.notes) == ([], {}, {}, [])

    def test_streams_and_both(self, tmp_path: Path) -> None:
        raw = write(tmp_path / "raw", phase_one())
        prepare("pku1", raw, tmp_path / "pku.safetensors", options={"keep": "streams"})
        data = load(tmp_path)
        assert (data.names, data.labels.tolist()) == (["0002-L", "0002-M", "0003-R"], [-1] * 3)
        assert data.clip_frames().tolist() == [60, 60, 20]
        assert data.splits["xsub"].train.tolist() == [True, True, False]
        prepare("pku1", raw, tmp_path / "pku.safetensors", options={"keep": "both"})
        both = load(tmp_path)
        assert both.num_clips == 7
        assert (both.names[0], both.names[1]) == ("0002-L", "0002-L_0")

    def test_phase_two_takes_its_own_lists(self, tmp_path: Path) -> None:
        files = phase_one() | {"v2/cross_subject_v2.txt": pku_split_text(["0003-R"], ["0002-L"])}
        report = prepare("pku2", write(tmp_path / "raw", files), tmp_path / "pku.safetensors")
        assert load(tmp_path).splits["xsub"].train.tolist() == [False, False, False, True]
        assert report.notes == []
        del files["cross-view.txt"], files["v2/cross_subject_v2.txt"]
        report = prepare("pku2", write(tmp_path / "raw2", files), tmp_path / "pku.safetensors")
        assert list(load(tmp_path).splits) == ["xsub"]
        assert report.notes == ["no split xview: put cross_view_v2.txt into the folder to have it"]

    def test_labels_beyond_the_stream_and_of_no_body(self, tmp_path: Path) -> None:
        files = phase_one()
        files["label/0003-R.txt"] = pku_label_text(
            [(1, 20, 25, 1), (2, 9, 9, 1), (3, -1, 4, 1), (4, 15, 25, 1), (5, 2, 5, 1)]
        )
        stream = STREAM[:20].copy()
        stream[:, 1] = 0
        stream[2:5] = 0
        files["skeleton/0003-R.txt"] = pku_text(stream)
        report = prepare("pku1", write(tmp_path / "raw", files), tmp_path / "pku.safetensors")
        data = load(tmp_path)
        assert data.names[3:] == ["0003-R_3"]
        assert data.clip_frames()[3] == 5
        assert report.notes == ["0003-R_3: ends with the stream, after 20 frames; its label names 25"]
        assert data.dropped == {
            "0003-R_0": "its label names the frames 20 to 25 of a stream of 20",
            "0003-R_1": "its label names the frames 9 to 9 of a stream of 20",
            "0003-R_2": "its label names the frames -1 to 4 of a stream of 20",
            "0003-R_4": "no body",
        }

    def test_what_does_not_fit_is_named(self, tmp_path: Path) -> None:
        files = phase_one() | {
            "label/0009-L.txt": b"1,2,3,1\n",
            "skeleton/0008-L.txt": pku_text(STREAM),
            "readme.txt": b"hello",
            "copy/skeleton/0002-M.txt": pku_text(STREAM),
            "label/0002-M.txt": b"1,2,three,1\n",
            "skeleton/0003-R.txt": b"",
        }
        raw = write(tmp_path / "raw", files)
        report = prepare("pku1", raw, tmp_path / "pku.safetensors")
        assert report.left_out == {
            f"{raw}/label/0009-L.txt": "no skeleton file has the same name",
            f"{raw}/skeleton/0008-L.txt": "no label file has the same name",
            f"{raw}/readme.txt": "its name is not of the form STREAM-L.txt (or M, R)",
            f"{raw}/skeleton/0002-M.txt": f"{raw}/copy/skeleton/0002-M.txt has the same name and was taken",
        }
        assert list(map(str, report.damaged)) == [
            f"{raw}/label/0002-M.txt, line 1: 'three' is not a number",
            f"{raw}/skeleton/0003-R.txt: is empty",
        ]
        assert load(tmp_path).names == ["0002-L_0", "0002-L_1"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "names 0 streams for training and 0 for validation"),
            (b"Training videos:\n0002-L", "names 1 streams for training and 0 for validation"),
            (pku_split_text(["0002-L"], ["0002-L"]), "names 0002-L for training and for validation"),
            (b"\xff\xfe\x00", "codec can't decode"),
        ],
    )
    def test_a_bad_list_stops(self, tmp_path: Path, content: bytes, message: str) -> None:
        raw = write(tmp_path / "raw", phase_one() | {"cross-view.txt": content})
        with pytest.raises(ValueError, match=message):
            PkuReader().find(list_files(raw, [".txt"]))

    def test_options_and_classes(self) -> None:
        assert len(set(ACTIONS)) == 51
        with pytest.raises(ValueError, match="phase is 3"):
            PkuReader(3)
        with pytest.raises(ValueError, match="keep is 'clip'"):
            PkuReader(1, "clip")


def load(folder: Path) -> Any:
    from fastamr.data import PackedSkeletons

    data = PackedSkeletons.load(folder / "pku.safetensors")
    data.check()
    return data


def test_frames_of_streams_are_labelled(tmp_path: Path) -> None:
    files = phase_one() | {
        "label/0002-M.txt": b"1,2,three,1\n",
        "skeleton/0004-L.txt": pku_text(STREAM[:5]),
        "label/0003-R.txt": pku_label_text([(41, 3, 9, 2), (2, 18, 25, 1), (3, 20, 30, 1)]),
    }
    raw = write(tmp_path / "raw", files)
    report = prepare("pku1", raw, tmp_path / "pku.safetensors", options={"keep": "streams"})
    data = load(tmp_path)
    assert data.names == ["0002-L", "0002-M", "0003-R", "0004-L"]
    expected = [7] * 10 + [-1] * 10 + [50] * 40  # two bodies
    expected = expected * 2 + [-2] * 60 + [-1] * 3 + [40] * 6 + [-1] * 9 + [1] * 2 + [-2] * 10
    assert data.frame_labels.tolist() == expected
    assert report.damaged == []
    assert report.notes == [
        f"0002-M: without labels: {raw}/label/0002-M.txt, line 1: 'three' is not a number",
        "0004-L: without labels: no label file has the same name",
    ]
    prepare("pku1", raw, tmp_path / "pku.safetensors", options={"keep": "both"})
    both = load(tmp_path)
    assert both.names[:3] == ["0002-L", "0002-L_0", "0002-L_1"]
    assert set(both.select([1]).frame_labels.tolist()) == {7}
    prepare("pku1", raw, tmp_path / "pku.safetensors")
    assert load(tmp_path).frame_labels is None
