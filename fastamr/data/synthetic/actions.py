"""The actions of the synthetic data set, as curves of joint angles over time.

An action moves a person between poses that other actions visit too: it differs by the order, the
rhythm and the speed (a wave and a sip raise the hand alike, a punch, a throw and a pointing arm end alike,
standing up is sitting down backwards). Each action is drawn for many clips at once on a
:class:`~fastamr.data.synthetic.timeline.Stage`. All numbers here are choices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .kinematics import Array
from .timeline import MAIN, OFF, Stage, bump, smooth


def wave(stage: Stage) -> None:
    """The raised hand swings from side to side."""
    up = stage.hold((0.3, 0.6), (0.3, 0.6))
    swing, _ = stage.oscillate(1.3, 2.4)
    stage.toward(up, MAIN, elevation=(0.9, 1.7), azimuth=(0.3, 1.2), spin=(0.2, 1.0), elbow=(1.5, 2.2))
    stage.add(up * swing, MAIN, spin=(0.3, 0.6), elbow=(0.1, 0.3), azimuth=(0.05, 0.2))


def drink(stage: Stage) -> None:
    """The hand goes to the mouth, the head tips back, once or twice."""
    sip = stage.repeat(1.3, 2.2, 2)
    up = bump(sip, 0.0, 0.32, 0.68, 1.0)
    azimuth = stage.draw(-0.2, 0.3)
    stage.toward(
        up, MAIN, elevation=(1.0, 1.4), azimuth=azimuth, spin=azimuth - stage.draw(0.6, 0.9), elbow=(2.0, 2.3)
    )
    tip = bump(sip, 0.3, 0.45, 0.55, 0.72)
    stage.add(tip, nod=(-0.35, -0.1), bend=(-0.08, 0.02))
    stage.add(tip, MAIN, elevation=(0.0, 0.15), wrist=(0.0, 0.4))


def throw(stage: Stage) -> None:
    """Wind up beside the head, then a fast release forward."""
    phase = stage.once(0.9, 1.5)
    back = bump(phase, 0.0, 0.42, 0.5, 0.62)
    out = bump(phase, 0.5, 0.62, 0.66, 1.0)
    stage.toward(back, MAIN, elevation=(0.9, 1.7), azimuth=(0.6, 1.3), spin=(0.5, 1.4), elbow=(1.6, 2.2))
    stage.toward(out, MAIN, elevation=(1.0, 1.7), azimuth=(-0.2, 0.4), spin=(-0.2, 0.3), elbow=(0.1, 0.5))
    stage.add(back - out, turn=(-0.4, -0.1))
    stage.add(out, bend=(0.0, 0.25), pitch=(0.0, 0.15))


def point(stage: Stage) -> None:
    """The arm stretches forward or sideways and stays."""
    up = stage.hold((0.4, 0.8), (0.4, 0.8))
    stage.toward(up, MAIN, elevation=(1.0, 1.7), azimuth=(-0.2, 0.9), spin=(-0.2, 0.4), elbow=(0.05, 0.5))
    stage.add(up, turn=(-0.2, 0.2))


def punch(stage: Stage) -> None:
    """Fast jabs from a guard, once to four times."""
    guard = stage.hold((0.2, 0.5), (0.2, 0.5))
    phase = stage.repeat(0.45, 0.8, 4)
    jab = bump(phase, 0.1, 0.35, 0.45, 0.85)
    for side in (MAIN, OFF):
        hit = jab if side == MAIN else jab * 0.0
        held = guard * (1 - hit)
        stage.toward(held, side, elevation=(0.4, 1.0), azimuth=(0.0, 0.5), spin=(-0.2, 0.4), elbow=(1.6, 2.3))
    stage.toward(
        guard * jab, MAIN, elevation=(1.1, 1.6), azimuth=(-0.3, 0.2), spin=(-0.2, 0.2), elbow=(0.1, 0.4)
    )
    stage.add(guard * jab, turn=(0.1, 0.4), bend=(0.0, 0.15))


def clap(stage: Stage) -> None:
    """Both hands meet in front again and again."""
    up = stage.hold((0.25, 0.5), (0.25, 0.5))
    beat, _ = stage.oscillate(1.4, 2.6)
    elevation, elbow = stage.draw(0.4, 1.1), stage.draw(1.0, 1.6)
    opening = stage.draw(0.15, 0.4)
    for side in (MAIN, OFF):
        stage.add(up, side, elevation=elevation - 0.14, elbow=elbow - 0.3)
        stage.toward(up, side, azimuth=0.1, spin=-0.35)
        stage.add(up * beat, side, azimuth=opening, spin=opening)


def push(stage: Stage) -> None:
    """Both hands shove the partner, who stumbles back."""
    phase = stage.once(0.9, 1.5)
    if stage.role == 0:
        ready, out = bump(phase, 0.0, 0.3, 0.34, 0.48), bump(phase, 0.34, 0.48, 0.54, 0.95)
        for side in (MAIN, OFF):
            stage.toward(
                ready, side, elevation=(0.4, 0.9), azimuth=(0.0, 0.5), spin=(-0.2, 0.3), elbow=(1.6, 2.2)
            )
            stage.toward(
                out, side, elevation=(1.1, 1.5), azimuth=(-0.2, 0.2), spin=(-0.2, 0.2), elbow=(0.1, 0.5)
            )
        stage.add(out, bend=(0.0, 0.3), pitch=(0.05, 0.2))
        stage.add(ready + out, path_z=(0.1, 0.3))
        return
    hit = bump(phase, 0.44, 0.56, 0.62, 1.0)
    stage.add(hit, bend=(-0.35, -0.1), pitch=(-0.2, 0.0), nod=(0.0, 0.4))
    stage.add(smooth((phase - 0.46) * 3), path_z=(-0.5, -0.15))
    for side in (MAIN, OFF):
        stage.toward(hit, side, elevation=(0.3, 0.9), azimuth=(0.2, 1.0), elbow=(0.3, 1.0))
    step = bump(phase, 0.46, 0.58, 0.6, 0.76)
    stage.add(step, MAIN, hip=(0.1, 0.4), knee=(0.3, 0.8))


def handshake(stage: Stage) -> None:
    """Both reach out, the joined hands go up and down, both let go."""
    up = stage.hold((0.4, 0.7), (0.4, 0.7))
    shake, _ = stage.oscillate(1.8, 3.0)
    stage.toward(up, MAIN, elevation=(0.7, 1.0), azimuth=(-0.4, -0.2), spin=(-0.4, -0.1), elbow=(0.4, 0.8))
    stage.add(up, bend=(0.0, 0.2))
    stage.add(up * shake, MAIN, elevation=stage.draw(0.06, 0.14), elbow=stage.draw(0.05, 0.2))


def hand_over(stage: Stage) -> None:
    """One reaches out, waits, and the other reaches out later to take the thing."""
    phase = stage.once(1.5, 2.4)
    late = stage.draw(0.08, 0.22)
    up = bump(phase, 0.0, 0.3, 0.6, 0.95)
    if stage.role == 1:
        up = bump(phase - stage.spread(late), 0.05, 0.3, 0.42, 0.75)
    stage.toward(up, MAIN, elevation=(0.7, 1.0), azimuth=(-0.4, -0.2), spin=(-0.4, -0.1), elbow=(0.4, 0.8))
    stage.add(up, bend=(0.0, 0.2))


def kick(stage: Stage) -> None:
    """The leg draws back and swings forward fast."""
    phase = stage.repeat(0.9, 1.4, 2)
    back, out = bump(phase, 0.05, 0.35, 0.38, 0.56), bump(phase, 0.38, 0.56, 0.6, 0.9)
    stage.add(back, MAIN, hip=(-0.6, -0.3), knee=(0.6, 1.1), ankle=(0.2, 0.6))
    stage.add(out, MAIN, hip=(0.7, 1.4), knee=(0.0, 0.3), ankle=(0.0, 0.3))
    stage.add(out, bend=(-0.2, 0.0), pitch=(-0.2, 0.0))
    stage.add(out - back, OFF, elevation=(0.1, 0.5))
    stage.add(back + out, OFF, azimuth=(-1.0, -0.2), knee=(0.05, 0.2), hip=(0.0, 0.1))
    stage.add(back + out, MAIN, plant=-0.5)
    stage.add(back + out, OFF, plant=0.5)


def walk(stage: Stage) -> None:
    """Walk a few steps, with a start and a stop."""
    stage.shorten(2.4)
    going = stage.hold((0.3, 0.6), (0.3, 0.6))
    rate = stage.draw(0.75, 1.0) * stage.tempo
    stride = stage.draw(0.3, 0.45) * stage.size
    swing, lift = stage.cycle(rate, stage.draw(0, 1))
    arms = stage.draw(0.1, 0.5)
    for side, sign in ((MAIN, 1.0), (OFF, -1.0)):
        up = np.maximum(lift * sign, 0)
        stage.add(going * swing * sign, side, hip=stride)
        stage.add(going * up * up, side, knee=stride * 2.4, hip=stride * 0.5)
        stage.toward(going, side, azimuth=0.0)
        stage.add(going * swing * -sign, side, elevation=arms)
    # A leg of 0.85 m that swings through the vertical sets the speed.
    speed = going * stage.spread(stride * rate * (0.85 * 4.6 / stage.fps))
    path = np.cumsum(speed, dtype=np.float64)
    middle = path[stage.first + stage.frames // 2]
    stage.add((path - middle[stage.clip]).astype(np.float32), path_z=1.0)


def squat(stage: Stage) -> None:
    """Down and up, once to three times."""
    phase = stage.repeat(1.0, 1.8, 3)
    _sink(stage, bump(phase, 0.0, 0.42, 0.5, 1.0), (0.9, 1.5))


def sit_down(stage: Stage) -> None:
    """From standing to the height of a chair, and stay."""
    _seat(stage, smooth(stage.once(0.7, 1.3)))


def stand_up(stage: Stage) -> None:
    """From the height of a chair to standing: :func:`sit_down` backwards."""
    _seat(stage, 1 - smooth(stage.once(0.7, 1.3)))


def _sink(stage: Stage, down: Array, depth: tuple[float, float]) -> None:
    hip = stage.draw(*depth) * stage.size
    knee = hip * stage.draw(1.1, 1.3)
    for side in (MAIN, OFF):
        stage.add(down, side, hip=hip, knee=knee)
        stage.add(down, side, elevation=(0.0, 0.6), azimuth=-0.8)
    stage.add(down, bend=(0.1, 0.4), pitch=(0.1, 0.4), nod=(-0.3, 0.0))


def _seat(stage: Stage, seated: Array) -> None:
    _sink(stage, seated, (1.1, 1.5))
    moving = seated * (1 - seated) * 4
    stage.add(moving, bend=(0.1, 0.4), pitch=(0.0, 0.25))


def jump(stage: Stage) -> None:
    """Crouch, leave the floor, land, once or twice."""
    phase = stage.repeat(0.9, 1.4, 2)
    crouch, land = bump(phase, 0.0, 0.3, 0.34, 0.5), bump(phase, 0.66, 0.76, 0.78, 1.0)
    _sink(stage, crouch + land * 0.7, (0.5, 1.1))
    air = np.clip((phase - 0.42) * (1 / 0.28), 0, 1)
    stage.add(air * (1 - air) * 4, lift=(0.1, 0.25))
    swing, busy = bump(phase, 0.28, 0.54, 0.58, 0.9), bump(phase, 0.0, 0.15, 0.8, 1.0)
    arms = stage.draw(0.0, 0.9)
    for side in (MAIN, OFF):
        stage.toward(busy, side, azimuth=(0.1, 1.0))
        stage.add(crouch, side, elevation=arms * -0.6)
        stage.add(swing, side, elevation=arms, ankle=(0.2, 0.5))


def jumping_jack(stage: Stage) -> None:
    """Arms and legs open and close with every hop."""
    going = stage.hold((0.4, 0.8), (0.4, 0.8))
    _, beat = stage.oscillate(0.9, 1.4)
    opened = (1 - beat) * 0.5 * going
    for side in (MAIN, OFF):
        stage.toward(opened, side, azimuth=1.5, spin=0.8)
        stage.add(opened, side, elevation=(1.5, 2.6), spread=(0.2, 0.45))
    stage.add(opened * (1 - opened) * 4, lift=(0.02, 0.1))


def bow(stage: Stage) -> None:
    """The trunk goes down and comes up."""
    phase = stage.once(1.3, 2.4)
    down = bump(phase, 0.0, 0.42, 0.55, 1.0)
    stage.add(down, bend=(0.3, 0.8), pitch=(0.2, 0.7), nod=(0.0, 0.4))
    for side in (MAIN, OFF):
        stage.add(down, side, elevation=(0.1, 0.5), azimuth=-1.0)


def turn_around(stage: Stage) -> None:
    """Turn by about half a circle in small steps."""
    phase = stage.once(0.8, 1.6)
    stage.add(smooth(phase), yaw=(2.2, 3.6))
    moving = bump(phase, 0.0, 0.2, 0.8, 1.0)
    swing, _ = stage.oscillate(1.0, 1.6)
    for side, sign in ((MAIN, 1.0), (OFF, -1.0)):
        step = np.maximum(swing * sign, 0) * moving
        stage.add(step, side, hip=(0.2, 0.4), knee=(0.4, 0.8))
        stage.add(moving, side, elevation=(0.0, 0.25))
    stage.add(moving, shake=(0.0, 0.4), turn=(0.0, 0.3))


@dataclass(frozen=True)
class Action:
    """How an action moves a person, and how many people it takes (1 or 2)."""

    move: Callable[[Stage], None]
    bodies: int = 1


ACTIONS = {
    "wave": Action(wave),
    "drink": Action(drink),
    "throw": Action(throw),
    "point": Action(point),
    "punch": Action(punch),
    "clap": Action(clap),
    "kick": Action(kick),
    "walk": Action(walk),
    "squat": Action(squat),
    "sit_down": Action(sit_down),
    "stand_up": Action(stand_up),
    "jump": Action(jump),
    "jumping_jack": Action(jumping_jack),
    "bow": Action(bow),
    "turn_around": Action(turn_around),
    "push": Action(push, bodies=2),
    "handshake": Action(handshake, bodies=2),
    "hand_over": Action(hand_over, bodies=2),
}
"""The action classes by name, in label order."""
