"""Windows that slide over untrimmed streams, and from their scores back to the frames."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..data import PackedSkeletons

BACKGROUND = -1

IGNORED = -2
"""Frames of this label are not counted: what happens there is unknown."""

# Steps whose result depends on the whole clip, so that a window and its stream differ.
_OF_THE_CLIP = ("center", "align_body", "fit_box", "close_gaps", "drop_empty_frames", "drop_empty_bodies")


def stream_labels(data: PackedSkeletons, clip: int) -> Tensor:
    """Return the class of each frame of a stream ``(T,)`` int64, on the CPU; ``-2`` where no body has a row.

    Raises:
        ValueError: the data has no frame labels.
    """
    if data.frame_labels is None:
        raise ValueError(
            "the data has no frame labels: detection needs untrimmed streams, as fastamr prepare pku1 RAW OUT --keep "
            "streams writes them"
        )
    ends = data.body_start + data.offsets.diff()
    bodies = (data.body_clip == clip).nonzero()[:, 0]
    labels = torch.full((int(ends[bodies].max()),), IGNORED)
    for body in bodies.tolist():
        rows = slice(int(data.offsets[body]), int(data.offsets[body + 1]))
        labels[int(data.body_start[body]) : int(ends[body])] = data.frame_labels[rows].long().cpu()
    return labels


def window_starts(frames: int, window: int, stride: int) -> Tensor:
    """Return where windows begin ``(W,)`` int64: every ``stride`` frames, and one that ends with the stream.

    A stream that is shorter than a window has a single one, at 0.
    """
    last = max(frames - window, 0)
    starts = torch.arange(0, last + 1, stride)
    return starts if int(starts[-1]) == last else torch.cat([starts, starts.new_tensor([last])])


def window_label(labels: Tensor) -> int:
    """Return the class of a window: the most frequent one of its frames' labels, the background's -1 included.

    Of equally frequent ones the lowest action wins (choice). Frames at -2 do not count; a window of nothing else is
    -2.
    """
    known = labels[labels != IGNORED]
    if known.numel() == 0:
        return IGNORED
    values, counts = known.unique(return_counts=True)
    best = values[counts == counts.max()].tolist()
    return min(best, key=lambda label: (label < 0, label))


def without_clip_steps(data: PackedSkeletons) -> PackedSkeletons:
    """Return streams of which only the steps that do not depend on the clip count as done.

    A stream's centre is not that of its windows, which therefore go through such steps anew.
    """
    kept = tuple(step for step in data.steps if step["name"] not in _OF_THE_CLIP)
    return dataclasses.replace(data, steps=kept)


def cut_windows(data: PackedSkeletons, clip: int, starts: Tensor, window: int) -> PackedSkeletons | None:
    """Return windows of a stream as clips of their own, each with the bodies that it shows.

    Args:
        data: streams.
        clip: which one.
        starts: ``(W,)`` int64, the first frame of each window.
        window: its frames.

    Returns:
        At most W clips; the column ``window`` says which window each is. A window without any body is left out; None
        where all are. Splits and other columns are left out, labels are unknown.
    """
    bodies = (data.body_clip == clip).nonzero()[:, 0].tolist()
    rows, lengths, owners, begins, sources = [], [], [], [], []
    for place, start in enumerate(starts.tolist()):
        for body in bodies:
            offset = int(data.body_start[body])
            first = max(start - offset, 0)
            end = min(start + window - offset, int(data.offsets[body + 1] - data.offsets[body]))
            part = (
                torch.arange(first, end, device=data.device) + int(data.offsets[body])
                if end > first
                else None
            )
            if part is not None and bool((data.coords[part] != 0).any()):
                rows.append(part)
                lengths.append(end - first)
                owners.append(place)
                sources.append(body)
                begins.append(max(offset - start, 0))
    if not rows:
        return None
    chosen, device = torch.cat(rows), data.device
    shown, body_clip = torch.tensor(owners, device=device).unique(return_inverse=True)
    count = len(shown)
    return dataclasses.replace(
        data,
        coords=data.coords[chosen],
        valid=None if data.valid is None else data.valid[chosen],
        frame_labels=None,
        offsets=torch.tensor([0, *lengths], device=device).cumsum(0),
        body_clip=body_clip,
        body_start=torch.tensor(begins, device=device),
        labels=torch.full((count,), -1, device=device),
        fps=data.fps[clip].expand(count).clone(),
        names=[f"{data.names[clip]}@{int(starts[place])}" for place in shown.tolist()],
        columns={"window": shown},
        body_names=[data.body_names[body] for body in sources] if data.body_names else [],
        column_names={},
        splits={},
    )


def frame_scores(scores: Tensor, starts: Tensor, window: int, frames: int) -> Tensor:
    """Return each frame's mean of the scores of the windows that it lies in.

    Args:
        scores: ``(W, C)``.
        starts: ``(W,)`` int64, first frames of the windows.
        window: their frames.
        frames: T, frames of the stream.

    Returns:
        ``(T, C)``, in the dtype of the scores; 0 for a frame without a window.
    """
    # The running sum of what begins and ends at each frame.
    change = scores.new_zeros(frames + 1, scores.shape[1] + 1, dtype=torch.float64)
    rows = torch.cat([scores.double(), scores.new_ones(len(scores), 1, dtype=torch.float64)], dim=1)
    starts = starts.to(scores.device)
    change.index_add_(0, starts, rows)
    change.index_add_(0, (starts + window).clamp(max=frames), -rows)
    if torch.are_deterministic_algorithms_enabled():  # a GPU has no running sum of one order
        change = change.cpu()
    total = change.cumsum(0)[:frames].to(scores.device)
    counts = total[:, -1:].round()
    # Sums return to 0 only up to rounding.
    return torch.where(counts > 0, total[:, :-1] / counts.clamp(min=1), 0.0).clamp(min=0).to(scores.dtype)
