"""C3D: markers become joints by a mapping; units, subjects, unseen markers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastamr.data import PackedSkeletons, read

from ..reading import clip_of, one_line

c3d = pytest.importorskip("c3d", reason="reading C3D needs the package c3d")

LABELS = ["LASI", "RASI", "LKNE", "RKNE"]
MAPPING = """
layout: kinect20
joints:
  hip_center: [LASI, RASI]
  knee_left: LKNE
  knee_right: [RKNE]
"""


def write_c3d(
    path: Path,
    coords: np.ndarray,
    labels: list[str],
    unit: str = "mm",
    lost: tuple[tuple[int, int], ...] = (),
) -> None:
    """``coords``: ``(T, P, 3)``; ``lost``: frames and markers that were not seen."""
    writer = c3d.Writer(point_rate=120, point_units=unit)
    for frame, points in enumerate(coords):
        rows = np.zeros((len(labels), 5), np.float32)
        rows[:, :3] = points
        for place in (marker for at, marker in lost if at == frame):
            rows[place, 3] = -1
        writer.add_frames([(rows, np.zeros((0, 0)))])
    writer.set_point_labels(labels)
    with path.open("wb") as file:
        writer.write(file)


@pytest.fixture
def coords() -> np.ndarray:
    return np.random.default_rng(0).uniform(100, 900, (6, 4, 3)).astype(np.float32)


def read_with(tmp_path: Path, mapping: str) -> tuple[PackedSkeletons, list[str]]:
    (tmp_path / "markers.yaml").write_text(mapping, encoding="utf-8")
    notes: list[str] = []
    return read(tmp_path / "walk.c3d", markers=tmp_path / "markers.yaml", say=notes.append), notes


class TestRead:
    def test_means_in_metres(self, tmp_path: Path, coords: np.ndarray) -> None:
        write_c3d(tmp_path / "walk.c3d", coords, LABELS, lost=((2, 1), (3, 2)))
        data, notes = read_with(tmp_path, MAPPING)
        (body,) = clip_of(data, "walk")
        assert data.fps.tolist() == [120]
        hips, knee, other = (data.layout.index(joint) for joint in ("hip_center", "knee_left", "knee_right"))
        assert data.valid is not None
        assert data.valid[:, hips].tolist() == [True, True, False, True, True, True]
        assert data.valid[:, knee].tolist() == [True, True, True, False, True, True]
        assert int(data.valid.any(0).sum()) == 3
        np.testing.assert_allclose(body[0, hips], coords[0, :2].mean(0) / 1000, rtol=1e-5)
        np.testing.assert_allclose(body[:, other], coords[:, 3] / 1000, rtol=1e-5)
        assert any("mm" in note for note in notes)

    def test_unknown_unit_is_said(self, tmp_path: Path, coords: np.ndarray) -> None:
        write_c3d(tmp_path / "walk.c3d", coords, LABELS, unit="px")
        data, notes = read_with(tmp_path, MAPPING)
        np.testing.assert_allclose(data.coords[0, data.layout.index("knee_left")], coords[0, 2], rtol=1e-5)
        assert any("'px'" in note for note in notes)

    def test_subjects_are_bodies(self, tmp_path: Path, coords: np.ndarray) -> None:
        labels = [f"{name}:{label}" for name in ("Ann", "Bob") for label in LABELS]
        write_c3d(tmp_path / "walk.c3d", np.concatenate([coords, coords + 50], 1), labels)
        data, _ = read_with(tmp_path, MAPPING)
        assert data.body_names == ["Ann", "Bob"]
        one, two = clip_of(data, "walk")
        knee = data.layout.index("knee_left")
        np.testing.assert_allclose(two[:, knee] - one[:, knee], 0.05, atol=1e-5)

    def test_what_is_not_used_is_said(self, tmp_path: Path, coords: np.ndarray) -> None:
        write_c3d(tmp_path / "walk.c3d", coords, LABELS)
        _, notes = read_with(tmp_path, MAPPING.replace("RKNE", "RTOE"))
        assert any("lacks: RTOE" in note for note in notes)
        assert any("does not use: RKNE" in note for note in notes)


class TestRefused:
    def test_without_a_mapping(self, tmp_path: Path, coords: np.ndarray) -> None:
        write_c3d(tmp_path / "walk.c3d", coords, LABELS)
        with pytest.raises(ValueError, match="LASI, RASI, LKNE, RKNE") as error:
            read(tmp_path / "walk.c3d")
        one_line(error, "--markers FILE.yaml", "layout: kinect20")

    @pytest.mark.parametrize(
        ("mapping", "words"),
        [
            ("[1, 2", ["is no YAML"]),
            ("joints: {a: b}", ["expected 'layout' and 'joints'"]),
            (MAPPING + "extra: 1", ["'extra' is not known"]),
            (MAPPING.replace("knee_left", "left_knee"), ["unknown joint", "left_knee"]),
            (MAPPING.replace("LKNE", "3"), ["joint knee_left", "a list of markers"]),
            ("layout: kinect20\njoints: {head: TOP}", ["none of the markers TOP"]),
        ],
    )
    def test_mapping(self, tmp_path: Path, coords: np.ndarray, mapping: str, words: list[str]) -> None:
        write_c3d(tmp_path / "walk.c3d", coords, LABELS)
        with pytest.raises(ValueError, match=words[0].split()[-1]) as error:
            read_with(tmp_path, mapping)
        one_line(error, *words)

    def test_damage(self, tmp_path: Path, coords: np.ndarray) -> None:
        """A file that is cut off anywhere is read, or refused in one line."""
        write_c3d(tmp_path / "walk.c3d", coords, LABELS)
        content = (tmp_path / "walk.c3d").read_bytes()
        for length in (0, 1, 100, 512, 600, 1024, len(content) - 60):
            (tmp_path / "walk.c3d").write_bytes(content[:length])
            message = "walk.c3d"
            try:
                read_with(tmp_path, MAPPING)
            except ValueError as error:
                message = str(error)
            assert "walk.c3d" in message
            assert "\n" not in message

    def test_package_missing(
        self, tmp_path: Path, coords: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_c3d(tmp_path / "walk.c3d", coords, LABELS)
        monkeypatch.setitem(__import__("sys").modules, "c3d", None)
        with pytest.raises(ImportError, match=r"fastamr\[mocap\]"):
            read(tmp_path / "walk.c3d")
