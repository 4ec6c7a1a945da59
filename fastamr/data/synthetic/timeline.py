"""The time line on which the actions of many clips are drawn at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kinematics import DOF_ROW, DOFS, Array, sine_cosine
from .random_numbers import Draws

Range = float | tuple[float, float]
"""A fixed number, or the bounds of a number that each clip draws uniformly."""

MAIN, OFF = "right", "left"
"""The side an action prefers and the other one; a mirrored clip swaps them."""

DRAWS = 64
"""How many uniform numbers a clip keeps for its action; more raise an IndexError."""

_REST = {
    "elevation": 0.14,
    "azimuth": 1.2,
    "elbow": 0.3,
    "wrist": 0.1,
    "hip": 0.06,
    "spread": 0.06,
    "knee": 0.1,
}


def rest_pose() -> Array:
    """Standing at ease, ``(len(DOFS), 1)``."""
    pose = np.zeros((len(DOFS), 1), dtype=np.float32)
    for side in ("left", "right"):
        pose[DOF_ROW[f"{side}_plant"]] = 0.5
        for name, angle in _REST.items():
            pose[DOF_ROW[f"{side}_{name}"]] = angle
    return pose


_BASE = {name: float(angle) for name, angle in zip(DOFS, rest_pose()[:, 0], strict=True)}


def smooth(x: Array) -> Array:
    """The minimum-jerk step: 0 below 0, 1 above 1."""
    x = np.clip(x, 0, 1)
    return x * x * x * (x * (x * 6 - 15) + 10)


def bump(phase: Array, rise: float, top: float, leave: float, end: float) -> Array:
    """0 before ``rise``, 1 from ``top`` to ``leave``, 0 after ``end``, with minimum-jerk flanks."""
    up = smooth((phase - rise) * (1 / (top - rise)))
    return up - smooth((phase - leave) * (1 / (end - leave)))


class Stage:
    """The clips of one action, one person each, side by side in time.

    ``n`` clips with ``F`` frames in all. Values per clip are ``(n,)``, curves are ``(F,)``.

    Args:
        frames: ``(n,)`` frames of each clip.
        fps: frames per second.
        draws: the random numbers of each clip, ``DRAWS`` columns.
        tempo: ``(n,)`` relative speed.
        size: ``(n,)`` relative size of the movements.
        role: 0 for the person who acts, 1 for the partner of a two-person action.
    """

    def __init__(
        self, frames: NDArray[np.int64], fps: float, draws: Draws, tempo: Array, size: Array, role: int = 0
    ) -> None:
        self.frames, self.fps, self.role = frames, fps, role
        self.tempo, self.size = tempo, size
        self.draw = draws.uniform
        self.clip = np.repeat(np.arange(len(frames)), frames)
        self.first = np.cumsum(frames) - frames
        self.frame = np.arange(len(self.clip)) - self.first[self.clip]
        self.time: Array = self.frame.astype(np.float32) * np.float32(1 / fps)
        self.pose: Array = np.repeat(rest_pose(), len(self.clip), axis=1)
        self.length: Array = frames.astype(np.float32) * np.float32(1 / fps)
        self.span = self.length * self.draw(0.4, 0.95)
        self.begin = (self.length - self.span) * self.draw(0, 1)

    def shorten(self, most: float) -> None:
        """Let the window last at most ``most`` seconds."""
        span = np.minimum(self.span, most)
        self.begin = self.begin + (self.span - span) * self.draw(0, 1)
        self.span = span

    def spread(self, value: NDArray[Any]) -> NDArray[Any]:
        """A value per clip ``(n,)`` as a curve ``(F,)``."""
        return value[self.clip]

    def add(self, curve: Array, side: str = "", **amounts: Range | Array) -> None:
        """Add a curve times an amount (radians or metres) to degrees of freedom of a side or of the trunk."""
        for name, amount in amounts.items():
            if isinstance(amount, tuple):
                amount = self.draw(*amount)
            scale = amount if isinstance(amount, float | int) else self.spread(amount)
            self.pose[DOF_ROW[f"{side}_{name}" if side else name]] += curve * scale

    def toward(self, curve: Array, side: str = "", **targets: Range | Array) -> None:
        """Move degrees of freedom from rest toward targets; curves of several calls sum to at most 1."""
        for name, target in targets.items():
            value = self.draw(*target) if isinstance(target, tuple) else target
            base = _BASE[f"{side}_{name}" if side else name]
            self.add(curve, side, **{name: (value - base) * self.size})

    def hold(self, rise: tuple[float, float], fall: tuple[float, float]) -> Array:
        """A curve that rises at the window's begin and falls at its end, in seconds at tempo 1."""
        up, down = self._flank(*rise), self._flank(*fall)
        stop = self.begin + self.span - down
        return self.rise(self.begin, up) - self.rise(stop, down)

    def _flank(self, low: float, high: float) -> Array:
        return np.minimum(self.draw(low, high) / self.tempo, self.span * 0.35)

    def rise(self, start: Array, length: Array) -> Array:
        """A minimum-jerk step from ``start`` over ``length`` seconds."""
        return smooth((self.time - self.spread(start)) * self.spread(1 / length))

    def window(self) -> Array:
        """1 while the action may run, 0 before and after."""
        fade = np.full_like(self.span, 0.3)
        return self.rise(self.begin - fade, fade) - self.rise(self.begin + self.span, fade)

    def once(self, low: float, high: float) -> Array:
        """Phase 0 to 1 of a movement that lasts ``low`` to ``high`` seconds somewhere in the window."""
        length = np.minimum(self.draw(low, high) / self.tempo, self.span)
        begin = self.begin + (self.span - length) * self.draw(0, 1)
        return np.clip((self.time - self.spread(begin)) * self.spread(1 / length), 0, 1)

    def repeat(self, low: float, high: float, most: int) -> Array:
        """Phase 0 to 1 of a movement of ``low`` to ``high`` seconds, 1 to ``most`` times as may fit."""
        period = np.minimum(self.draw(low, high) / self.tempo, self.span)
        count = np.minimum(np.floor(self.span / period), np.floor(self.draw(1, most + 1)))
        begin = self.begin + (self.span - count * period) * self.draw(0, 1)
        beats = (self.time - self.spread(begin)) * self.spread(1 / period)
        inside = (beats >= 0) & (beats < self.spread(count))
        return (beats - np.floor(beats)) * inside

    def oscillate(self, low: float, high: float) -> tuple[Array, Array]:
        """Sine and cosine of an oscillation of ``low`` to ``high`` hertz at tempo 1, from a random phase."""
        return self.cycle(self.draw(low, high) * self.tempo, self.draw(0, 1))

    def cycle(self, rate: Array, phase: Array) -> tuple[Array, Array]:
        """Sine and cosine of an oscillation of ``rate`` hertz from ``phase`` (turns), both ``(n,)``."""
        return sine_cosine((self.time * self.spread(rate) + self.spread(phase)) * (2 * math.pi))
