"""What ``fastamr evaluate`` can be asked for, and the command line that asks for it again."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...data.preprocessing.convert_layout import MISSING
from ...errors import check_name
from ...features.extract import BODIES
from ...finetuning.command import shell_command
from ...finetuning.finetune import FinetuneConfig, check_bodies
from ...models.parts.pooling import POOLINGS
from .detection import DetectionConfig
from .frozen import PROTOCOLS, SUPERVISED
from .fusion import FUSED
from .supervised import SHARES

# Of the names of many files in the name of one, which systems limit to 255 bytes.
LONGEST_DATA_NAME = 80
# Parts of the configuration that are dataclasses of their own, given by their settings.
PARTS = {"finetune": FinetuneConfig, "detection": DetectionConfig}


@dataclass
class EvaluateConfig:
    """What ``fastamr evaluate`` does.

    Attributes:
        checkpoint: folder of a run; or a shipped model or one of the Hub, with ``out``.
        data: packed files of one layout, which are evaluated together, or ``synthetic``.
        protocol: ``knn`` (cosine 1-NN and weighted 20-NN), ``linear`` (the AMR paper's linear probe, and
            logistic regression), ``all`` of these, ``retrieval`` (1-NN, 20-NN, mean average precision), ``finetune``
            (the whole encoder on all training labels), ``semi`` (on few of them), ``transfer`` (``all`` on data of
            another joint layout) or ``detection`` (untrimmed streams, frame by frame).
        split: name of the split; by default that of the run's ``config.yaml``, or ``official`` where it names none and
            for ``transfer``, which is to other data. Files without it are training clips, where another file has it.
        label_numbers: take the labels of files that do not name their classes for the numbers of those that do.
        out: the JSON file, replaced where it exists; by default ``evaluation-DATA-SPLIT-PROTOCOL.json`` in the
            checkpoint's folder (``-fused`` before the ending with ``fuse``). Where that one holds the results of other
            settings, ``-2``, ``-3``, ... is added.
        batch_size: body sequences encoded at a time.
        device: ``auto`` (a GPU where there is one) or a torch device.
        deterministic: take only algorithms that give the same bits in every run on this machine with as many threads;
            on a GPU slower, see docs/reliability.md. On a CPU that holds without it too.
        bodies: ``existing`` averages the bodies that a clip has, ``field`` the empty ones of two too, as the
            released code does; ``ordered`` puts the two bodies that move most side by side, the most active first,
            zeros and a flag for a missing one.
        pooling: of the tokens of a body in frozen features: ``mean`` (published protocols), ``regions`` (the means of
            trunk, arms and legs), ``regions+time`` (the same for each third of the time) or ``mean+max``.
        standardize: scale the features for the linear probe by the training clips' statistics. Choice: off.
        min_updates: lengthen the linear probe to at least this many updates: 15700 are those of its 100 epochs on
            NTU-60, where a thousand clips have 400. Choice: 0, the epochs decide.
        seeds: of the linear probe, of fine-tuning, of the choice of labels and of the random encoder's weights; the
            table shows mean and deviation.
        cache: keep features in the checkpoint's folder, keyed by weights, data and settings; not for shipped models and
            those of the Hub.
        shares: shares of the labels that ``semi`` trains on.
        missing: joints of the encoder's layout that the data of ``transfer`` lacks: ``interpolate`` them where there is
            a rule and mark the others as not seen, ``mask`` all of them, or ``refuse``.
        with_finetune: ``transfer`` also fine-tunes the encoder, which takes longer.
        fuse: further runs, pre-trained on other streams (bone, motion), whose class scores are added to those of
            ``checkpoint``; for the protocols ``knn``, ``linear``, ``all`` and ``finetune``.
        weights: of the scores of ``checkpoint`` and of each run of ``fuse``; by default all equal.
        finetune: settings of :class:`FinetuneConfig` that differ from its defaults.
        detection: settings of :class:`DetectionConfig` that differ from its defaults.
    """

    checkpoint: str
    data: list[str]
    protocol: Literal["all", "knn", "linear", "retrieval", "finetune", "semi", "transfer", "detection"] = (
        "all"
    )
    split: str | None = None
    label_numbers: bool = False
    out: str | None = None
    batch_size: int = 256
    device: str = "auto"
    deterministic: bool = False
    bodies: Literal["existing", "field", "ordered"] = "existing"
    pooling: Literal["mean", "regions", "regions+time", "mean+max"] = "mean"
    standardize: bool = False
    min_updates: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])
    cache: bool = True
    shares: list[float] = field(default_factory=lambda: list(SHARES))
    missing: Literal["interpolate", "mask", "refuse"] = "interpolate"
    with_finetune: bool = False
    fuse: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    finetune: dict[str, Any] = field(default_factory=dict)
    detection: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checkpoint = str(self.checkpoint)
        self.data, self.fuse = _paths(self.data), _paths(self.fuse)
        self.out = None if self.out is None else str(self.out)
        self.seeds = list(self.seeds)
        check_name("protocol", self.protocol, PROTOCOLS)
        check_name("bodies", self.bodies, BODIES)
        check_name("pooling", self.pooling, POOLINGS)
        check_name("missing", self.missing, MISSING)
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1 body sequence")
        if self.min_updates < 0:
            raise ValueError(f"min_updates={self.min_updates} must be 0 (the epochs decide) or more")
        if not self.seeds or any(seed < 0 for seed in self.seeds) or _repeats(self.seeds):
            raise ValueError(f"seeds={self.seeds} must hold at least one integer, none below 0, none twice")
        self.shares = list(self.shares)
        if not self.shares or any(not 0 < share <= 1 for share in self.shares) or _repeats(self.shares):
            raise ValueError(
                f"shares={self.shares} must hold at least one number above 0 and at most 1, none twice"
            )
        for part, settings in PARTS.items():
            known = [item.name for item in dataclasses.fields(settings)]
            for name in getattr(self, part):
                check_name(f"option of {part}", name, known)
        if self.pooling != "mean" and self.protocol in SUPERVISED:
            raise ValueError(
                f"pooling={self.pooling!r} is of frozen features, and protocol={self.protocol!r} trains the encoder: "
                "give --finetune.pooling instead"
            )
        check_bodies(self.bodies, self.recipe())
        self.windows()
        self._check_fusion()

    def _check_fusion(self) -> None:
        self.weights = [float(weight) for weight in self.weights]
        if self.fuse and self.protocol not in FUSED:
            raise ValueError(
                f"fuse is given with protocol={self.protocol!r}, but scores are fused for {', '.join(FUSED)} only: "
                "omit fuse, or choose one of these"
            )
        wanted = 1 + len(self.fuse)
        if self.weights and not self.fuse:
            raise ValueError(
                f"weights={self.weights} weigh the runs of fuse, which is empty: name those runs"
            )
        if self.weights and (
            len(self.weights) != wanted
            or not all(0 <= weight < math.inf for weight in self.weights)
            or sum(self.weights) == 0
        ):
            raise ValueError(
                f"weights={self.weights} must be {wanted} numbers, none below 0 and not all 0: one for checkpoint and "
                "one for each run of fuse"
            )

    def recipe(self) -> FinetuneConfig:
        """Return the whole recipe of fine-tuning.

        Raises:
            ValueError: a setting out of range.
        """
        return FinetuneConfig(**self.finetune)

    def windows(self) -> DetectionConfig:
        """Return all settings of detection.

        Raises:
            ValueError: a setting out of range.
        """
        return DetectionConfig(**self.detection)

    @property
    def file_name(self) -> str:
        """The default name of the JSON file."""
        data = "+".join(Path(name).stem for name in self.data)[:LONGEST_DATA_NAME]
        parts = ["evaluation", data, self.split, self.protocol, "fused" if self.fuse else ""]
        return re.sub(r"[/\\]", "_", "-".join(part for part in parts if part)) + ".json"


def command_line(config: EvaluateConfig) -> str:
    """Return the shell command that runs an evaluation again: what differs from the defaults, quoted."""
    settings = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value != (item.default_factory() if callable(item.default_factory) else item.default):
            settings[item.name] = value
    return shell_command("evaluate", settings)


def _repeats(values: list[Any]) -> bool:
    return len(set(values)) < len(values)


def _paths(given: Any) -> list[str]:
    single = isinstance(given, (str, Path))
    return [str(item) for item in ([given] if single else given)]
