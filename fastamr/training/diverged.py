"""A run whose numbers are no longer finite: what is looked at, and the batch that is kept to see why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import replaced, write_text
from ..folders import note_written
from .config import read_yaml

if TYPE_CHECKING:
    from ..data import PackedSkeletons

# A run that began with weights of norm 100 does not end with some of 1e8 (choice).
_GROWTH = 1e6
_TENSORS = ("clips", "valid", "seed", "bodies")
_SHOWN = 5


class NotFinite(FloatingPointError):
    """A loss or a weight is not finite.

    Args:
        update: the update that gave it, counted from 1.
        text: what was found, in words.
    """

    def __init__(self, update: int, text: str) -> None:
        super().__init__(text)
        self.update = update


class Soundness:
    """Looks at weights and optimizer state before they replace a checkpoint; the device is waited for once.

    Args:
        model: the model; how large its weights are now is what later ones are compared with.
        optimizer: over its parameters.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self._first = float(torch.linalg.vector_norm(self._norms()[1]))

    def fault(self) -> str | None:
        """Return what is wrong with the values, or None: NaN, an infinite number, or weights of no use any more."""
        names, norms = self._norms()
        state = [
            (f"the optimizer's {key} of {name}", value)
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor) and value.is_floating_point()
        ]
        state += [(name, value) for name, value in self.model.named_buffers() if value.is_floating_point()]
        largest = [value.detach().abs().amax().float() for _, value in state if value.numel()]
        names += [name for name, value in state if value.numel()]
        weights = len(norms)
        values = torch.cat([norms, torch.stack(largest)] if largest else [norms]).cpu()
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            return f"{names[int(bad[0])]} holds a number that is not finite, or its square is not"
        norm = float(torch.linalg.vector_norm(values[:weights]))
        if norm > _GROWTH * max(self._first, 1.0):
            return f"the weights have a norm of {norm:.3g}, that of the first ones was {self._first:.3g}"
        return None

    def _norms(self) -> tuple[list[str], Tensor]:
        """Return the parameters' names and norms, float32, where a square that overflows is infinite."""
        named = [(name, each.detach()) for name, each in self.model.named_parameters() if each.numel()]
        return [name for name, _ in named], torch.stack(
            [torch.linalg.vector_norm(each.float()) for _, each in named]
        )


@dataclass
class Batch:
    """The clips of an update, as the model saw them.

    Attributes:
        clips: ``(S, T, V, C)`` float32.
        valid: ``(S, T, V)`` bool, or None where all joints count as seen.
        seed: ``(2,)`` int64, which masks follow from.
        bodies: ``(S,)`` int64, the body sequences of the data; negative for an empty slot.
        about: ``update``, ``loss``, ``clips`` (their names and largest coordinates), ``config``, ...
    """

    clips: Tensor
    valid: Tensor | None
    seed: Tensor
    bodies: Tensor
    about: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> Batch:
        """Read what :func:`write_batch` wrote; nothing is unpickled, and names that are not known are refused.

        Args:
            path: the ``.safetensors`` file, which has its ``.yaml`` beside it.

        Raises:
            FileNotFoundError: one of the two files is missing.
            ValueError: they are damaged, or no such files.
        """
        path = Path(path)
        about = read_yaml(path.with_suffix(".yaml"))
        try:
            with safe_open(path, "pt") as file:
                names = set(file.keys())
                if not names <= set(_TENSORS) or not names >= set(_TENSORS) - {"valid"}:
                    raise ValueError(f"{path} holds {sorted(names)}, expected {', '.join(_TENSORS)}")
                tensors = {name: file.get_tensor(name) for name in names}
        except FileNotFoundError:
            raise
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} is no batch of a run: {error}") from None
        return cls(tensors["clips"], tensors.get("valid"), tensors["seed"], tensors["bodies"], about)


def write_batch(path: Path, batch: Batch) -> None:
    """Write the batch as ``path`` (safetensors) and what is known of it as YAML beside it.

    Raises:
        OSError: they cannot be written.
    """
    import yaml

    tensors = {"clips": batch.clips, "seed": batch.seed, "bodies": batch.bodies}
    tensors |= {} if batch.valid is None else {"valid": batch.valid}
    with replaced(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary)
    write_text(path.with_suffix(".yaml"), yaml.safe_dump(batch.about, sort_keys=False, allow_unicode=True))


def clips_of(data: PackedSkeletons, bodies: Tensor, clips: Tensor) -> list[dict[str, Any]]:
    """Return the clips of a batch, those of the largest coordinates first: ``name`` and ``largest``.

    Args:
        data: the data set.
        bodies: ``(S,)`` int64, the body sequences; negative for an empty slot.
        clips: ``(S, T, V, C)``, the clips as the model saw them.
    """
    largest = clips.detach().abs().flatten(1).amax(1).float().cpu().tolist()
    found: dict[str, float] = {}
    for name, value in zip(names_of(data, bodies), largest, strict=True):
        if name is not None:
            # NaN is larger than any number here.
            found[name] = value if value != value else max(found.get(name, 0.0), value)
    ranked = sorted(found.items(), key=lambda item: (item[1] == item[1], -item[1]))
    return [{"name": name, "largest": value} for name, value in ranked]


def names_of(data: PackedSkeletons, bodies: Tensor) -> list[str | None]:
    """Return the name of each body sequence's clip; None for an empty slot.

    Args:
        data: the data set.
        bodies: ``(S,)`` int64, the body sequences; negative for an empty slot.
    """
    owner = data.body_clip.cpu()[bodies.cpu().clamp(min=0)].tolist()
    return [None if body < 0 else data.names[clip] for body, clip in zip(bodies.tolist(), owner, strict=True)]


def in_words(clips: list[dict[str, Any]]) -> str:
    """Return some of the clips of :func:`clips_of` in words."""
    shown = ", ".join(f"{clip['name']} ({clip['largest']:.3g})" for clip in clips[:_SHOWN])
    rest = len(clips) - _SHOWN
    return f"its clips, by their largest coordinate: {shown}" + (f" and {rest} more" if rest > 0 else "")


@dataclass
class Evidence:
    """Keeps the batch of an update that is not finite, and says what happened.

    Attributes:
        folder: the run's folder.
        data: the data set.
        config: the run's configuration.
        advice: what to try.
        use: how to look at the batch; None = as with :func:`fastamr.models.load_pretrained`.
    """

    folder: Path
    data: PackedSkeletons
    config: Mapping[str, Any]
    advice: str
    use: str | None = None

    def tell(
        self, error: NotFinite, rate: float, batch: Batch, back: Callable[[], str], kept: Callable[[], str]
    ) -> str:
        """Write the batch of the update, and return what to say of it.

        Args:
            error: what was found.
            rate: the learning rate of the update.
            batch: its clips.
            back: goes back to a sound checkpoint, and says so.
            kept: says which checkpoint there is.
        """
        clips = clips_of(self.data, batch.bodies, batch.clips)
        path = self.folder / f"diverged-{error.update}.safetensors"
        text = f"{error} (learning rate {rate:.3g}); "
        try:
            text += back()
            about = describe(error.update, str(error), rate, kept(), self.config)
            about |= {} if self.use is None else {"use": self.use}
            batch.about = {**about, "clips": clips}
            note_written(self.folder, path, path.with_suffix(".yaml"))
            write_batch(path, batch)
            where = f"the batch is in {path} and .yaml"
        except OSError as failure:
            where = f"the batch could not be kept ({failure})"
        return f"{text}{kept()}; {in_words(clips)}; {where}; {self.advice}"


def describe(update: int, fault: str, rate: float, kept: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the YAML beside a batch says, but for the clips."""
    return {
        "update": update,
        "fault": fault,
        "learning_rate": rate,
        "weights": f"{kept} (those of the update itself are gone)",
        "use": "batch = fastamr.training.diverged.Batch.load(FILE); model = fastamr.models.load_pretrained(RUN); "
        "model(batch.clips, seed=batch.seed, valid=batch.valid)",
        "config": dict(config),
    }
