"""The library's own training step, as the benchmarks run it: the only file here that knows how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..data import PackedSkeletons
from ..data.synthetic.random_clips import random_clips
from ..models import SkeletonModel, build_model
from ..ops.common.backends import Problem
from ..skeleton import get_layout
from ..training.clips.batches import BatchOrder
from ..training.clips.clip_streams import ResidentClips
from ..training.clips.sampling import ClipSampler
from ..training.update.calls import basis_of, calls_of
from ..training.update.optimizer import build_optimizer
from ..training.update.precision import autocast_dtype, matmul_precision_of
from ..training.update.recording import Recorder
from ..training.update.step import PretrainStep

# What a GPU runs where nothing else is asked for.
GPU_SEQUENCES, GPU_PRECISION = 256, "bfloat16"
_SOURCES = 64


class FastStep:
    """The step that ``fastamr pretrain`` runs: sampling of clips, masking, forward, backward, AdamW.

    Args:
        model: on its device; trained in place.
        data: packed skeletons of the model's layout on the same device.
        sequences: S.
        precision: ``float32``, ``tf32``, ``float16`` or ``bfloat16``.
        recorder: what records the update; None takes CUDA graphs on a GPU.
        graph: as in :class:`~fastamr.training.update.step.PretrainStep`.

    Attributes:
        description: model, precision and S in words.
        preparation: updates after the first until the step has its final form.
    """

    def __init__(
        self,
        model: SkeletonModel,
        data: PackedSkeletons,
        *,
        sequences: int,
        precision: str = "float32",
        recorder: Recorder | None = None,
        graph: str | bool = "auto",
    ) -> None:
        device = data.coords.device
        self.model, self.preparation = model, preparation_on(device)
        self.description = f"{model.name}, {precision}, {sequences} sequences"
        self._order = BatchOrder(torch.arange(data.num_bodies), sequences, 0)
        self._sampler = ClipSampler(data, model.frames)
        self._seed = _first_seed(device)
        dtype = autocast_dtype(precision, device)
        self._step = PretrainStep(
            model,
            build_optimizer(
                model,
                lr=1e-3,
                betas=(0.9, 0.95),
                weight_decay=0.05,
                working_dtype=None if dtype == torch.float32 else dtype,
            ),
            ResidentClips(self._sampler, self._order),
            seed=self._seed,
            dtype=dtype,
            matmul_precision=matmul_precision_of(precision) or "highest",
            recorder=recorder,
            graph=graph,
        )

    @property
    def is_graph(self) -> bool:
        """Whether updates are replays of one CUDA graph."""
        return self._step.graph_reason is None

    @property
    def graph_reason(self) -> str | None:
        """Why they are not; None where they are."""
        return self._step.graph_reason

    def calls(self) -> list[tuple[str, Problem]]:
        """The calls of ops that an update makes, see :func:`fastamr.training.update.calls.calls_of`."""
        return calls_of(self._step)

    def basis(self) -> dict[str, Any]:
        """The sizes of its clips and layers, see :func:`fastamr.training.update.calls.basis_of`."""
        return basis_of(self.model, self._order.batch_size, self._step.dtype)

    def first_batch(self) -> tuple[Tensor, Tensor]:
        """Clips ``(S, T, V, C)`` and visible tokens ``(S, K)`` of the first update, at any time."""
        seed = _first_seed(self._seed.device)
        clips, _ = self._sampler(self._order.batch(0).to(seed.device), seed)
        return clips, self.model.choose_visible(clips, seed=seed)

    def __call__(self) -> Tensor:
        """Update once; return the loss before the update, a scalar on the device."""
        return self._step()


def preparation_on(device: torch.device) -> int:
    """Updates after the first until the library's step has its final form: on a GPU it is recorded as a graph."""
    # Three eager updates, the one that is recorded, and the first replay.
    return 4 if device.type == "cuda" else 0


def _first_seed(device: torch.device) -> Tensor:
    return ops.make_seed(torch.Generator().manual_seed(0), device)


def sample_batch(data: PackedSkeletons, frames: int, sequences: int) -> Tensor:
    """Draw one batch of clips ``(S, T, V, C)`` float32, as the step does.

    Args:
        data: packed skeletons, on the device where the clips are wanted.
        frames: T.
        sequences: S.
    """
    device = data.coords.device
    order = BatchOrder(torch.arange(data.num_bodies), sequences, 0)
    clips, _ = ClipSampler(data, frames)(order.batch(0).to(device), _first_seed(device))
    return clips


def build_fast_step(
    model: str,
    architecture: Mapping[str, Any],
    device: torch.device,
    *,
    sequences: int | None = None,
    precision: str | None = None,
) -> FastStep:
    """Build a model and the library's step for it on random motion of its layout.

    Args:
        model: name of the model.
        architecture: its settings; the paper's by default.
        device: where.
        sequences: S; None is 256 on a GPU, 8 on a CPU.
        precision: ``float32``, ``tf32``, ``float16`` or ``bfloat16``; None is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        ValueError: an unknown model or setting, or no sequence.
    """
    is_gpu = device.type == "cuda"
    if sequences is None:
        sequences = GPU_SEQUENCES if is_gpu else 8
    if sequences < 1:
        raise ValueError(f"sequences is {sequences}, expected at least 1")
    torch.manual_seed(0)
    built = build_model(model, dict(architecture)).to(device).train()
    config = built.config
    clips = random_clips(min(sequences, _SOURCES), config.frames, config.joints, config.channels)
    data = PackedSkeletons.from_clips(list(clips[:, :, None].numpy()), layout=get_layout(config.layout))
    precision = precision or (GPU_PRECISION if is_gpu else "float32")
    return FastStep(built, data.to(device), sequences=sequences, precision=precision)
