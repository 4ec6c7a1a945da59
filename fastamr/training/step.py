"""One update: sample clips, forward, backward, clip, optimizer.

Everything in :meth:`TrainingStep.__call__` has static shapes and stays on the device: the sequences come in a
tensor, the learning rate and the random seed are device tensors, the seed's counter advances in place, and
nothing is read back by the host. So the same call can be recorded once as a CUDA graph and replayed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import ops

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel

# Interpolation between two valid frames gives 1 up to rounding; the nearest invalid frame is visible well
# below it.
_FULLY_VALID = 1.0 - 1e-6


class ClipSampler:
    """Draws augmented clips of one length from packed body sequences.

    Bodies of one clip share crop and rotation when they fall into the same batch, because their clip is their
    group.

    Args:
        data: packed skeletons, on the device where the clips are wanted.
        frames: frames of a sampled clip.
        crop: smallest and largest share of the frames that is kept.
        min_frames: frames that a crop keeps at least.
        max_angle: bound of each Euler angle, in radians.
    """

    def __init__(
        self,
        data: PackedSkeletons,
        frames: int,
        *,
        crop: tuple[float, float] = (0.5, 1.0),
        min_frames: int = 64,
        max_angle: float = 0.3,
    ) -> None:
        self.coords, self.offsets, self.body_clip = data.coords, data.offsets, data.body_clip
        self.valid = None if data.valid is None else data.valid.to(torch.float32).unsqueeze(-1)
        self.frames, self.crop, self.min_frames, self.max_angle = frames, crop, min_frames, max_angle

    def __call__(self, sequences: Tensor, seed: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return clips ``(S, T, V, C)`` float32 and their validity ``(S, T, V)`` bool, or None without a
        mask.

        A resampled joint is valid when every frame that it was interpolated from is.

        Args:
            sequences: ``(S,)`` int64, indices of body sequences.
            seed: ``(2,)`` int64, key and counter; left unchanged.
        """
        group = self.body_clip[sequences]
        clips = self._sample(self.coords, sequences, seed, group, self.max_angle)
        if self.valid is None:
            return clips, None
        return clips, self._sample(self.valid, sequences, seed, group, 0.0)[..., 0] > _FULLY_VALID

    def _sample(
        self, source: Tensor, sequences: Tensor, seed: Tensor, group: Tensor, max_angle: float
    ) -> Tensor:
        return ops.sample_clips(
            source,
            self.offsets,
            sequences,
            self.frames,
            seed,
            crop=self.crop,
            min_frames=self.min_frames,
            max_angle=max_angle,
            group=group,
        )


class TrainingStep:
    """One update of a model on the body sequences of a batch, eager.

    With ``accumulate=k`` the batch is sampled once and then passes the model in ``k`` equal micro-batches
    whose losses count ``1 / k`` each: the update of the whole batch up to rounding and to the choice of masks
    (each micro-batch advances the seed). With missing joints a micro-batch of few valid targets weighs as
    much as one of many.

    Args:
        model: the model, on its device.
        optimizer: from :func:`fastamr.training.optimizer.build_optimizer`.
        sampler: draws the clips.
        seed: ``(2,)`` int64 on the device, key and counter; the counter advances in place.
        dtype: autocast's dtype, or float32 for none.
        accumulate: number of micro-batches, a divisor of the batch size.
        clip_grad: largest norm of the gradient, or None.

    Attributes:
        terms: what the model reports beside the loss of the last update, mean over the micro-batches, scalars on the
            device by name; empty for a model that reports nothing.
    """

    def __init__(
        self,
        model: SkeletonModel,
        optimizer: torch.optim.Optimizer,
        sampler: ClipSampler,
        seed: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        accumulate: int = 1,
        clip_grad: float | None = None,
    ) -> None:
        self.model, self.optimizer, self.sampler, self.seed = model, optimizer, sampler, seed
        self.dtype, self.accumulate, self.clip_grad = dtype, accumulate, clip_grad
        self.terms: dict[str, Tensor] = {}
        self.scaler = torch.amp.GradScaler(seed.device.type, enabled=dtype == torch.float16)

    def __call__(self, sequences: Tensor) -> Tensor:
        """Update the model once.

        Args:
            sequences: ``(S,)`` int64 on the device; ``S`` is divisible by ``accumulate``.

        Returns:
            The loss before the update, a float32 scalar on the device.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.terms = {}
        clips, valid = self.sampler(sequences, self.seed)
        loss = torch.zeros((), device=clips.device)
        size = sequences.numel() // self.accumulate
        for start in range(0, sequences.numel(), size):
            part = None if valid is None else valid[start : start + size]
            loss += self._backward(clips[start : start + size], part)
        if self.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _backward(self, clips: Tensor, valid: Tensor | None) -> Tensor:
        with self._autocast():
            loss = self._forward(clips, valid) / self.accumulate
        self.scaler.scale(loss).backward()
        self.seed[1] += 1
        return loss.detach()

    def _forward(self, clips: Tensor, valid: Tensor | None) -> Tensor:
        if not getattr(self.model, "reports_terms", False):
            return self.model(clips, seed=self.seed, valid=valid)
        output = self.model(clips, seed=self.seed, valid=valid, return_details=True)
        for name, term in output.terms.items():
            share = term.detach() / self.accumulate
            self.terms[name] = self.terms[name] + share if name in self.terms else share
        return output.loss

    def _autocast(self) -> AbstractContextManager[None]:
        device = self.seed.device.type
        return torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype that autocast computes in; float32 means no autocast.

    Args:
        precision: ``auto`` (bfloat16 on GPUs that have it, float32 elsewhere), ``float32``, ``bfloat16``,
            ``float16``.
        device: where the model is.
    """
    if precision == "auto":
        supported = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if supported else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
