"""MSR Action3D and DailyActivity3D: joints in their own order, names that tell class and subject, defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastamr.data import read

from ..reading import one_line

POINTS = np.random.default_rng(0).normal(size=(3, 20, 3)).round(4)


def action3d(points: np.ndarray, confidence: float = 1.0) -> list[str]:
    return [" ".join(map(str, [*joint, confidence])) for frame in points for joint in frame]


def daily(frames: list[list[np.ndarray]]) -> str:
    lines = [f"{len(frames)} 20"]
    for bodies in frames:
        lines.append(str(40 * len(bodies)))
        for body in bodies:
            for joint in body:
                lines += [" ".join(map(str, [*joint, 1])), "0.5 0.5 2000 0"]
    return "\n".join(lines)


def test_action3d(tmp_path: Path) -> None:
    lines = action3d(POINTS)
    lines[5] = "0 0 0 0"
    path = tmp_path / "a05_s03_e02_skeleton3D.txt"
    path.write_text("\n".join(lines))
    data = read(path)
    assert (data.layout.name, data.names, data.fps.tolist()) == ("kinect20", ["a05_s03_e02"], [15])
    assert (data.label_names[data.labels[0]], len(data.label_names)) == ("forward punch", 20)
    assert {name: column.tolist() for name, column in data.columns.items()} == {"subject": [3], "rep": [2]}
    assert data.valid is not None
    assert (~data.valid).nonzero().tolist() == [[0, data.layout.index("hip_left")]]
    for joint, place in (("head", 19), ("shoulder_right", 0), ("shoulder_left", 1), ("foot_left", 18)):
        np.testing.assert_allclose(data.coords[:, data.layout.index(joint)], POINTS[:, place], rtol=1e-6)


def test_the_screen(tmp_path: Path) -> None:
    path = tmp_path / "a01_s01_e01_skeleton.txt"
    path.write_text("\n".join(action3d(np.abs(POINTS) * 100)))
    notes: list[str] = []
    data = read(path, say=notes.append)
    assert data.coords.shape == (3, 20, 2)
    assert any("the depth beside them is not read" in note for note in notes)


def test_daily_activity(tmp_path: Path) -> None:
    path = tmp_path / "a13_s10_e01_skeleton.txt"
    path.write_text(daily([[POINTS[0]], [], [POINTS[0] + 0.01, POINTS[1] + 9]]))
    data = read(path)
    assert (data.label_names[data.labels[0]], data.num_bodies, data.columns["subject"].tolist()) == (
        "walk",
        2,
        [10],
    )
    np.testing.assert_allclose(data.coords[0], POINTS[0], rtol=1e-6)
    assert not data.coords[1].any()
    with pytest.raises(ValueError, match="several people in a frame"):
        read(path, track=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n".join(action3d(POINTS)[:-3]), "ends in the middle of a frame: 57 lines"),
        ("1 2 3 1\n1 2 3\n", "line 2: 3 numbers, expected x y z confidence"),
        ("1 2 x 1\n" * 20, "holds|not a number|does not hold"),
        ("0 0 0 0\n" * 20, "no pose of the file has a joint"),
        ("2 20\n40\n" + "1 2 3 1\n" * 40, "frame 1 has -1 lines"),
        ("2 20\n7\n" + "1 2 3 1\n" * 40, "line 2: frame 0 has 7 lines, expected a multiple of 40"),
        ("1 20\n0\n", "shows nobody"),
        ("3 15\n", "line 1: expected the number of frames and 20 joints"),
    ],
)
def test_damage(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a01_s01_e01_skeleton.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    one_line(error, "a01_s01_e01_skeleton.txt")
