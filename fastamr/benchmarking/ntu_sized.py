"""A synthetic data set of the size and shape of NTU RGB+D 60's cross-subject training half."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import PackedSkeletons, preprocess, synthetic_actions
from ..data.packed.ragged import ranges
from ..errors import check_name
from ..skeleton import get_layout

_MOST_SOURCES, _SOURCE_FRAMES, _LONGEST = 256, 300, 300
_SHORTEST = 20
_CLASSES, _PAIR_CLASSES = 60, 11
_FPS = 30.0


@dataclass(frozen=True)
class Recipe:
    """A published pre-training recipe and the data set that it runs on.

    Attributes:
        clips: training clips.
        slots: body slots of a clip, of which the public code processes all, empty or not.
        clips_per_update: clips of an update in the public code.
        epochs: passes over the clips.
    """

    clips: int
    slots: int
    clips_per_update: int
    epochs: int

    @property
    def batch_size(self) -> int:
        """Sequences of an update: all body slots of its clips."""
        return self.slots * self.clips_per_update

    @property
    def updates(self) -> int:
        """Updates of the whole run in the public code, whose last batch of an epoch is dropped."""
        return self.epochs * (self.clips // self.clips_per_update)


PRESETS = {"ntu60-xsub": Recipe(clips=40_091, slots=2, clips_per_update=128, epochs=400)}


def preset(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        ValueError: an unknown name.
    """
    check_name("preset", name, PRESETS)
    return PRESETS[name]


def clip_lengths(clips: int, generator: torch.Generator) -> Tensor:
    """Draw the frames of each clip ``(clips,)`` int64.

    Log-normal with median 70 frames and standard deviation 0.35 of the logarithm, cut at 20 and 300 (choice: NTU
    RGB+D 60 has 56,880 clips and over 4 million frames, Shahroudy et al. 2016, hence 70 or more frames a clip, and 300
    is its longest; the mean here is 74).
    """
    drawn = torch.randn(clips, generator=generator, dtype=torch.float64) * 0.35
    return (70.0 * drawn.exp()).round().long().clamp(_SHORTEST, _LONGEST)


def two_person_clips(clips: int) -> Tensor:
    """Which clips have two bodies, ``(clips,)`` bool: 11 of the 60 actions are mutual (A50 to A60)."""
    return torch.arange(clips) % _CLASSES >= _CLASSES - _PAIR_CLASSES


def ntu_sized(clips: int, *, seed: int = 0) -> PackedSkeletons:
    """Make a data set like NTU RGB+D 60: 25 joints, 60 classes, float16, centred, ragged.

    The motion is articulated but drawn from few sources, of which each sequence is a random stretch: what a step
    costs does not depend on it. Lengths and bodies: :func:`clip_lengths`, :func:`two_person_clips`.

    Args:
        clips: how many, at least 1.
        seed: of everything.

    Raises:
        ValueError: no clip.
    """
    if clips < 1:
        raise ValueError(f"clips={clips}, expected at least 1; NTU RGB+D 60's training half has 40091")
    generator = torch.Generator().manual_seed(seed)
    lengths = clip_lengths(clips, generator)
    bodies = 1 + two_person_clips(clips).long()
    body_clip = torch.repeat_interleave(torch.arange(clips), bodies)
    body_frames = lengths[body_clip]
    source, source_count = _sources(min(clips, _MOST_SOURCES), seed)
    chosen = torch.randint(source_count, (len(body_clip),), generator=generator)
    room = _SOURCE_FRAMES - body_frames + 1
    first = (torch.rand(len(body_clip), generator=generator, dtype=torch.float64) * room).long()
    rows = ranges(chosen * _SOURCE_FRAMES + first, body_frames)
    return PackedSkeletons(
        coords=source[rows],
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), body_frames.cumsum(0)]),
        body_clip=body_clip,
        body_start=torch.zeros(len(body_clip), dtype=torch.int64),
        labels=torch.arange(clips) % _CLASSES,
        fps=torch.full((clips,), _FPS),
        layout=get_layout("ntu25"),
        names=[f"synthetic_{number:05d}" for number in range(clips)],
        steps=({"name": "center", "joint": "root", "frame": "every", "per": "body"},),
    )


def _sources(count: int, seed: int) -> tuple[Tensor, int]:
    """Float16 frames of equally long sequences, the root in the origin, and the number of sequences.

    ``count`` is the number of clips, some of which have two.
    """
    motion = synthetic_actions(count, seed=seed, frames=(_SOURCE_FRAMES, _SOURCE_FRAMES), drop_joints=0.0)
    motion = preprocess(motion, ["center:frame=every"]).half()
    return motion.coords, motion.num_bodies
