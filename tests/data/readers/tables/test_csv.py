"""Tables of joints: round trips, choices and unsound rows; random damage of text formats."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastamr.data import read
from fastamr.skeleton import get_layout

from .. import writers_generic as write
from ..reading import clip_of, one_line, person

read_csv = functools.partial(read, kind="csv")

RNG = np.random.default_rng(0)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestCsv:
    @pytest.fixture
    def coords(self) -> np.ndarray:
        coords = RNG.normal(size=(4, 2, 20, 3)).astype(np.float32)
        coords[0, 1] = 0
        coords[2, 0, 7] = np.nan
        return coords

    @pytest.mark.parametrize(
        ("delimiter", "newline", "mark"),
        [(",", "\n", False), (";", "\r\n", True), ("\t", "\n", False), (",", "\r\n", False)],
    )
    def test_round_trip(
        self, tmp_path: Path, coords: np.ndarray, delimiter: str, newline: str, mark: bool
    ) -> None:
        joints = get_layout("kinect20").joints
        rows = write.csv_rows("kick", coords, joints, label="kick")
        rows += write.csv_rows("walk", coords[:2], joints, label="walk")
        rows = [rows[place] for place in np.random.default_rng(1).permutation(len(rows))]
        columns = ["label", "z", "clip", "joint", "body", "frame", "x", "y"]
        path = tmp_path / "some.csv"
        write.write_csv(path, rows, columns, delimiter=delimiter, newline=newline, mark=mark)
        data = read_csv(path)
        assert data.layout is get_layout("kinect20")
        assert sorted(data.names) == ["kick", "walk"]
        assert [data.label_names[label] for label in data.labels] == data.names
        found = {len(body): body for body in clip_of(data, "kick")}
        expected = np.nan_to_num(coords)
        np.testing.assert_array_equal(found[4], expected[:, 0])
        np.testing.assert_array_equal(found[3], expected[1:, 1])
        starts = data.body_start[data.body_clip == data.names.index("kick")].tolist()
        assert sorted(starts) == [0, 1]
        assert data.valid is not None
        assert int((~data.valid).sum()) == 1
        assert read(path).fingerprint() == data.fingerprint()

    def test_the_least_that_is_needed(self, tmp_path: Path) -> None:
        points = RNG.normal(size=(3, 1, 17, 2))
        rows = write.csv_rows("", points, range(17))
        write.write_csv(tmp_path / "motion.csv", rows, ["frame", "joint", "x", "y"])
        data = read_csv(tmp_path / "motion.csv")
        assert (data.layout.name, data.names, data.labels.tolist()) == ("coco17", ["motion"], [-1])
        np.testing.assert_allclose(data.coords.numpy(), points[:, 0], rtol=1e-6)
        assert read_csv(tmp_path / "motion.csv", layout="h36m17").layout.name == "h36m17"

    def test_confidence_missing_rows_and_numbered_labels(self, tmp_path: Path) -> None:
        points = RNG.normal(size=(2, 1, 17, 3))
        rows = write.csv_rows("a", points, get_layout("h36m17").joints, confidence=0.8, label=4)
        rows[3]["confidence"], rows[5]["x"] = 0.1, None
        del rows[20]
        write.write_csv(
            tmp_path / "some.csv", rows, ["clip", "frame", "joint", "x", "y", "z", "confidence", "label"]
        )
        data = read_csv(tmp_path / "some.csv", min_confidence=0.5)
        assert data.valid is not None
        assert (~data.valid).nonzero().tolist() == [[0, 3], [0, 5], [1, 3]]
        assert (data.labels.tolist(), data.label_names) == ([4], ())
        assert data.steps[0]["about"] == "validity"
        assert read_csv(tmp_path / "some.csv").valid.logical_not().sum() == 2  # type: ignore[union-attr]

    HEADER = "frame,body,joint,x,y\n"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "empty, expected a line of column names such as frame, joint, x, y"),
            ("\n\n", "empty, expected"),
            ("\n1,2,3\n4,5,6", "line 2: numbers, expected the names of the columns; put a line above the first"),
            (HEADER, "no row after"),
            ("frame,joint,x\n", "line 1: no column 'y', the columns are frame, joint, x; expected a row a joint"),
            ("a,b\n", "line 1: the columns are a, b; expected a row a joint .* or a row a frame .*nose_x"),
            ("frame,joint,x,y,x\n", "column 'x' occurs twice; rename or remove one"),
            (HEADER + "0,0,nose,1,one\n0,0,left_eye,1,two\n", "line 2: y is 'one', expected a number"),
            (HEADER + "0,0,nose,inf,2\n\n0,0,left_eye,inf,2\n", "line 2: x is 'inf', which is not finite"),
            (HEADER + "0,0,0,1\n", "line 2: 4 cells, expected at least 5; give each row a cell"),
            (HEADER + "0,0,0,1,5,2,5\n", "line 2: 7 cells, expected 5; with decimal commas, separate .* semicolons"),
            (HEADER + "-1,0,0,1,2\n", "line 2: frame is '-1', expected a whole number from 0"),
            (HEADER + "1.5,0,0,1,2\n", "line 2: frame is '1.5'"),
            (HEADER + "9999999999999999999,0,0,1,2\n", "line 2: frame is '9999"),
            (HEADER + "0,,0,1,2\n0,0,0,1,2\n1,,0,1,2\n", "line 2: body is empty"),
            (HEADER + "0,0,,1,2\n", "line 2: joint is empty"),
            (HEADER + "0,0,999999,1,2\n", "joint 999999, expected numbers of joints, from 0"),
            (HEADER + "0,0,0,1,2\n0,0,40,1,2\n", "41 joints in 2 channels"),
            (HEADER + "0,0,3,1,2\n0,0,40,1,2\n", "joint 0 never occurs, joints 3 to 40 do, 2 in all; .*--layout"),
            (HEADER + "0,0,nose,1,2\n0,0,1,1,2\n", "joints 'nose' and 1; name all joints or number all"),
            (HEADER + "0,0,nose,1,2\n0,0,left_eye,1,2\n0,0,nose,3,4\n", "line 4: the same joint .* as line 2"),
            (HEADER + "0,0,nose,1,2\n1000000000,0,nose,1,2\n", "line 3: frame 1000000000, but the body begins in"),
            (HEADER + '0,0,0,1,"2\n', "line"),
            ("frame,joint,x,y,label\n0,nose,1,2,a\n0,neck,1,2,b\n", "line 3: label 'b', but the clip began with 'a'"),
            (HEADER + "0,0,nose,,\n", "no pose of the file has a joint that was seen"),
        ],
    )  # fmt: skip
    def test_unsound_tables(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "some.csv"
        path.write_bytes(content.encode())
        with pytest.raises(ValueError, match=message) as error:
            read_csv(path)
        one_line(error, "some.csv")

    def test_other_damage(self, tmp_path: Path) -> None:
        path = tmp_path / "some.csv"
        with pytest.raises(FileNotFoundError, match="no table"):
            read_csv(path)
        path.write_bytes(self.HEADER.encode() + "0,0,épaule,1,2\n".encode("latin1"))
        with pytest.raises(ValueError, match="not in UTF-8"):
            read_csv(path)
        path.write_text(self.HEADER + "0,0,flange,1,2\n0,0,spout,1,2\n")
        with pytest.raises(ValueError, match="the joints flange, spout have no name of layout 'coco17'"):
            read_csv(path, layout="coco17")
        path.write_text(self.HEADER + "0,0,18,1,2\n")
        with pytest.raises(ValueError, match="joint 18, but layout 'coco17' has joints 0 to 16"):
            read_csv(path, layout="coco17")
        path.write_text("frame,joint,x,y\n0,16,1," + "2" * 200_000)
        with pytest.raises(ValueError, match=r"some\.csv, line \d: field larger"):
            read_csv(path)


SOUND = {
    ".json": json.dumps(write.coco_document({"v": {0: {0: person(0, 18)}, 2: {0: person(1, 18), 1: person(2, 18)}}})),
    ".csv": "frame,body,joint,x,y,confidence\n"
    + "".join(f"{f},0,{j},{f + j}.5,{j},0.9\n" for f in (0, 2) for j in range(18)),
}  # fmt: skip


@pytest.mark.parametrize("ending", SOUND)
@FUZZ
@given(data=st.data())
def test_any_damage_ends_in_one_line_or_in_sound_data(tmp_path: Path, ending: str, data: Any) -> None:
    content = bytearray(SOUND[ending].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.sampled_from(b'0123456789-+.eE,;"[]{}: \n\r\xffaNn'))
        else:
            del content[place : place + data.draw(st.integers(1, 60))]
    path = tmp_path / f"some{ending}"
    path.write_bytes(bytes(content))
    problem = ""
    try:
        packed = read(path)
    except ValueError as error:
        problem = str(error)
    if problem:
        assert "some" in problem
        assert "\n" not in problem
    else:
        packed.check()


@FUZZ
@given(
    frames=st.integers(1, 6),
    bodies=st.integers(1, 3),
    gaps=st.lists(st.booleans(), min_size=18, max_size=18),
    seed=st.integers(0, 99),
)
def test_table_and_coco_json_tell_the_same(
    tmp_path: Path, frames: int, bodies: int, gaps: list[bool], seed: int
) -> None:
    """The same detections, written as rows and as annotations, are the same data."""
    rng = np.random.default_rng(seed)
    coords = rng.uniform(1, 9, (frames, bodies, 18, 2)).astype(np.float32)
    seen = rng.random((frames, bodies, 18)) < 0.8
    present = np.array(gaps).reshape(6, 3)[:frames, :bodies]
    # At most one frame is empty: clips with many are refused, or read by their step.
    present[:, 0] |= np.arange(frames) != 2
    seen &= present[..., None]
    if not seen.any():
        return
    joints = get_layout("openpose18").joints
    rows: list[dict[str, Any]] = []
    video: dict[int, dict[int, np.ndarray]] = {}
    for frame, body in zip(*np.nonzero(present), strict=True):
        points = np.c_[coords[frame, body], np.where(seen[frame, body], 0.5, 0)]
        video.setdefault(int(frame), {})[int(body)] = points
        for joint, name in enumerate(joints):
            x, y, confidence = points[joint].tolist()
            where = {"clip": "v", "frame": frame, "body": body, "joint": name}
            rows.append(where | {"x": x, "y": y, "confidence": confidence})
    write.write_csv(tmp_path / "v.csv", rows, rows[0])
    (tmp_path / "v.json").write_text(json.dumps(write.coco_document({"v": video})))
    table, annotated = read_csv(tmp_path / "v.csv"), read(tmp_path / "v.json")
    order = [table.body_start.tolist(), table.offsets.tolist()]
    assert order == [annotated.body_start.tolist(), annotated.offsets.tolist()]
    assert torch.equal(table.coords, annotated.coords)
    first = int(seen.any(2).any(1).argmax())
    for body, start in zip(range(table.num_bodies), table.body_start.tolist(), strict=True):
        rows_ = slice(int(table.offsets[body]), int(table.offsets[body + 1]))
        track = [b for b in range(bodies) if seen[:, b].any()]
        at = slice(first + start, first + start + rows_.stop - rows_.start)
        # Bodies come in the order in which the source names them first.
        candidates = [np.where(seen[at, b, :, None], coords[at, b], 0) for b in track]
        assert any(np.array_equal(table.coords[rows_].numpy(), candidate) for candidate in candidates)
