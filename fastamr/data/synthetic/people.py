"""Who acts in the synthetic data set: bodies, postures, sway and the small movements between actions.

All ranges are choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kinematics import BONES, DOF_ROW, DOFS, Array, bone_lengths
from .random_numbers import Draws, uniforms
from .timeline import Stage, bump

# How far a person's posture deviates (radians, at most) and how much it sways.
_POSTURE = {
    "pitch": 0.06, "roll": 0.03, "bend": 0.12, "lean": 0.05, "turn": 0.08, "nod": 0.2, "shake": 0.25,
    "elevation": 0.1, "azimuth": 0.3, "spin": 0.25, "elbow": 0.3, "wrist": 0.2, "hip": 0.05, "spread": 0.05,
    "knee": 0.05,
}  # fmt: skip

FIDGETS = 3
BODY_DRAWS = 4 + 3 * len(DOFS) + 24 * FIDGETS
"""How many uniform numbers :func:`sway` and :func:`fidget` take from a body."""

_FIDGET_ARM = {"elevation": 1.0, "azimuth": -0.9, "elbow": 1.9}
_FIDGET_TRUNK = {
    "nod": (-0.2, 0.4),
    "shake": (-0.8, 0.8),
    "turn": (-0.4, 0.4),
    "bend": (-0.05, 0.35),
    "yaw": (-0.5, 0.5),
}


def _scale_rows(table: dict[str, float]) -> Array:
    return np.array([table.get(name.split("_")[-1], 0.0) for name in DOFS], dtype=np.float32)


@dataclass(frozen=True)
class People:
    """``P`` people: ``bones`` (len(BONES), P) metres, ``posture`` (len(DOFS), P), ``tempo``, ``size``."""

    bones: Array
    posture: Array
    tempo: Array
    size: Array


def draw_people(bits: np.random.PCG64, count: int) -> People:
    """Draw bodies and habits of ``count`` people."""
    columns = 3 + len(BONES) + len(DOFS)
    draws = Draws(uniforms(bits, count, columns))
    stature = draws.uniform(1.5, 1.95)
    return People(
        tempo=draws.uniform(0.8, 1.25),
        size=draws.uniform(0.85, 1.1),
        bones=bone_lengths(stature, draws.block(len(BONES)) * 0.16 - 0.08),
        posture=(draws.block(len(DOFS)) * 2 - 1).T * _scale_rows(_POSTURE)[:, None],
    )


def fidget(stage: Stage, draws: Draws, together: bool) -> None:
    """Add movements that any clip may hold: of an arm, a look aside, a stoop, a shift of the legs.

    They are smaller while the action runs, and most of all where two people act together and must meet.
    """
    share = 1 - (0.8 if together else 0.2) * stage.window()
    for _ in range(FIDGETS):
        middle, length = draws.uniform() * stage.length, draws.uniform(0.8, 2.4)
        phase = (stage.time - stage.spread(middle)) * stage.spread(1 / length) + 0.5
        curve = bump(phase, 0.0, 0.35, 0.6, 1.0) * share
        for side in ("left", "right"):
            chosen = draws.uniform() < 0.3
            for name, most in _FIDGET_ARM.items():
                stage.add(curve, side, **{name: draws.uniform(0, most) * chosen})
            lifted = draws.uniform(0, 0.3) * (draws.uniform() < 0.25)
            stage.add(curve, side, hip=lifted, knee=lifted * 2)
        for name, (low, high) in _FIDGET_TRUNK.items():
            stage.add(curve, "", **{name: draws.uniform(low, high) * (draws.uniform() < 0.4)})


def sway(stage: Stage, posture: Array, draws: Draws) -> None:
    """Add a person's posture ``(len(DOFS), n)``, a deviation of the clip, and slow sway."""
    scale = _scale_rows(_POSTURE)[:, None]
    waves = [stage.cycle(draws.uniform(*band), draws.uniform())[0] for band in ((0.1, 0.3), (0.3, 0.8))]
    amounts = [(draws.block(len(DOFS)).T * 2 - 1) * scale * share for share in (0.5, 0.25, 0.15)]
    for row in np.flatnonzero(scale[:, 0]):
        still = posture[row] + amounts[0][row]
        curve = stage.spread(still)
        for wave, amount in zip(waves, amounts[1:], strict=True):
            curve += wave * stage.spread(amount[row])
        stage.pose[row] += curve


_PAIRS = [
    (row, DOF_ROW["right" + name.removeprefix("left")])
    for row, name in enumerate(DOFS)
    if name.startswith("left")
]
_SIDEWAYS = [DOF_ROW[name] for name in ("path_x", "yaw", "roll", "lean", "turn", "shake")]


def mirror(pose: Array, mirrored: NDArray[np.bool_]) -> None:
    """Swap left and right in the frames ``(F,)`` that are mirrored."""
    for left, right in _PAIRS:
        kept = pose[left].copy()
        pose[left] = np.where(mirrored, pose[right], kept)
        pose[right] = np.where(mirrored, kept, pose[right])
    sign = np.where(mirrored, np.float32(-1), np.float32(1))
    for row in _SIDEWAYS:
        pose[row] *= sign
