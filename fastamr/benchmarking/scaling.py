"""How the time of a step grows with each size, beside the arithmetic limit of the same device."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import check_name
from ..models import build_model
from ..skeleton import SkeletonLayout
from ..training.config import model_config_class
from .cost import CONVENTION, step_flops
from .machine import environment, matmul_rate
from .step import build_fast_step
from .timing import measure, release

SIZES = ("sequences", "frames", "joints", "visible", "depth", "width")

_DEFAULTS: dict[str, dict[str, tuple[int, ...]]] = {
    "cuda": {
        "sequences": (64, 128, 256, 512, 1024, 2048, 4096),
        "frames": (120, 240, 480, 960),
        "joints": (15, 25, 50, 100, 133),
        "visible": (25, 75, 150, 300),
        "depth": (2, 4, 8, 16),
        "width": (128, 256, 512, 1024),
    },
    "cpu": {
        "sequences": (1, 2, 4, 8),
        "frames": (120, 240, 480),
        "joints": (15, 25, 50),
        "visible": (25, 75, 150),
        "depth": (2, 4, 8),
        "width": (128, 256, 384),
    },
}
_HEAD_SIZE = 32
_REASON_LENGTH = 200


@dataclass(frozen=True)
class ScalingOptions:
    """What :func:`run_scaling` runs.

    Attributes:
        model: name of the model.
        architecture: its settings; the paper's by default.
        sequences: S wherever it is not varied; by default 256 on a GPU and 2 on a CPU.
        vary: sizes to vary, with their values; an empty tuple of values is the device's default. All sizes of
            :data:`SIZES` where nothing is named.
        precision: ``float32``, ``float16`` or ``bfloat16``; by default bfloat16 on a GPU and float32 on a CPU.
        rounds: timed updates of a point; by default 20 on a GPU and 3 on a CPU.

    Raises:
        ValueError: an unknown size, or a number that is not positive.
    """

    model: str = "amr"
    architecture: Mapping[str, Any] = field(default_factory=dict)
    sequences: int | None = None
    vary: Mapping[str, Sequence[int]] = field(default_factory=dict)
    precision: str | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        for name, values in self.vary.items():
            check_name("size", name, SIZES)
            if any(value < 1 for value in values):
                raise ValueError(f"{name} is varied over {list(values)}, expected numbers of at least 1")
        for name in ("sequences", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if self.precision is not None:
            check_name("precision", self.precision, ("float32", "float16", "bfloat16"))

    def on(self, device: torch.device) -> ScalingOptions:
        """The same with the device's defaults filled in."""
        is_gpu = device.type == "cuda"
        known = _DEFAULTS[device.type]
        wanted = self.vary or dict.fromkeys(SIZES, ())
        return dataclasses.replace(
            self,
            sequences=self.sequences or (256 if is_gpu else 2),
            vary={name: tuple(values) or known[name] for name, values in wanted.items()},
            precision=self.precision or ("bfloat16" if is_gpu else "float32"),
            rounds=self.rounds or (20 if is_gpu else 3),
        )


@dataclass(frozen=True)
class Point:
    """One measured size.

    Attributes:
        value: of the size.
        ms: median milliseconds of an update, or None.
        limit_ms: its FLOPs at the measured rate of a large product.
        tflop: its FLOPs in 1e12, see :func:`~fastamr.benchmarking.cost.step_flops`.
        sizes: all sizes of the point.
        reason: why there is no time.
    """

    value: int
    ms: float | None
    limit_ms: float
    tflop: float
    sizes: dict[str, int]
    reason: str | None = None


@dataclass(frozen=True)
class Scaling:
    """All curves and what they were measured with; ``matmul_tflops`` is the rate that the limit is counted with."""

    environment: dict[str, Any]
    options: ScalingOptions
    matmul_tflops: float
    curves: dict[str, list[Point]]

    def to_json(self) -> dict[str, Any]:
        """The result in plain values."""
        return {
            "kind": "scaling",
            "environment": self.environment,
            "options": dataclasses.asdict(self.options),
            "matmul_tflops": self.matmul_tflops,
            "flops": CONVENTION,
            "curves": {
                name: [dataclasses.asdict(point) for point in points] for name, points in self.curves.items()
            },
        }


def run_scaling(
    options: ScalingOptions,
    device: torch.device,
    *,
    report: Callable[[str, Point], None] = lambda name, point: None,
) -> Scaling:
    """Measure a step of the library at each size; the sizes that are not varied keep their defaults.

    Args:
        options: what to vary.
        device: where.
        report: is called with the size's name and each point as soon as it is measured.

    Raises:
        ValueError: a size that the model does not take, such as frames that no target patch divides.
    """
    options, facts = options.on(device), environment(device)
    assert options.sequences is not None
    assert options.precision is not None
    wanted = {
        name: [_settings(options, name, value) for value in values] for name, values in options.vary.items()
    }
    for settings in wanted.values():
        for _, architecture in settings:
            _config(options.model, architecture)
    rate = matmul_rate(device, getattr(torch, options.precision))
    known: dict[str, Point] = {}
    curves: dict[str, list[Point]] = {}
    for name, values in options.vary.items():
        curves[name] = []
        for value, (sequences, architecture) in zip(values, wanted[name], strict=True):
            key = repr((sequences, sorted(architecture.items())))
            if key not in known:
                known[key] = _measure(options, device, rate, sequences, architecture)
            curves[name].append(dataclasses.replace(known[key], value=value))
            report(name, curves[name][-1])
    return Scaling(facts, options, rate / 1e12, curves)


def _config(model: str, architecture: Mapping[str, Any]) -> Any:
    return model_config_class(model).from_dict(dict(architecture))


def _settings(options: ScalingOptions, name: str, value: int) -> tuple[int, dict[str, Any]]:
    """S and the architecture with one size at a value."""
    architecture = dict(options.architecture)
    assert options.sequences is not None
    if name == "sequences":
        return value, architecture
    base = _config(options.model, architecture)
    if value == getattr(base, name):
        return options.sequences, architecture
    if name == "joints":
        architecture["layout"] = chain(value).to_dict()
    elif name == "visible":
        if value > base.tokens:
            raise ValueError(f"visible={value} exceeds the {base.tokens} tokens of a sequence")
        architecture["mask_ratio"] = 1 - value / base.tokens
    elif name == "width":
        heads = max(1, value // _HEAD_SIZE)
        architecture |= {"width": value, "heads": heads, "decoder_width": value, "decoder_heads": heads}
    else:
        architecture[name] = value
    return options.sequences, architecture


def _measure(
    options: ScalingOptions,
    device: torch.device,
    rate: float,
    sequences: int,
    architecture: Mapping[str, Any],
) -> Point:
    assert options.precision is not None
    assert options.rounds is not None
    if device.type == "cuda":
        release()
    config = _config(options.model, architecture)
    flops = step_flops(build_model(options.model, config), sequences)
    sizes = {"sequences": sequences} | {name: int(getattr(config, name)) for name in SIZES[1:]}
    point = Point(0, None, flops / rate * 1e3, flops / 1e12, sizes)
    try:
        step = build_fast_step(
            options.model, architecture, device, sequences=sequences, precision=options.precision
        )
        warmup = 1 + step.preparation + (3 if device.type == "cuda" else 0)
        times = measure(step, device, rounds=options.rounds, warmup=warmup)
        return dataclasses.replace(point, ms=statistics.median(times) * 1e3)
    except RuntimeError as error:  # most of all: out of memory
        return dataclasses.replace(point, reason=" ".join(str(error).split())[:_REASON_LENGTH])


def chain(joints: int) -> SkeletonLayout:
    """A layout of so many joints in a row: what a step costs does not depend on how joints hang together."""
    return SkeletonLayout(
        f"chain{joints}", tuple(f"joint{place}" for place in range(joints)), tuple(range(-1, joints - 1))
    )
