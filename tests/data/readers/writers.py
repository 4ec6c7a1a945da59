"""Writers of raw files for the tests; the formats are those that the readers' docstrings describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

BodyFrames = Mapping[int, np.ndarray]
"""By number, the bodies of a frame: ``(25, 3)`` metres, or ``(25, 4)`` with the tracking state."""


def skeleton_text(frames: Sequence[BodyFrames], end: str = "\r\n") -> bytes:
    """Write a ``.skeleton`` file of NTU RGB+D; the official files end their lines as Windows does."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for number, joints in bodies.items():
            lines += [f"{number} 0 1 1 0 0 0 0.02764709 -0.05745083 2", str(len(joints))]
            lines += [joint_line(joint) for joint in joints]
    return (end.join(lines) + end).encode()


def joint_line(joint: Sequence[float]) -> str:
    """Write the 12 numbers of a joint; those that are not read are NaN now and then, as in the official files."""
    x, y, z, *state = joint
    others = "277.419 191.8218 NaN -1036.2 -0.2059 0.04349632 9.5e-01 0.2004168"
    return f"{x!s} {y!s} {z!s} {others} {int(state[0]) if state else 2}"


def standing(frames: int = 4, seed: int = 0, shift: float = 0.0, noise: float = 0.05) -> np.ndarray:
    """Make ``(T, 25, 3)`` float32 of a body that is higher than wide and moves."""
    rng = np.random.default_rng(seed)
    body = rng.normal(size=(25, 3)) * 0.1 + np.linspace([0, -1, 3], [0, 1, 3], 25) + [shift, 0, 0]
    return (body + rng.normal(size=(frames, 25, 3)) * noise).astype(np.float32)


def lying(frames: int = 4, seed: int = 0, noise: float = 0.05) -> np.ndarray:
    """Make ``(T, 25, 3)`` float32 of something that is wider than high, as a table."""
    return np.ascontiguousarray(standing(frames, seed, 0.0, noise)[..., [1, 0, 2]])


def frames_of(*bodies: tuple[int, int, np.ndarray], frames: int | None = None) -> list[dict[int, np.ndarray]]:
    """Lay bodies out in frames: each is its number, its first frame and its coordinates ``(T, 25, C)``."""
    count = frames or max(first + len(coords) for _, first, coords in bodies)
    return [
        {number: coords[t - first] for number, first, coords in bodies if 0 <= t - first < len(coords)}
        for t in range(count)
    ]


def pku_text(stream: np.ndarray, end: str = "\n") -> bytes:
    """Write a skeleton file of PKU-MMD from ``(T, 2, 25, 3)``."""
    return "".join(" ".join(map(str, frame.ravel())) + " " + end for frame in stream).encode()


def pku_label_text(rows: Sequence[tuple[int, int, int, int]], end: str = "\r\n") -> bytes:
    """Write a label file of PKU-MMD."""
    return "".join(",".join(map(str, row)) + end for row in rows).encode()


def pku_split_text(train: Sequence[str], test: Sequence[str]) -> bytes:
    """Write a list of a protocol, with the heading as it is spelt in the official ones."""
    return f"Training videos: \n{', '.join(train)}, \nValidataion videos: \n{', '.join(test)}, \n".encode()
