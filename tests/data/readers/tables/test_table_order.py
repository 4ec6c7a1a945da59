"""The order of columns, rows and joints, and the unit in the names, never change what a table says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons, read
from fastamr.skeleton import get_layout

from ..writers_tables import write_rows

FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = st.integers(0, 10_000)
NAMES = st.sampled_from(["coco17", "kinect20", "mediapipe33"])


def quiet(path: Path) -> PackedSkeletons:
    return read(path, say=lambda line: None)


def poses(
    rng: np.random.Generator, joints: int, channels: int
) -> list[tuple[str, int, str, np.ndarray, np.ndarray]]:
    """Clip, frame, body, points and which were seen; bodies come and go."""
    found = []
    for clip in ("c2", "c10"):
        for body in ("7", "12"):
            start = int(rng.integers(0, 3))
            for frame in range(start, start + int(rng.integers(2, 5))):
                points = rng.normal(size=(joints, channels)).round(4)
                found.append((clip, frame, body, points, rng.random(joints) < 0.9))
    return found


@FUZZ
@given(seed=SEEDS, name=NAMES, unit=st.sampled_from(["", "_m", " (m)"]))
def test_a_row_a_joint(tmp_path: Path, seed: int, name: str, unit: str) -> None:
    rng = np.random.default_rng(seed)
    joints = get_layout(name).joints
    rows = [
        [clip, frame, body, joint, *point, 0.9 if seen else 0, clip.upper()]
        for clip, frame, body, points, mask in poses(rng, len(joints), 3)
        for joint, point, seen in zip(joints, points, mask, strict=True)
    ]
    header = ["clip", "frame", "body", "joint", *(f"{axis}{unit}" for axis in "xyz"), "score", "label"]
    plain = quiet(write_rows(tmp_path / "a.csv", header, rows))
    assert plain.layout is get_layout(name)
    order, columns = rng.permutation(len(rows)), rng.permutation(len(header))
    mixed = [[rows[row][column] for column in columns] for row in order]
    again = quiet(write_rows(tmp_path / "a.csv", [header[column] for column in columns], mixed))
    assert again.fingerprint() == plain.fingerprint()
    assert again.body_names == plain.body_names


def wide(
    rng: np.random.Generator, joints: tuple[str, ...], channels: int, unit: str, factor: float
) -> tuple[Any, Any]:
    axes = "xyz"[:channels]
    header = ["clip", "frame", "body"] + [f"{joint}_{axis}{unit}" for joint in joints for axis in axes]
    rows = []
    for clip, frame, body, points, mask in poses(rng, len(joints), channels):
        cells = np.where(mask[:, None], points * factor, math.nan).ravel()
        rows.append([clip, frame, body, *(f"{cell:.6f}" for cell in cells)])
    return header, rows


@FUZZ
@given(seed=SEEDS, name=NAMES, channels=st.integers(2, 3))
def test_a_row_a_frame(tmp_path: Path, seed: int, name: str, channels: int) -> None:
    rng = np.random.default_rng(seed)
    header, rows = wide(np.random.default_rng(seed), get_layout(name).joints, channels, "", 1)
    plain = quiet(write_rows(tmp_path / "a.csv", header, rows))
    assert plain.layout is get_layout(name)
    order, columns = rng.permutation(len(rows)), rng.permutation(len(header))
    mixed = [[rows[row][column] for column in columns] for row in order]
    again = quiet(write_rows(tmp_path / "a.csv", [header[column] for column in columns], mixed))
    assert again.fingerprint() == plain.fingerprint()


@FUZZ
@given(seed=SEEDS, unit=st.sampled_from([("_mm", 1000), ("_cm", 100), (" [mm]", 1000), ("_m", 1)]))
def test_units(tmp_path: Path, seed: int, unit: tuple[str, float]) -> None:
    joints = get_layout("kinect20").joints
    plain = quiet(write_rows(tmp_path / "a.csv", *wide(np.random.default_rng(seed), joints, 3, "", 1)))
    scaled = quiet(write_rows(tmp_path / "a.csv", *wide(np.random.default_rng(seed), joints, 3, *unit)))
    np.testing.assert_allclose(scaled.coords, plain.coords, atol=1e-6)
    assert scaled.names == plain.names


@FUZZ
@given(seed=SEEDS, name=NAMES)
def test_both_forms_say_the_same(tmp_path: Path, seed: int, name: str) -> None:
    joints = get_layout(name).joints
    header, rows = wide(np.random.default_rng(seed), joints, 3, "", 1)
    long = [
        [*row[:3], joint, *row[3 + 3 * place : 6 + 3 * place]]
        for row in rows
        for place, joint in enumerate(joints)
    ]
    first = quiet(write_rows(tmp_path / "a.csv", header, rows))
    second = quiet(write_rows(tmp_path / "a.csv", ["clip", "frame", "body", "joint", "x", "y", "z"], long))
    assert first.fingerprint() == second.fingerprint()
