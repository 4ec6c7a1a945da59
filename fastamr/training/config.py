"""The configuration of a pre-training run: one dataclass that is also the YAML file and the command line."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..documents import load_yaml
from ..errors import check_name, shortened, unknown_name
from ..files import write_text
from ..models.parts.pooling import POOLINGS
from ..tracking import check_names
from .update.precision import PRECISIONS

TRAIN_ON = ("train", "all")
# How a configuration names the choices of PretrainStep's ``graph``.
GRAPH: dict[str, str | bool] = {"auto": "auto", "on": True, "off": False}
ON_NAN = ("stop", "skip")
# Names in files of older runs, and what they are called today.
_OLD_NAMES = {"steps": "preprocess"}
# The names of ``resume``; YAML makes bools of an unquoted yes and no.
RESUME: dict[str, Any] = {"no": False, "yes": True, "auto": "auto"}
DEFAULT_EPOCHS = 400.0
DEFAULT_WARMUP_EPOCHS = 20.0


@dataclass
class PretrainConfig:
    """Everything that a pre-training run depends on.

    The recipe is MAMP's and GFP's (AdamW, 1e-3 to 5e-4 cosine after 20 warm-up epochs, 400 epochs). What the
    papers leave open is marked "choice".

    Attributes:
        model: name of the model, a key of ``fastamr.models.MODELS``.
        architecture: settings of the model's own ``Config`` (width, depth, frames, mask_ratio, ...); what is
            left out keeps the model's default. A ``Config`` instance is accepted too. Without ``layout`` the
            data's is taken.
        data: packed files of one layout, which train together (with layout ``body`` of any), or ``synthetic``.
        mixture: temperature of the sampling from several files: the probability of a file is proportional to the
            number of its training sequences to this power. 1 is in proportion to their sizes, 0 all files equally
            often, 0.5 between the two; null shuffles all sequences together.
        held_out_data: packed files that are never trained on; the kNN probe runs on them too.
        out: folder of the run.
        preprocess: pre-processing steps, by name or with parameters (``center:frame=every``); those that a file's
            header already lists are not applied twice. Choice: centre on the root joint of the first frame.
        train_on: ``train`` (the training clips of the split) or ``all`` clips.
        split: name of the split; by default ``official``. Data with other splits only needs one named, or
            ``train_on`` ``all``; data without any is trained on whole.
        keep_empty_bodies: give every clip two body slots and train on the empty ones too, as all-zero sequences, as
            the public code does (for comparisons); otherwise the body sequences that exist are drawn.
        epochs: length of the run in passes over the body sequences (400 unless ``updates`` is given).
        updates: length of the run in updates, instead of ``epochs``.
        batch_size: body sequences in one update, of all processes of torchrun together; lr stays as it is given.
        accumulate: number of equal micro-batches an update is computed in; ``batch_size`` stays the update's
            total.
        lr: learning rate after the warm-up.
        min_lr: learning rate at the last update.
        warmup_epochs: length of the linear warm-up. Choice: 20, and a fifth of a run shorter than 100 epochs.
        betas: AdamW's two decay rates; 0 and 0 moves every weight by the sign of its gradient.
        weight_decay: AdamW's decoupled decay; biases, norms, tokens and embeddings are exempt.
        clip_grad: largest norm of the gradient, or null.
        on_nan: ``stop`` ends the run where a loss is not finite; ``skip`` leaves the update out (weights, moments and
            running statistics stay as they are to the bit), notes its clips and goes on, at the price of reading all
            gradients once more in every update.
        crop: smallest and largest share of the frames that a random crop keeps.
        min_frames: frames a crop keeps at least, where there are as many (16 suits data of short clips).
        max_angle: bound of each random Euler angle, in radians.
        mirror: probability with which a clip is mirrored: left and right joints, by the layout's pairs, change places,
            and x, the coordinate across the body (2-D: across the picture), its sign.
        scale_jitter: R; the coordinates of a clip are multiplied by a number uniform in 1 - R to 1 + R, about the
            origin.
        drop_limbs: probability with which each limb of a body (head, arms, legs) is not seen in any frame, as far as
            enough tokens remain.
        noise: standard deviation of normal noise on each coordinate in each frame, in metres (the data's unit).
        project: probability with which a clip of 3-D data is turned about y by any angle and loses its depth, which
            becomes 0.
        precision: ``auto`` is bfloat16 autocast on GPUs that have it and float32 elsewhere; or ``float32``, ``tf32``
            (float32 but for the products' factors: 11 bits on a GPU, 16 on a CPU with a matrix unit), ``bfloat16``,
            ``float16``.
        seed: fixes initial weights, order, crops, rotations and masks.
        device: ``auto`` (a GPU where there is one) or a torch device.
        graph: ``auto`` records an update as one CUDA graph on a GPU, and is eager elsewhere or where that fails;
            ``on`` stops where it fails; ``off`` is always eager.
        deterministic: take only algorithms that give the same bits in every run on this machine with as many threads;
            on a GPU slower, see docs/reliability.md. On a CPU that holds without it too.
        data_budget: GiB of the device's memory that the data may take; what needs more stays in host memory, or in its
            mapped files, and is fetched ahead of the updates. By default half of the memory that is free (on a CPU:
            of the host's), and 0 never takes any.
        recompute: compute activations anew in the backward pass instead of keeping them: less memory, more time, the
            same numbers.
        side_branch: compute the weights' gradients on a second stream of the GPU (in a recorded update a branch of the
            graph): the same numbers; nobody has measured yet whether it is faster. No effect on a CPU.
        tune: first check and time each op's back ends at this run's shapes, as ``fastamr tune`` does, and choose by
            that from then on; the run's ``config.yaml`` keeps False, so that resuming measures nothing anew.
        log_every: updates between two readings of the loss (the only regular host synchronisation).
        checkpoint_every: epochs between two checkpoints; the end of the run always writes one.
        probe_every: epochs between two kNN probes on the split, of all files together and of each by itself; 0 for
            none.
        probe_pooling: of the tokens in the features that are probed: ``mean``, ``regions``, ``regions+time`` or
            ``mean+max``.
        profile: profile this many of the first updates (kernels, gaps, a Chrome trace in the run's folder), then go on
            with the run, whose results stay the same to the bit; 0 for none.
        resume: ``yes`` continues the run that the folder holds, and is an error where it holds none; ``auto`` continues
            it or starts one; ``no``. Kept as True, False and ``auto``.
        overwrite: replace the run that the folder holds.
        tensorboard: write TensorBoard event files too.
        track: who else gets the metrics: ``tensorboard``, ``mlflow``, ``wandb``, or ``MODULE:CLASS`` of one's own, see
            docs/pretraining.md.
        progress: show the progress bar; plan and estimate are printed without it too.
    """

    model: str = "amr"
    architecture: dict[str, Any] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    mixture: float | None = None
    held_out_data: list[str] = field(default_factory=list)
    out: str = ""
    preprocess: list[str] = field(default_factory=lambda: ["center"])
    train_on: str = "train"
    split: str | None = None
    keep_empty_bodies: bool = False
    epochs: float | None = None
    updates: int | None = None
    batch_size: int = 256
    accumulate: int = 1
    lr: float = 1e-3
    min_lr: float = 5e-4
    warmup_epochs: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_grad: float | None = None
    on_nan: str = "stop"
    crop: tuple[float, float] = (0.5, 1.0)
    min_frames: int = 64
    max_angle: float = 0.3
    mirror: float = 0.0
    scale_jitter: float = 0.0
    drop_limbs: float = 0.0
    noise: float = 0.0
    project: float = 0.0
    precision: str = "auto"
    seed: int = 0
    device: str = "auto"
    graph: str = "auto"
    deterministic: bool = False
    data_budget: float | None = None
    recompute: bool = False
    side_branch: bool = False
    tune: bool = False
    log_every: int = 10
    checkpoint_every: float = 20.0
    probe_every: float = 0.0
    probe_pooling: str = "mean"
    profile: int = 0
    resume: bool | Literal["auto"] = False
    overwrite: bool = False
    tensorboard: bool = True
    track: list[str] = field(default_factory=list)
    progress: bool = True

    def __post_init__(self) -> None:
        given: dict[str, Any] = dict(self.__dict__)
        for name in ("data", "held_out_data"):
            sources = [given[name]] if isinstance(given[name], (str, Path)) else given[name]
            given[name] = [str(source) for source in sources]
        given["out"] = str(given["out"])
        if isinstance(given["graph"], bool):  # what YAML makes of an unquoted on or off
            given["graph"] = "on" if given["graph"] else "off"
        if isinstance(given["resume"], str):
            check_name("resume", given["resume"], RESUME)
            given["resume"] = RESUME[given["resume"]]
        architecture: Any = given["architecture"]
        if hasattr(architecture, "to_dict"):
            given["architecture"] = architecture.to_dict()
        for name, hint in typing.get_type_hints(type(self)).items():
            setattr(self, name, convert(name, given[name], hint))
        self._check_values()

    def _check_values(self) -> None:
        check_name("precision", self.precision, PRECISIONS)
        check_name("train_on", self.train_on, TRAIN_ON)
        check_name("graph", self.graph, GRAPH)
        check_name("on_nan", self.on_nan, ON_NAN)
        check_name("probe_pooling", self.probe_pooling, POOLINGS)
        check_names(self.track)
        if "tensorboard" in self.track and not self.tensorboard:
            raise ValueError(
                "track tensorboard and tensorboard=False exclude each other: omit one of the two"
            )
        if self.epochs is not None and self.updates is not None:
            raise ValueError(
                f"epochs {self.epochs:g} and updates {self.updates}: give one of the two, not both"
            )
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other: pass one of the two")
        for name in ("batch_size", "accumulate", "log_every", "min_frames", "lr", "checkpoint_every"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "a positive number")
        for name in ("epochs", "updates", "clip_grad"):
            value = getattr(self, name)
            _require(name, value, value is None or value > 0, "a positive number or null")
        for name in ("mirror", "drop_limbs", "project"):
            value = getattr(self, name)
            _require(name, value, 0 <= value <= 1, "a probability from 0 to 1")
        _require("scale_jitter", self.scale_jitter, 0 <= self.scale_jitter < 1, "at least 0 and below 1")
        _require("noise", self.noise, 0 <= self.noise < float("inf"), "zero or more")
        for name in ("weight_decay", "max_angle", "probe_every", "profile", "seed"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "zero or more")
        mixture = self.mixture
        _require(
            "mixture", mixture, mixture is None or 0 <= mixture <= 1, "a temperature from 0 to 1, or null"
        )
        budget = self.data_budget
        _require("data_budget", budget, budget is None or budget >= 0, "zero or more, or null")
        warmup, beta1, beta2, (low, high) = self.warmup_epochs, *self.betas, self.crop
        _require("warmup_epochs", warmup, warmup is None or warmup >= 0, "zero or more, or null")
        _require("min_lr", self.min_lr, 0 <= self.min_lr <= self.lr, f"a number from 0 to lr ({self.lr:g})")
        _require("seed", self.seed, self.seed < 2**31, "below 2**31")
        _require("betas", self.betas, 0 <= beta1 < 1 and 0 <= beta2 < 1, "two numbers in [0, 1)")
        _require("crop", self.crop, 0 < low <= high <= 1, "two shares with 0 < smallest <= largest <= 1")
        divides = self.batch_size % self.accumulate == 0
        _require("accumulate", self.accumulate, divides, f"a divisor of batch_size ({self.batch_size})")

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, as they are written to YAML."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PretrainConfig:
        """Build a configuration; a name that does not exist is an error with the nearest valid one."""
        values = current_names(values)
        known = [item.name for item in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("option", name, known)
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> PretrainConfig:
        """Read a YAML file.

        Args:
            path: the file.
            **overrides: fields that replace the file's, see :func:`merge_settings`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not YAML, an option does not exist or a value is wrong.
        """
        return cls.from_dict(merge_settings(current_names(read_yaml(path)), overrides))

    def save(self, path: str | Path) -> None:
        """Write the configuration as YAML, in one piece."""
        import yaml

        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))

    def model_config(self, **defaults: Any) -> Any:
        """Return the model's ``Config`` with ``architecture`` applied.

        Args:
            **defaults: settings that replace the model's own defaults where ``architecture`` leaves them out.

        Raises:
            ValueError: unknown model, unknown or wrong setting.
        """
        config = model_config_class(self.model)
        return config.from_dict({**config().to_dict(), **defaults, **self.architecture})


def model_config_class(model: str) -> Any:
    """Return the ``Config`` dataclass of a model by name; an unknown name is a ``ValueError``."""
    from ..models.registry import MODELS

    check_name("model", model, MODELS)
    return MODELS[model].Config


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping safely; ``1e-3`` is a number here, although YAML 1.1 takes it for a string.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or not a mapping.
    """
    try:
        values = load_yaml(path, f"config {str(path)!r}")
    except FileNotFoundError:
        raise FileNotFoundError(f"config {str(path)!r} does not exist") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"config {str(path)!r} holds {type(values).__name__}, expected a mapping of options")
    return values


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file, perhaps of an older run, under the names that they have today."""
    return {_OLD_NAMES.get(name, name): value for name, value in values.items()}


def merge_settings(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``changes`` on top.

    Mappings (the architecture) are merged name by name. As ``epochs`` and ``updates`` are two ways to say one
    thing, changing one removes the other.
    """
    merged = dict(values)
    for name, other in (("epochs", "updates"), ("updates", "epochs")):
        if changes.get(name) is not None and other not in changes:
            merged.pop(other, None)
    for name, value in changes.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge_settings(old, value)
        merged[name] = value
    return merged


def convert(name: str, value: Any, hint: Any) -> Any:
    """Check a value against a type hint; lists become tuples and integers become floats where the hint says
    so.

    Raises:
        TypeError: naming the option, its value and what is expected.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        if any(typing.get_origin(option) is Literal and value in typing.get_args(option) for option in inner):
            return value
        return convert(name, value, next(option for option in inner if option is not type(None)))
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        fixed = origin is tuple and inner[-1] is not Ellipsis
        if not fixed or len(value) == len(inner):
            kinds = inner if fixed else [inner[0]] * len(value)
            return origin(convert(name, item, kind) for item, kind in zip(value, kinds, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (isinstance(hint, type) and type(value) is hint):
        return value
    expected = hint.__name__ if origin is None else str(hint)
    raise TypeError(f"{name} must be {expected}, got {shortened(value)} ({type(value).__name__})")


def _require(name: str, value: object, condition: bool, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {shortened(value)}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
