"""How well actions are found in untrimmed streams: by frame, and by segment as PKU-MMD defines it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...features.windows import IGNORED


class Segment(NamedTuple):
    """A stretch of a stream with one action.

    Attributes:
        stream: which stream.
        label: class index.
        start: first frame.
        end: the frame after the last one.
        score: how sure a detection is; of the truth it does not matter.
    """

    stream: int
    label: int
    start: int
    end: int
    score: float = 1.0


def frame_average_precision(scores: Tensor, positive: Tensor) -> float:
    """Return the average precision of one class over frames, from 0 to 1.

    The frames are ranked by score; at each score the precision is the share of positive frames among those that
    score at least as high, and the average precision is its mean over the positive frames. Frames of equal score are
    one step, so that their order does not matter (as scikit-learn's ``average_precision_score``).

    Args:
        scores: ``(F,)``.
        positive: ``(F,)`` bool; at least one frame is.

    Raises:
        ValueError: shapes differ, or no frame is positive.
    """
    if scores.ndim != 1 or scores.shape != positive.shape or positive.dtype != torch.bool:
        raise ValueError(
            f"scores has shape {tuple(scores.shape)} and positive {tuple(positive.shape)} of {positive.dtype}, "
            "expected one score and one bool a frame"
        )
    if not bool(positive.any()):
        raise ValueError("positive marks no frame: the average precision of such a class is not defined")
    order = scores.argsort(descending=True)
    ranked, found = scores[order], positive[order].double()
    # The last frame of each run of equal scores.
    last = torch.cat([ranked.diff() != 0, ranked.new_ones(1, dtype=torch.bool)])
    hits = found.cumsum(0)[last]
    rank = torch.arange(1, len(order) + 1, device=order.device)[last]
    gained = hits.diff(prepend=hits.new_zeros(1))
    return float((gained * hits / rank).sum() / hits[-1])


def frame_map(scores: Tensor, labels: Tensor) -> float:
    """Return the mean over classes of :func:`frame_average_precision`, in percent.

    Args:
        scores: ``(F, classes)``, of the actions alone, without a background.
        labels: ``(F,)`` class of each frame, -1 = background; frames at -2 are left out. Classes without a frame do
            not count.

    Raises:
        ValueError: no frame shows an action.
    """
    known = labels != IGNORED
    scores, labels = scores[known], labels[known]
    classes = labels[labels >= 0].unique().tolist()
    if not classes:
        raise ValueError("labels names no action in any frame, so nothing can be found")
    found = [
        # A class that no training stream shows has no score.
        frame_average_precision(_column(scores, label), labels == label)
        for label in classes
    ]
    return 100.0 * sum(found) / len(found)


def _column(scores: Tensor, label: int) -> Tensor:
    return scores[:, label] if label < scores.shape[1] else scores.new_zeros(len(scores))


def segments_of(labels: Tensor, stream: int, scores: Tensor | None = None) -> list[Segment]:
    """Return the runs of one action among the frames of a stream; those of -1 and -2 are none.

    Args:
        labels: ``(T,)`` class of each frame.
        stream: number that the segments bear.
        scores: ``(T,)``; a segment scores their mean. None = 1.
    """
    labels = labels.cpu()
    ends = [*(labels.diff() != 0).nonzero()[:, 0].add(1).tolist(), len(labels)]
    found, start = [], 0
    for end in ends:
        label = int(labels[start]) if end > start else -1
        if label >= 0:
            score = 1.0 if scores is None else float(scores[start:end].double().mean())
            found.append(Segment(stream, label, start, end, score))
        start = end
    return found


def overlap(one: Segment, other: Segment) -> float:
    """Return the intersection over the union of two segments in time, 0 for other streams or classes."""
    if (one.stream, one.label) != (other.stream, other.label):
        return 0.0
    common = min(one.end, other.end) - max(one.start, other.start)
    return max(common, 0) / (max(one.end, other.end) - min(one.start, other.start)) if common > 0 else 0.0


def segment_average_precision(
    detected: Iterable[Segment], truth: Sequence[Segment], iou: float = 0.5
) -> float:
    """Return the interpolated average precision of detected segments, from 0 to 1.

    A detection is right when it overlaps a true segment of its stream and class by at least ``iou`` (intersection
    over union); it counts for the one it overlaps most, and of several for one only the first is right, the others
    are wrong. Ranked by score, precision at a recall is the best one at this or any higher recall, and the average
    precision is its integral over recall. Source: PKU-MMD (Liu et al. 2017), interval evaluation. The script published
    with it takes the precision at other points (with the wrong detections before the next right one), so its numbers
    differ somewhat. Equal scores rank in the order given (choice).

    Args:
        detected: with their scores.
        truth: at least one.
        iou: above 0 and at most 1.

    Raises:
        ValueError: there is no true segment.
    """
    if not truth:
        raise ValueError("truth holds no segment: the average precision is not defined")
    places: dict[tuple[int, int], list[int]] = {}
    for place, segment in enumerate(truth):
        places.setdefault((segment.stream, segment.label), []).append(place)
    taken: set[int] = set()
    precisions: list[float] = []
    right: list[bool] = []
    for segment in sorted(detected, key=lambda segment: -segment.score):
        near = places.get((segment.stream, segment.label), [])
        best = max(near, key=lambda place: overlap(segment, truth[place]), default=-1)
        hit = best >= 0 and overlap(segment, truth[best]) >= iou and best not in taken
        taken |= {best} if hit else set()
        right.append(hit)
        precisions.append(len(taken) / len(right))
    total, best_later = 0.0, 0.0
    for hit, precision in zip(reversed(right), reversed(precisions), strict=True):
        best_later = max(best_later, precision)
        total += best_later if hit else 0.0
    return total / len(truth)


def segment_map(
    detected: Sequence[Segment], truth: Sequence[Segment], iou: float = 0.5
) -> tuple[float, float]:
    """Return PKU-MMD's two means of :func:`segment_average_precision`, in percent.

    Args:
        detected: of all streams.
        truth: of all streams.
        iou: see :func:`segment_average_precision`.

    Returns:
        The mean over the actions (mAP_a) and the mean over the streams, all actions of one ranked together
        (mAP_v). Actions and streams without a true segment do not count.

    Raises:
        ValueError: there is no true segment.
    """
    if not truth:
        raise ValueError("truth holds no segment: no stream of the test half shows an action")
    means = []
    for key in ("label", "stream"):
        groups: dict[int, tuple[list[Segment], list[Segment]]] = {
            getattr(segment, key): ([], []) for segment in truth
        }
        for place, segments in enumerate((detected, truth)):
            for segment in segments:
                if getattr(segment, key) in groups:
                    groups[getattr(segment, key)][place].append(segment)
        found = [segment_average_precision(*pair, iou) for pair in groups.values()]
        means.append(100.0 * sum(found) / len(found))
    return means[0], means[1]
