"""Detection: which action each frame of an untrimmed stream shows, by a linear layer on frozen features of windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...data import apply_missing
from ...distributed import World
from ...features.baselines import RAW_BODIES, input_features, random_encoder, raw_features
from ...features.extract import check_fit, extract_features
from ...features.windows import (
    BACKGROUND,
    cut_windows,
    frame_scores,
    stream_labels,
    window_label,
    window_starts,
    without_clip_steps,
)
from ...probes.linear_probe import fit_linear, standardize_features
from .detection_metrics import IGNORED, Segment, frame_map, segment_map, segments_of
from .frozen import Scores, score

if TYPE_CHECKING:
    from ...data import PackedSkeletons
    from ...models import SkeletonModel

COLUMNS = ("frame_map", "map_a", "map_v", "frame_accuracy")


@dataclass(frozen=True)
class DetectionConfig:
    """How streams are labelled. All values are choices.

    Attributes:
        window: frames of a window (2 seconds at 30 frames a second).
        stride: frames between two windows; where windows overlap a frame's scores are averaged.
        iou: overlap (intersection over union) from which a detected segment is right (PKU-MMD: 0.5).
        min_frames: shorter detected segments are dropped.
    """

    window: int = 60
    stride: int = 15
    iou: float = 0.5
    min_frames: int = 10

    def __post_init__(self) -> None:
        for name in ("window", "stride", "min_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1 frame")
        if self.stride > self.window:
            raise ValueError(
                f"stride={self.stride} must be at most window={self.window}: frames between windows would have no score"
            )
        if not 0 < self.iou <= 1:
            raise ValueError(f"iou={self.iou} must be above 0 and at most 1, for example 0.5")


WindowFeatures = tuple[list[Tensor], list[Tensor]]
"""For each stream features ``(n, D)``, and which of its windows they are of ``(n,)`` int64."""


class Stream(NamedTuple):
    """A stream cut into windows.

    Attributes:
        clip: which clip of the data.
        frames: T.
        starts: ``(W,)`` int64, the windows' first frames.
        labels: ``(T,)`` int64, -1 = background, -2 = unknown.
        window_labels: ``(W,)`` int64, likewise.
    """

    clip: int
    frames: int
    starts: Tensor
    labels: Tensor
    window_labels: Tensor


def find_streams(
    data: PackedSkeletons, split: str, config: DetectionConfig
) -> tuple[list[Stream], list[Stream]]:
    """Return the streams of the training and of the test half: clips without a label, but with labelled frames.

    Raises:
        ValueError: no frame labels, no such split, or a half without a labelled stream or action.
    """
    halves = data.split(split)
    found: list[list[Stream]] = []
    for what, mask in (("training", halves.train), ("test", halves.test)):
        streams = []
        for clip in (mask & (data.labels < 0)).nonzero()[:, 0].tolist():
            labels = stream_labels(data, clip)
            if bool((labels != IGNORED).any()):
                starts = window_starts(len(labels), config.window, config.stride)
                classes = [window_label(labels[start : start + config.window]) for start in starts.tolist()]
                streams.append(Stream(clip, len(labels), starts, labels, torch.tensor(classes)))
        if not any(bool((stream.labels >= 0).any()) for stream in streams):
            stream_labels(data, 0)  # says so where no frame at all is labelled
            raise ValueError(
                f"split {split!r} has no {what} stream with an action (of {int(mask.sum())} clips): streams have frame "
                f"labels and no label of their own; choose one of {sorted(data.splits)}"
            )
        found.append(streams)
    return found[0], found[1]


def window_features(
    data: PackedSkeletons,
    streams: Sequence[Stream],
    window: int,
    steps: Sequence[Any],
    extract: Callable[[PackedSkeletons], Tensor],
    world: World | None = None,
) -> WindowFeatures:
    """Return the features of every window, stream by stream, so that memory does not grow with their number.

    Each window is pre-processed as a clip of its own. Steps that the data has been through count as done only where
    they do not depend on the clip: a stream's centre is not that of its windows.

    Args:
        data: the streams.
        streams: which.
        window: frames of a window.
        steps: the pre-processing of the training.
        extract: from windows to features ``(n, D)``.
        world: processes that share the streams.

    Returns:
        For each stream ``(n, D)`` features, and ``(n,)`` int64 which windows they are of: those that show a body. With
        several processes the first one has them.
    """
    source, world = without_clip_steps(data), world or World()
    features, places = [], []
    for number in world.share(len(streams)):
        stream = streams[number]
        windows = cut_windows(source, stream.clip, stream.starts, window)
        if windows is None:
            raise ValueError(
                f"stream {data.names[stream.clip]!r} shows no body in any frame: remove it from the split"
            )
        ready = apply_missing(windows, steps)
        features.append(extract(ready).float().cpu())
        places.append(ready.columns["window"].cpu())
    if world.size == 1:
        return features, places
    counts = world.collect(torch.tensor([len(place) for place in places], dtype=torch.int64)).tolist()
    rows = world.collect(torch.cat(features) if features else torch.empty(0))
    numbers = world.collect(torch.cat(places) if places else torch.empty(0, dtype=torch.int64))
    return list(rows.split(counts)), list(numbers.split(counts))


def compare_detection(
    model: SkeletonModel,
    data: PackedSkeletons,
    split: str = "official",
    *,
    steps: Sequence[Any] = (),
    seeds: Sequence[int] = (0,),
    config: DetectionConfig | None = None,
    standardize: bool = False,
    min_updates: int = 0,
    progress: Callable[[str], None] | None = None,
    world: World | None = None,
    **extraction: Any,
) -> dict[str, Scores]:
    """Label untrimmed streams frame by frame with an encoder, the same one with random weights, and coordinates.

    The windows of the training streams, with the most frequent class of their frames (background included), train
    one linear layer (:func:`fastamr.probes.linear_probe`'s recipe) for each seed. A frame's scores are the mean
    class probabilities of the test windows that it lies in; runs of frames whose best class is the same action are
    the detected segments, scored by their mean.

    Args:
        model: the pre-trained encoder.
        data: packed streams with frame labels, before the pre-processing.
        split: the split's name.
        steps: the pre-processing of the training, done to every window.
        seeds: of the linear layer, and of the random encoder's weights.
        config: windows and thresholds; None takes the defaults.
        standardize: scale the encoder's features by the training windows' statistics.
        min_updates: of the linear layer of every row, see :func:`fastamr.probes.linear_probe`.
        progress: called with a line of text now and then; None = silent.
        world: processes that share the streams; the first one alone labels them, the others return nothing.
        extraction: further arguments of :func:`extract_features`; a window is used whole (crop 1).

    Returns:
        ``{"raw": ..., "input": ..., "random": ..., "encoder": ...}`` with ``frame_map``
        (:func:`fastamr.evaluation.frame_map`), ``map_a`` and ``map_v`` (:func:`fastamr.evaluation.segment_map`) and
        ``frame_accuracy`` (background included), in percent.

    Raises:
        ValueError: as :func:`find_streams` and :func:`extract_features`.
    """
    config = DetectionConfig() if config is None else config
    if not seeds:
        raise ValueError("seeds is empty, expected at least one integer")
    check_fit(model, data)
    train, test = find_streams(data, split, config)
    # Every stream's features are as long as those of the stream with the most bodies.
    most = int(torch.bincount(data.body_clip, minlength=data.num_clips).max())
    bodies = min(most, RAW_BODIES)

    def encode(encoder: SkeletonModel) -> Callable[[PackedSkeletons], Tensor]:
        return lambda windows: extract_features(encoder, windows, crop=1.0, **extraction)

    rows: dict[str, tuple[Sequence[Any], list[Callable[[PackedSkeletons], Tensor]]]] = {
        "raw": ((), [lambda windows: raw_features(windows, bodies=bodies)]),
        "input": (steps, [lambda windows: input_features(windows, bodies=bodies)]),
        "random": (steps, [encode(random_encoder(model, seed)) for seed in seeds]),
        "encoder": (steps, [encode(model)]),
    }
    results: dict[str, Scores] = {}
    for row, (wanted, extractors) in rows.items():
        scale = row == "raw" or (standardize and row != "input")
        sets: list[tuple[WindowFeatures, WindowFeatures]] = []
        for extract in extractors:
            if progress is not None:
                progress(f"{row}: features of {len(train)} training and {len(test)} test streams")
            halves = [
                window_features(data, part, config.window, wanted, extract, world) for part in (train, test)
            ]
            sets.append((halves[0], halves[1]))
        if world is not None and not world.first:
            continue
        found = [
            _detect(*sets[place % len(sets)], train, test, config, scale, min_updates, seed)
            for place, seed in enumerate(seeds)
        ]
        results[row] = {name: score([values[name] for values in found]) for name in COLUMNS}
    return results


def _detect(
    train_set: WindowFeatures,
    test_set: WindowFeatures,
    train: Sequence[Stream],
    test: Sequence[Stream],
    config: DetectionConfig,
    standardize: bool,
    min_updates: int,
    seed: int,
) -> dict[str, float]:
    """Train the layer on the training windows, label the test streams, and return the columns in percent."""
    labels = torch.cat(
        [stream.window_labels[place] for stream, place in zip(train, train_set[1], strict=True)]
    )
    train_x, test_x = torch.cat(train_set[0]), torch.cat(test_set[0])
    if standardize:
        train_x, test_x = standardize_features(train_x, test_x)
    known = labels != IGNORED
    classes = int(labels.max()) + 1
    if classes < 1:
        raise ValueError(
            f"no training window of {config.window} frames shows an action for most of its time: shorten the window"
        )
    # The background is the class behind the actions.
    targets = torch.where(labels == BACKGROUND, classes, labels)[known]
    fit = fit_linear(train_x[known], targets, min_updates=min_updates, seed=seed)
    parts = fit.scores(test_x).split([len(place) for place in test_set[1]])
    scored = [
        label_stream(probabilities, place, stream, config, classes)
        for probabilities, place, stream in zip(parts, test_set[1], test, strict=True)
    ]
    return detection_scores(scored, test, config)


def label_stream(
    probabilities: Tensor, places: Tensor, stream: Stream, config: DetectionConfig, classes: int
) -> Tensor:
    """Return the probability of each action and, last, of the background ``(T, classes + 1)`` in every frame.

    Args:
        probabilities: ``(n, classes)`` or, with the background, ``(n, classes + 1)`` of the windows that show a body.
        places: ``(n,)`` int64, which windows they are. A window without a body is background.
        stream: the stream.
        config: the windows.
        classes: number of actions.
    """
    every = probabilities.new_zeros(len(stream.starts), classes + 1)
    every[:, classes] = 1
    every[places, classes] = 0
    every[places, : probabilities.shape[1]] = probabilities
    return frame_scores(every, stream.starts, config.window, stream.frames)


def detect_segments(scores: Tensor, stream: int, config: DetectionConfig) -> list[Segment]:
    """Return the runs of frames whose best class is the same action, without those below ``config.min_frames``.

    Args:
        scores: ``(T, classes + 1)``, the background last.
        stream: number that the segments bear.
        config: ``min_frames``.
    """
    best, label = scores.max(1)
    label = torch.where(label == scores.shape[1] - 1, BACKGROUND, label)
    return [
        segment
        for segment in segments_of(label, stream, best)
        if segment.end - segment.start >= config.min_frames
    ]


def detection_scores(
    scores: Sequence[Tensor], streams: Sequence[Stream], config: DetectionConfig
) -> dict[str, float]:
    """Return frame mAP, both segment mAPs and the frame accuracy in percent.

    Args:
        scores: for each stream ``(T, classes + 1)``, the background last.
        streams: their labels.
        config: the thresholds.
    """
    every, labels = torch.cat(list(scores)), torch.cat([stream.labels for stream in streams])
    background = every.shape[1] - 1
    known = labels != IGNORED
    truth = torch.where(labels == BACKGROUND, background, labels)
    detected = [
        segment
        for place, one in enumerate(scores)
        # Nothing is detected where the label is unknown.
        for segment in detect_segments(_masked(one, streams[place].labels), place, config)
    ]
    true = [segment for place, stream in enumerate(streams) for segment in segments_of(stream.labels, place)]
    by_action, by_stream = segment_map(detected, true, config.iou)
    return {
        "frame_map": frame_map(every[:, :background], labels),
        "map_a": by_action,
        "map_v": by_stream,
        "frame_accuracy": 100.0 * float((every.argmax(1) == truth)[known].double().mean()),
    }


def _masked(scores: Tensor, labels: Tensor) -> Tensor:
    background = torch.zeros_like(scores[0])
    background[-1] = 1
    return torch.where((labels == IGNORED)[:, None], background, scores)
