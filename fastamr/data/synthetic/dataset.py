"""A seeded data set of articulated motion, made by forward kinematics of the 25-joint NTU skeleton."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import check_name
from ...skeleton import get_layout
from ..packed.dataset import PackedSkeletons, Split
from .actions import ACTIONS
from .kinematics import BONES, DOF_ROW, NUM_JOINTS, Array, forward_kinematics, sine_cosine
from .people import BODY_DRAWS, People, draw_people, fidget, mirror, sway
from .random_numbers import Draws, add_noise, bit_stream, noise_table, uniforms
from .timeline import DRAWS, Stage

Index = NDArray[np.int64]

# Clips of a chunk are made together; a clip depends on its chunk's streams and on earlier clips in them.
_CHUNK = 1024
_PEOPLE, _CLIPS, _BODIES, _LABELS, _NOISE, _DROPS = range(6)
_JITTER, _JITTER_SCALE = 0.005, 8.0
_VIEWS = 3
_CLIP_DRAWS = 12
_LIMITS = {
    "fps": (1.0, 1000.0),
    "noise": (0.0, 1.0),
    "drop_joints": (0.0, 0.5),
    "camera_angle": (-math.pi, math.pi),
    "train_share": (0.0, 1.0),
}


@dataclass(frozen=True)
class _Options:
    """The arguments of :func:`synthetic_actions`, checked."""

    clips: int
    seed: int
    actions: tuple[str, ...]
    frames: Sequence[int]
    fps: float
    noise: float
    drop_joints: float
    camera_angle: float
    subjects: int
    train_share: float

    def __post_init__(self) -> None:
        for what, least in (("clips", 1), ("seed", 0), ("subjects", 2)):
            _check_whole(what, getattr(self, what), least)
        if not isinstance(self.frames, Sequence) or len(self.frames) != 2:
            raise ValueError(f"frames is {self.frames!r}, expected (least, largest) number of frames")
        _check_whole("the least of frames", self.frames[0], 2)
        _check_whole("the largest of frames", self.frames[1], self.frames[0])
        for what, (low, high) in _LIMITS.items():
            value = getattr(self, what)
            if not isinstance(value, float | int | np.number):
                raise TypeError(f"{what} is {value!r}, expected a number")
            if not low <= value <= high:
                raise ValueError(f"{what} is {value!r}, expected a number between {low:g} and {high:g}")
            object.__setattr__(self, what, float(value))


def _check_whole(what: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{what} is {value!r}, expected a whole number")
    if value < least:
        raise ValueError(f"{what} is {value}, expected at least {least}")


def _check_actions(actions: Sequence[str]) -> tuple[str, ...]:
    if isinstance(actions, str):
        raise TypeError(f"actions is {actions!r}, expected a sequence of names, for example [{actions!r}]")
    for name in actions:
        check_name("action", name, ACTIONS)
    if len(actions) == 0 or len(set(actions)) != len(actions):
        raise ValueError(f"actions is {list(actions)!r}, expected at least one name, and none twice")
    return tuple(actions)


@dataclass(frozen=True)
class _Chunk:
    """What is drawn for each clip of a chunk before any motion is made."""

    number: int
    labels: Index
    frames: Index
    subject: Index
    view: Index
    table: Array
    body_clip: Index
    body_role: Index

    @property
    def body_frames(self) -> Index:
        return self.frames[self.body_clip]


def synthetic_actions(
    clips: int = 2048,
    *,
    seed: int = 0,
    actions: Sequence[str] | None = None,
    frames: Sequence[int] = (40, 150),
    fps: float = 30.0,
    noise: float = 0.003,
    drop_joints: float = 0.02,
    camera_angle: float = math.pi / 4,
    subjects: int = 40,
    train_share: float = 0.7,
) -> PackedSkeletons:
    """Make clips of people who act in front of a Kinect-like camera.

    Coordinates are metres in the camera's frame: y up, z away from the camera, people 2 to 4 m away. Each
    clip draws its subject (body size, proportions, posture, tempo, size of movement), the acting hand, when
    the action begins and ends, its speed and poses, the camera's side, height and tilt. The classes come in
    equal numbers. All ranges are choices. The same arguments give the same bits on every machine, and clip
    ``i`` does not depend on ``clips``.

    Args:
        clips: how many, at least 1.
        seed: at least 0.
        actions: class names, in label order; None = all of :data:`fastamr.data.synthetic.actions.ACTIONS`.
        frames: the least and the largest length of a clip, at least 2.
        fps: frames per second.
        noise: standard deviation of the sensor noise in metres; one value in 200 jitters 8 times as far.
        drop_joints: share of the joint positions that the sensor loses, 0 to 0.5, in stretches. A lost joint
            stays where it was last seen, as with a Kinect, and ``valid`` is False there; a clip's first frame
            is complete.
        camera_angle: radians between the cameras of views 0, 1 (in front) and 2.
        subjects: how many different people act, at least 2.
        train_share: share of the subjects that split "official" trains on, 0 to 1; it tests on the others.

    Returns:
        The packed clips, layout "ntu25", with columns "subject" and "view". Two-person actions have two
        bodies.

    Raises:
        ValueError: an argument out of range, or an unknown action (with the nearest name).
        TypeError: an argument of the wrong type.
    """
    names = tuple(ACTIONS) if actions is None else _check_actions(actions)
    options = _Options(
        clips, seed, names, frames, fps, noise, drop_joints, camera_angle, subjects, train_share
    )
    people = draw_people(bit_stream(seed, 0, _PEOPLE), 2 * subjects)
    chunks = [
        _draw_chunk(options, number, min(_CHUNK, clips - number * _CHUNK))
        for number in range(-(-clips // _CHUNK))
    ]
    lengths = np.concatenate([chunk.body_frames for chunk in chunks])
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    coords = np.empty((int(offsets[-1]), NUM_JOINTS, 3), dtype=np.float32)
    valid = np.ones(coords.shape[:2], dtype=bool)
    table, first = noise_table(options.noise, _JITTER, _JITTER_SCALE), 0
    for chunk in chunks:
        rows = slice(first, first + int(chunk.body_frames.sum()))
        _render(coords[rows], chunk, people, options)
        if options.noise > 0:
            add_noise(coords[rows], table, bit_stream(options.seed, chunk.number, _NOISE))
        if options.drop_joints > 0:
            _drop(coords[rows], valid[rows], chunk, options)
        first = rows.stop
    return _pack(coords, offsets, valid, chunks, options)


def _pack(
    coords: Array, offsets: Index, valid: NDArray[np.bool_], chunks: list[_Chunk], options: _Options
) -> PackedSkeletons:
    labels, subject, view = (
        np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("labels", "subject", "view")
    )
    body_clip = np.concatenate([chunk.body_clip + chunk.number * _CHUNK for chunk in chunks])
    train = torch.from_numpy(_train_subjects(options)[subject])
    return PackedSkeletons(
        coords=torch.from_numpy(coords),
        offsets=torch.from_numpy(offsets),
        body_clip=torch.from_numpy(body_clip),
        body_start=torch.zeros(len(body_clip), dtype=torch.int64),
        labels=torch.from_numpy(labels),
        fps=torch.full((len(labels),), options.fps, dtype=torch.float32),
        layout=get_layout("ntu25"),
        names=[f"{options.actions[label]}_{place:06d}" for place, label in enumerate(labels)],
        columns={"subject": torch.from_numpy(subject), "view": torch.from_numpy(view)},
        splits={"official": Split(train=train, test=~train)},
        valid=torch.from_numpy(valid),
        label_names=options.actions,
    )


def _train_subjects(options: _Options) -> NDArray[np.bool_]:
    """Which subjects train ``(S,)``; both sides have one unless the share is 0 or 1."""
    order = np.argsort(
        uniforms(bit_stream(options.seed, 1, _PEOPLE), options.subjects, 1)[:, 0], kind="stable"
    )
    count = round(options.train_share * options.subjects)
    if 0 < options.train_share < 1:
        count = min(max(count, 1), options.subjects - 1)
    train = np.zeros(options.subjects, dtype=bool)
    train[order[:count]] = True
    return train


def _draw_chunk(options: _Options, number: int, clips: int) -> _Chunk:
    """Class, length, subject and view of each clip, and its bodies."""
    table = uniforms(bit_stream(options.seed, number, _CLIPS), clips, 4 + _CLIP_DRAWS + DRAWS)
    draws = Draws(table)
    low, high = options.frames
    scale = np.array([[high - low + 1, options.subjects, _VIEWS]], dtype=np.float32)
    frames, subject, view = np.floor(draws.block(3) * scale).astype(np.int64).T
    classes = len(options.actions)
    blocks = uniforms(bit_stream(options.seed, number, _LABELS), -(-clips // classes), classes)
    labels = np.argsort(blocks, axis=1, kind="stable").reshape(-1)[:clips]
    bodies = np.array([ACTIONS[name].bodies for name in options.actions])[labels]
    body_clip = np.repeat(np.arange(clips), bodies)
    second = np.concatenate([[False], body_clip[1:] == body_clip[:-1]])
    # Either of the two comes first, so that the order of the bodies does not show who acts.
    partner_first = (draws.uniform() < 0.5) & (bodies == 2)
    role = (second ^ partner_first[body_clip]).astype(np.int64)
    return _Chunk(number, labels, frames + low, subject, view, table[:, 4:], body_clip, role)


def _render(out: Array, chunk: _Chunk, people: People, options: _Options) -> None:
    """Fill ``out`` ``(frames of the chunk, V, 3)`` with noiseless motion, one class and role at a time."""
    lengths = chunk.body_frames
    start = np.cumsum(lengths) - lengths
    body_table = uniforms(bit_stream(options.seed, chunk.number, _BODIES), len(lengths), BODY_DRAWS)
    placing = _Placing(chunk, people, options)
    body_label = chunk.labels[chunk.body_clip]
    for label, name in enumerate(options.actions):
        for role in range(ACTIONS[name].bodies):
            bodies = np.flatnonzero((body_label == label) & (chunk.body_role == role))
            if len(bodies) == 0:
                continue
            clip = chunk.body_clip[bodies]
            person = chunk.subject[clip] + role * options.subjects
            draws = Draws(chunk.table[clip, _CLIP_DRAWS:])
            stage = Stage(
                chunk.frames[clip], options.fps, draws, placing.tempo[clip], placing.size[clip], role
            )
            ACTIONS[name].move(stage)
            habits = Draws(body_table[bodies])
            sway(stage, people.posture[:, person], habits)
            fidget(stage, habits, together=ACTIONS[name].bodies == 2)
            mirror(stage.pose, stage.spread(placing.mirrored[clip]))
            placing.place(stage, clip, role)
            points = forward_kinematics(stage.pose, people.bones[:, person[stage.clip]])
            placing.look(points, stage, clip)
            rows = start[bodies][stage.clip] + stage.frame
            out[rows] = points.transpose(2, 1, 0)


class _Placing:
    """Where the people of each clip stand and face, and where the camera is; all values ``(clips,)``."""

    def __init__(self, chunk: _Chunk, people: People, options: _Options) -> None:
        draws = Draws(chunk.table[:, :_CLIP_DRAWS])
        self.tempo = people.tempo[chunk.subject] * draws.uniform(0.8, 1.25)
        self.size = people.size[chunk.subject] * draws.uniform(0.92, 1.06)
        self.mirrored = draws.uniform() < 0.5
        reach = people.bones[[BONES.index(name) for name in ("upper_arm", "forearm", "palm")]].sum(axis=0)
        arms = reach[chunk.subject] + reach[chunk.subject + options.subjects]
        self.gap = arms * draws.uniform(0.76, 0.88)
        pair = np.bincount(chunk.body_clip, minlength=len(chunk.labels)) == 2
        aside = np.where(draws.uniform() < 0.5, np.float32(-math.pi / 2), np.float32(math.pi / 2))
        view = (chunk.view.astype(np.float32) - 1) * options.camera_angle
        self.heading = math.pi + view + draws.uniform(-0.3, 0.3) + np.where(pair, aside, np.float32(0))
        self.gap *= pair
        self.x, self.z = draws.uniform(-0.5, 0.5), draws.uniform(2.2, 3.8)
        self.height = draws.uniform(0.7, 1.6)
        self.tilt = (self.height - 0.9) / self.z + draws.uniform(-0.06, 0.06)

    def place(self, stage: Stage, clip: Index, role: int) -> None:
        """Turn path and yaw of a stage into the room, people of a pair face each other."""
        heading = self.heading[clip] + role * math.pi
        sine, cosine = sine_cosine(heading)
        back = self.gap[clip] * 0.5
        sine, cosine = stage.spread(sine), stage.spread(cosine)
        x, z = stage.pose[DOF_ROW["path_x"]], stage.pose[DOF_ROW["path_z"]] - stage.spread(back)
        stage.pose[DOF_ROW["path_x"]], stage.pose[DOF_ROW["path_z"]] = (
            cosine * x + sine * z + stage.spread(self.x[clip]),
            cosine * z - sine * x + stage.spread(self.z[clip]),
        )
        stage.pose[DOF_ROW["yaw"]] += stage.spread(heading)

    def look(self, points: Array, stage: Stage, clip: Index) -> None:
        """Turn room coordinates ``(3, V, F)`` into the camera's, in place."""
        sine, cosine = (stage.spread(value) for value in sine_cosine(self.tilt[clip]))
        points[1] -= stage.spread(self.height[clip])
        y, z = points[1].copy(), points[2]
        points[1] = y * cosine + z * sine
        points[2] = z * cosine - y * sine


def _drop(coords: Array, valid: NDArray[np.bool_], chunk: _Chunk, options: _Options) -> None:
    """Freeze each joint of each body for at most one stretch; the wanted share of the positions is lost."""
    lengths = chunk.body_frames
    table = uniforms(bit_stream(options.seed, chunk.number, _DROPS), len(lengths), 3 * NUM_JOINTS)
    happens, share, place = table.reshape(-1, 3, NUM_JOINTS).transpose(1, 0, 2)
    longest = max(0.3, 2 * options.drop_joints)
    body, joint = np.nonzero(happens < options.drop_joints / (longest / 2))
    room = lengths[body] - 1
    count = np.ceil(share[body, joint] * longest * room).astype(np.int64)
    first = 1 + np.floor(place[body, joint] * (room - count + 1)).astype(np.int64)
    first += (np.cumsum(lengths) - lengths)[body]
    event = np.repeat(np.arange(len(body)), count)
    rows = first[event] + np.arange(len(event)) - (np.cumsum(count) - count)[event]
    coords[rows, joint[event]] = coords[first[event] - 1, joint[event]]
    valid[rows, joint[event]] = False
