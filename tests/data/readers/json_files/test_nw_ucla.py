"""NW-UCLA's JSON files: round trips and every kind of damage."""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fastamr.data import read
from fastamr.data.prepare import prepare
from fastamr.skeleton import get_layout

from .. import writers_generic as write
from ..reading import clip_of, one_line

read_nw_ucla = functools.partial(read, kind="nw-ucla")

RNG = np.random.default_rng(0)


class TestNwUcla:
    @pytest.fixture
    def clips(self) -> dict[str, np.ndarray]:
        names = ("a01_s01_e00_v01", "a01_s01_e00_v03", "a08_s10_e04_v02", "a12_s02_e10_v03")
        return {
            name: RNG.normal(size=(4 + place, 20, 3)).astype(np.float32) for place, name in enumerate(names)
        }

    def test_round_trip(self, tmp_path: Path, clips: dict[str, np.ndarray]) -> None:
        write.write_nw_ucla(tmp_path / "all_sqe", clips)
        data = read_nw_ucla(tmp_path)
        assert data.names == sorted(clips)
        assert data.layout is get_layout("kinect20")
        for name, coords in clips.items():
            (body,) = clip_of(data, name)
            np.testing.assert_array_equal(body, coords)
        assert data.labels.tolist() == [0, 0, 6, 9]
        assert [data.label_names[label] for label in data.labels] == [
            *("pick up with one hand", "pick up with one hand", "donning", "carry")
        ]
        assert {name: column.tolist() for name, column in data.columns.items()} == {
            "subject": [1, 1, 10, 2],
            "view": [1, 3, 2, 3],
            "rep": [0, 0, 4, 10],
        }
        assert data.splits["official"].train.tolist() == [True, False, True, False]
        assert data.splits["official"].test.tolist() == [False, True, False, True]
        assert data.dropped == {}
        assert data.fps.isnan().all()

    def test_a_zip_archive_and_a_single_file(self, tmp_path: Path, clips: dict[str, np.ndarray]) -> None:
        write.write_nw_ucla(tmp_path / "files", clips)
        with zipfile.ZipFile(tmp_path / "all_sqe.zip", "w") as archive:
            for name in clips:
                archive.write(tmp_path / "files" / f"{name}.json", f"all_sqe/{name}.json")
        whole = read_nw_ucla(tmp_path / "files")
        assert read_nw_ucla(tmp_path / "all_sqe.zip").fingerprint() == whole.fingerprint()
        single = read_nw_ucla(tmp_path / "files" / "a08_s10_e04_v02.json")
        assert (single.num_clips, single.labels.tolist()) == (1, [6])
        assert read(tmp_path / "files" / "a08_s10_e04_v02.json").fingerprint() == single.fingerprint()

    def test_a_file_of_another_name_is_known_by_its_content(
        self, tmp_path: Path, clips: dict[str, np.ndarray]
    ) -> None:
        write.write_nw_ucla(tmp_path, {"a12_s02_e10_v03": clips["a12_s02_e10_v03"]})
        (tmp_path / "a12_s02_e10_v03.json").rename(tmp_path / "mine.json")
        assert read_nw_ucla(tmp_path / "mine.json").names == ["a12_s02_e10_v03"]

    DAMAGE = (
        ("a02_s01_e00_v01", "", "is empty"),
        ("a02_s01_e00_v01", "\ufeff", "no JSON"),
        ("a02_s01_e00_v01", '{"skeletons": [[[1, 2', "line 1: no JSON, or truncated"),
        ("a02_s01_e00_v01", '{"label": 2}', "'skeletons' is missing"),
        ("a02_s01_e00_v01", "[1]", "a list, expected an object"),
        ("a02_s01_e00_v01", '{"skeletons": []}', "no frames"),
        ("a02_s01_e00_v01", '{"skeletons": [[[1, 2, 3]]]}', "shape (1, 1, 3), expected (any, 20, 3)"),
        ("a02_s01_e00_v01", '{"skeletons": [[[1, 2, 3]], [[1]]]}', "lists of unequal length"),
        (
            "a02_s01_e00_v01",
            json.dumps({"skeletons": [[["1", 2, 3]] * 20]}),
            "holds something that is no number",
        ),
        (
            "a02_s01_e00_v01",
            json.dumps({"skeletons": [[[1, None, 3]] * 20]}),
            "holds something that is no number",
        ),
        (
            "a02_s01_e00_v01",
            json.dumps({"skeletons": [[[1, 2, 3]] * 20, [[1, float("nan"), 3]] * 20]}),
            "frame 1, joint 0: coordinates are not finite",
        ),
        ("a02_s01_e00_v01", json.dumps({"skeletons": [[[1, 2, 1e300]] * 20]}), "not finite"),
        ("a02_s01_e00_v01", "[" * 100_000, "nested too deeply"),
        ("a07_s01_e00_v01", json.dumps({"skeletons": [[[1, 2, 3]] * 20]}), "action 7"),
        ("walking", json.dumps({"skeletons": [[[1, 2, 3]] * 20]}), "does not follow a01_s01_e00_v01"),
    )

    @pytest.mark.parametrize(("name", "content", "reason"), DAMAGE)
    def test_a_damaged_file_costs_that_file_only(
        self, tmp_path: Path, clips: dict[str, np.ndarray], name: str, content: str, reason: str
    ) -> None:
        write.write_nw_ucla(tmp_path, clips)
        (tmp_path / f"{name}.json").write_text(content, encoding="utf-8")
        data = read_nw_ucla(tmp_path)
        assert data.names == sorted(clips)
        ((key, told),) = data.dropped.items()
        assert key.endswith(f"{name}.json")
        assert reason in told
        with pytest.raises(ValueError, match=name) as error:
            prepare("nw-ucla", tmp_path, tmp_path / "out.safetensors", strict=True)
        one_line(error, reason)

    def test_a_wrong_encoding_and_a_second_file_of_a_name(
        self, tmp_path: Path, clips: dict[str, np.ndarray]
    ) -> None:
        write.write_nw_ucla(tmp_path / "one", clips)
        write.write_nw_ucla(tmp_path / "two", {"a01_s01_e00_v01": clips["a01_s01_e00_v01"]})
        (tmp_path / "one" / "a05_s01_e00_v01.json").write_bytes('{"skeletons": "é"}'.encode("latin1"))
        data = read_nw_ucla(tmp_path)
        assert data.names == sorted(clips)
        reasons = list(data.dropped.values())
        assert any("not in UTF-8" in reason for reason in reasons)
        assert any("a second file of this name" in reason for reason in reasons)

    def test_nothing_that_can_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no folder"):
            read_nw_ucla(tmp_path / "nothing")
        with pytest.raises(ValueError, match="no clip of NW-UCLA"):
            read_nw_ucla(tmp_path)
        (tmp_path / "a01_s01_e00_v01.json").write_text("{}")
        with pytest.raises(ValueError, match=r"the first is .*a01_s01_e00_v01\.json: 'skeletons' is missing"):
            read_nw_ucla(tmp_path)

    def test_the_collected_data_set_comes_back(self, shared_data: Path, tmp_path: Path) -> None:
        """Some clips of the npz written as JSON give the same labels, columns, split and coordinates."""
        known = read(shared_data / "nw_ucla" / "nw_ucla.npz").select(range(0, 1484, 40))
        write.write_nw_ucla(tmp_path, {name: clip_of(known, name)[0] for name in known.names})
        data = read_nw_ucla(tmp_path)
        assert data.names == known.names
        assert torch.equal(data.coords, known.coords)
        assert torch.equal(data.labels, known.labels)
        assert data.label_names == known.label_names
        for column in ("subject", "view", "rep"):
            assert torch.equal(data.columns[column], known.columns[column])
        assert torch.equal(data.splits["official"].test, known.splits["official"].test)
