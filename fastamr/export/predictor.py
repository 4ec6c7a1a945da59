"""Actions named in clips, by a saved classifier or an exported file, without the training code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import PackedSkeletons, parse_steps, split_bodies
from ..data.body_size import size_warning
from ..data.packed.bodies import body_labels
from ..data.packed.joint_order import in_order_of
from ..data.preprocessing.geometry import Step
from ..data.to_body import common_joints, for_layout, gains_depth, joints_left_out
from ..devices import pick_device
from ..documents import printable
from ..features.clip_batches import ClipBatch, ClipBatches
from ..features.sampling import CENTRAL_SHARE
from ..features.windows import cut_windows, window_starts, without_clip_steps
from ..models import ActionClassifier
from ..progress import say as print_line
from ..skeleton import BODY, SkeletonLayout, is_body
from .description import describe
from .onnx_file import OnnxModel
from .time_scale import TimeScale

AUTO = "auto"
CROWDS = {
    "mean": "{} several people, whose features are averaged into one answer: --per-body names what each does",
    "ordered": "{} several people, of whom the two that move most make one answer: --per-body names what each does",
}
"""What is said of clips of several people, by the classifier's ``bodies``."""
_CONVERT = "convert"


class Choice(NamedTuple):
    """A class and how probable it is.

    Attributes:
        label: its index.
        name: what it is called, or ``class 3``.
        probability: 0 to 1.
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """The most probable actions in a stretch of frames.

    Attributes:
        clip: the clip's name.
        first: its first frame, from 0.
        end: the frame after its last one.
        start_time: seconds, None = unknown.
        end_time: seconds, None = unknown.
        top: the most probable classes; empty where no body is shown.
        body: who does it, where each person is named alone; None = all people of the clip together.
    """

    clip: str
    first: int
    end: int
    start_time: float | None
    end_time: float | None
    top: tuple[Choice, ...]
    body: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what a line of JSON holds."""
        return {
            "clip": self.clip,
            **({} if self.body is None else {"body": self.body}),
            "first_frame": self.first,
            "end_frame": self.end,
            "start": self.start_time,
            "end": self.end_time,
            "top": [{"label": label, "class": name, "probability": value} for label, name, value in self.top],
        }

    def __str__(self) -> str:
        times = (
            f"frames {self.first}-{self.end - 1}"
            if self.start_time is None or self.end_time is None
            else f"{self.start_time:.2f}-{self.end_time:.2f} s"
        )
        shown = ", ".join(f"{name} {100 * value:.1f} %" for _, name, value in self.top) or "no body"
        who = "" if self.body is None else f"  body {self.body}"
        return printable(f"{self.clip}{who}  {times}  {shown}")


class Span(NamedTuple):
    """Where a window lies in its clip, and which body it is about; times in seconds or None."""

    clip: str
    first: int
    end: int
    start_time: float | None
    end_time: float | None
    body: str | None = None


class Predictor:
    """A classifier with the pre-processing that it was trained with.

    Clips are pre-processed and sampled as in the evaluation: the steps of the training data that they lack, the
    central 95 % of the frames resized to the model's frames, the bodies that a clip has averaged or put side by side,
    as the classifier was trained. With ``per_body``
    each body is pre-processed and named as a clip of its own.

    Args:
        model: a classifier, or an exported one in onnxruntime.
        batch_size: clips at a time.
        device: where a classifier runs; an exported one runs on the CPU.
        say: takes each line that a person should know of how the input was understood, once; None = standard error.
        warn: takes one line where bodies are not of the size of those that the model was trained on, once; None =
            standard error.

    Raises:
        ValueError: an encoder without classes, or pre-processing that cannot be repeated.
    """

    def __init__(
        self,
        model: ActionClassifier | OnnxModel,
        *,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
        say: Callable[[str], None] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1 clip")
        own = isinstance(model, ActionClassifier)
        self.description = (
            describe(model, (), ()) if isinstance(model, ActionClassifier) else model.description
        )
        if self.description["kind"] != "classifier":
            raise ValueError(
                "the file holds an encoder without classes: export a classifier (fastamr finetune)"
            )
        if self.description["crop"] != CENTRAL_SHARE:
            raise ValueError(
                f"the model expects the central {self.description['crop']:g} of the frames, this version takes "
                f"{CENTRAL_SHARE:g}: export it again"
            )
        self.model = model.to(device).eval() if own else model  # type: ignore[union-attr]
        self.device = torch.device(device) if own else torch.device("cpu")
        self.batch_size = batch_size
        self.layout = SkeletonLayout.from_dict(self.description["layout"])
        encoder = model.encoder.layout if isinstance(model, ActionClassifier) else self.layout
        self._parts = is_body(encoder)
        self.frames: int = self.description["frames"]
        self.channels: int = self.description["channels"]
        self.steps = parse_steps(self.description["steps"])
        self.time_scale = TimeScale.of(self.description)
        self._say, self._told = say, set[str]()
        self._warn = warn or (lambda line: print_line(f"warning: {line}"))
        self._warned = False

    def note(self, text: str) -> None:
        """Say what a person should know, unless it was said before."""
        if text not in self._told:
            self._told.add(text)
            (self._say or print_line)(printable(f"note: {text}"))

    def note_crowd(self, what: str) -> None:
        """Say, once, what becomes of several people; ``what`` shows them."""
        self.note(CROWDS[self.description.get("bodies", "mean")].format(what))

    def class_name(self, label: int) -> str:
        """Return what a class is called."""
        names = self.description["class_names"]
        return names[label] if names else f"class {label}"

    def prepare(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data with the pre-processing that it lacks; joints in another order are put in the model's.

        For a model of the layout ``body`` data of any layout become parts of a body.

        Raises:
            ValueError: another layout or number of channels than the model's, or coordinates that are not finite.
        """
        wanted = BODY if self._parts else self.layout
        if data.coords.shape[-1] != self.channels and not gains_depth(data, wanted, self.channels):
            raise ValueError(
                f"the data has {data.coords.shape[-1]} channels, the model knows {self.channels}, and no step makes "
                f"one of the other: use data of its kind, or fine-tune a classifier on data like this"
            )
        data = in_order_of(data, self.layout) or data
        converts = data.layout != self.layout
        steps = [step for step in self.steps if converts or step.name != _CONVERT]
        if self._parts:
            joints_left_out(data.layout)
        elif converts and not any(step.name == _CONVERT for step in steps):
            raise ValueError(
                f"the data has layout {data.layout.name!r} ({data.layout.num_joints} joints), the model knows "
                f"{self.layout.name!r} ({self.layout.num_joints} joints): map it first, with fastamr convert IN OUT "
                f"--layout {self.layout.name}"
            )
        data.check()
        self._check_size(data, steps)
        return for_layout(data, wanted, steps, self.channels)

    def _check_size(self, data: PackedSkeletons, steps: Sequence[Step]) -> None:
        """Warn, once, of bodies that are not of the size of the training's."""
        text = None if self._warned else size_warning(data, self.description.get("body_size"), steps=steps)
        if text is not None:
            self._warned = True
            self._warn(text)

    def probabilities(self, data: PackedSkeletons) -> Tensor:
        """Return the probability of each class for each clip ``(N, classes)`` float32, on the CPU.

        Args:
            data: clips that went through :meth:`prepare`.
        """
        data = data.to(self.device)
        batches = ClipBatches(data, self.frames)
        parts = []
        joints = common_joints(data) if self._parts else None
        for clips in torch.arange(data.num_clips, device=self.device).split(self.batch_size):
            logits = self._logits(batches.test(clips), joints or ())
            parts.append(logits.float().softmax(1).cpu())
        return torch.cat(parts)

    def predict(
        self,
        data: PackedSkeletons,
        *,
        top: int = 5,
        window: int | str | None = None,
        stride: int | None = None,
        per_body: bool = False,
    ) -> Iterator[Answer]:
        """Name the actions in clips, or in windows that slide over them.

        Args:
            data: packed data or what :func:`fastamr.data.read` returns, pre-processed or not.
            top: classes of an answer.
            window: frames of a window; ``"auto"`` = as many as span the median training clip at the data's frame rate,
                see :meth:`TimeScale.window`; None = whole clips. A shorter clip is one window. Each window is
                pre-processed as a clip of its own.
            stride: frames from one window to the next; None = half a window. The last window ends with the clip.
            per_body: name each body alone, as a clip of its own; a whole clip's answers then tell the frames of each
                body. By default the bodies of a clip make one answer.

        Yields:
            The answers, clip by clip, in the order of time, those of one time in the order of the bodies.

        Raises:
            ValueError: data that the model does not fit, or an option out of range.
        """
        check_windows(top, window, stride)
        if per_body:
            data = dataclasses.replace(data, body_names=body_labels(data))
        elif bool((crowded := torch.bincount(data.body_clip) > 1).any()):
            self.note_crowd(f"{int(crowded.sum())} of {data.num_clips} clips show")
        if window is None:
            yield from self._whole_clips(data, top, per_body)
            return
        source = without_clip_steps(data)
        for clip, count in enumerate(data.clip_frames().tolist()):
            rate = float(data.fps[clip])
            frames = window if isinstance(window, int) else self.default_window(rate)
            starts = window_starts(count, frames, stride or max(1, frames // 2))
            spans = [
                _span(data.names[clip], first, min(first + frames, count), rate) for first in starts.tolist()
            ]
            yield from self.answers(cut_windows(source, clip, starts, frames), spans, top, per_body)

    def default_window(self, rate: float | None) -> int:
        """Return the frames of a window for data of a rate (None or NaN = unknown), and say what was not known."""
        frames, text = self.time_scale.window(rate)
        if text is not None:
            self.note(text)
        return frames

    def _whole_clips(self, data: PackedSkeletons, top: int, per_body: bool) -> Iterator[Answer]:
        bodies: list[str | None] = [None] * data.num_clips
        names, starts = data.names, [0] * data.num_clips
        if per_body:
            names = [data.names[clip] for clip in data.body_clip.tolist()]
            bodies = list(data.body_names)
            data = split_bodies(data)
            starts = data.body_start.tolist()
        ends, rates = data.clip_frames().tolist(), data.fps.tolist()
        longest = max(range(len(ends)), key=lambda place: ends[place] - starts[place])
        text = self.time_scale.much_longer(ends[longest] - starts[longest], rates[longest])
        if text is not None:
            self.note(f"the longest clip lasts {text}: --window auto slides a window of that length over it")
        spans = [
            _span(*where)._replace(body=body)
            for *where, body in zip(names, starts, ends, rates, bodies, strict=True)
        ]
        numbered = {"window": torch.arange(len(spans), device=data.device)}
        marked = dataclasses.replace(data, columns=numbered, column_names={}, splits={})
        yield from self.answers(marked, spans, top)

    def answers(
        self, windows: PackedSkeletons | None, spans: Sequence[Span], top: int, per_body: bool = False
    ) -> list[Answer]:
        """Return the answer for each span, or for each body in it.

        Args:
            windows: clips whose column ``window`` says which span each is; a span without a clip shows no body.
            spans: where they lie.
            top: classes of an answer.
            per_body: an answer a body, by ``windows.body_names``; a span without a body has one answer.
        """
        if per_body and windows is not None:
            windows, spans = _by_body(windows, spans)
        found: dict[int, tuple[Choice, ...]] = {}
        if windows is not None and bool((windows.coords != 0).any()):
            ready = self.prepare(windows)
            values, labels = self.probabilities(ready).topk(min(top, self.description["classes"]), dim=1)
            for place, row, classes in zip(
                ready.columns["window"].tolist(), values.tolist(), labels.tolist(), strict=True
            ):
                found[place] = tuple(
                    Choice(label, self.class_name(label), value)
                    for value, label in zip(row, classes, strict=True)
                )
        return [
            Answer(*span[:5], top=found.get(place, ()), body=span.body) for place, span in enumerate(spans)
        ]

    def _logits(self, batch: ClipBatch, joints: tuple[int, ...]) -> Tensor:
        if isinstance(self.model, ActionClassifier):
            known = {"joints": joints} if self._parts else {}
            with torch.inference_mode():
                return self.model(batch.clips, valid=batch.valid, owner=batch.owner, **known)
        return torch.from_numpy(self.model(**in_slots(batch))["logits"])


def _by_body(windows: PackedSkeletons, spans: Sequence[Span]) -> tuple[PackedSkeletons, list[Span]]:
    """Return windows and spans of single bodies; a span that shows nobody stays."""
    shown: list[list[int]] = [[] for _ in spans]
    for body, place in enumerate(windows.columns["window"][windows.body_clip].tolist()):
        shown[place].append(body)
    numbers = torch.zeros(windows.num_bodies, dtype=torch.int64)
    found: list[Span] = []
    for span, bodies in zip(spans, shown, strict=True):
        for body in bodies:
            numbers[body] = len(found)
            found.append(span._replace(body=windows.body_names[body]))
        if not bodies:
            found.append(span)
    alone = split_bodies(windows)
    return dataclasses.replace(alone, columns={"window": numbers.to(windows.device)}, column_names={}), found


def in_slots(batch: ClipBatch) -> dict[str, np.ndarray]:
    """Return the bodies of a batch as the inputs of an exported classifier.

    Returns:
        ``clips (B, M, T, V, C)`` float32, ``present (B, M)`` and ``valid (B, M, T, V)`` bool; M is that of the fullest
        clip.
    """
    counts = torch.bincount(batch.owner)
    slot = torch.arange(len(batch.owner)) - (counts.cumsum(0) - counts)[batch.owner]
    shape = (len(counts), int(counts.max()))
    clips = batch.clips.new_zeros(*shape, *batch.clips.shape[1:])
    present = torch.zeros(shape, dtype=torch.bool)
    valid = torch.ones(clips.shape[:-1], dtype=torch.bool)
    clips[batch.owner, slot], present[batch.owner, slot] = batch.clips, True
    if batch.valid is not None:
        valid[batch.owner, slot] = batch.valid
    return {"clips": clips.numpy(), "present": present.numpy(), "valid": valid.numpy()}


def load_predictor(source: str | Path, *, batch_size: int = 64, device: str = "cpu") -> Predictor:
    """Return the predictor of a classifier, or of a file ``*.onnx``.

    Args:
        source: the file; or the classifier's folder, or what else :func:`fastamr.weights.find_model` takes.
        batch_size: clips at a time.
        device: of a classifier.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it holds no classifier, or is damaged.
        ImportError: onnxruntime is not installed.
    """
    path = Path(source)
    if path.suffix == ".onnx":
        if device not in ("auto", "cpu"):
            raise ValueError(
                f"device {device!r} does not suit {path}: ONNX files run on the CPU; omit device"
            )
        return Predictor(OnnxModel(path), batch_size=batch_size)
    if path.is_file():
        raise ValueError(f"{path} is not a model: expected the folder of a classifier, or a file *.onnx")
    classifier = ActionClassifier.from_pretrained(source)
    return Predictor(classifier, batch_size=batch_size, device=pick_device(device))


def check_windows(top: int, window: int | str | None, stride: int | None) -> None:
    """Raise ``ValueError`` for an option of :meth:`Predictor.predict` that is out of range."""
    if isinstance(window, str):
        if window != AUTO:
            raise ValueError(f"window={window!r} must be a number of frames, or {AUTO!r}")
        window = 1
    for name, value in (("top", top), ("window", window), ("stride", stride)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    if window is None and stride is not None:
        raise ValueError(f"stride={stride} was given without window: give window too, the frames of a window")


def _span(clip: str, first: int, end: int, rate: float) -> Span:
    known = rate > 0
    return Span(clip, first, end, first / rate if known else None, end / rate if known else None)
