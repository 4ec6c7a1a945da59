"""What a masked model predicts, brought back to coordinates where that is possible, beside the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..models import AMRModel, SkeletonMAEModel, SkeletonModel
from ..nn import WeightedReconstructionLoss
from ..reference.weighted_reconstruction_loss import centre, motion_of
from .clip import Overlay, Traces
from .overlays import ModelClip

_TRACES = 3


class Prediction(NamedTuple):
    """A model's prediction for a clip.

    Attributes:
        keep: ``(M, K)`` visible tokens.
        guidance: ``(M, T, V)`` or None.
        overlay: the reconstructed bodies, and in words what they are.
        traces: the target itself and its prediction, for the joints that move most.
    """

    keep: Tensor
    guidance: Tensor | None
    overlay: Overlay
    traces: Traces


def predict(model: SkeletonModel, given: ModelClip, *, seed: int = 0, unit: str | None = None) -> Prediction:
    """Mask a clip, let a model predict the target, and bring the prediction back to coordinates.

    AMR and SkeletonMAE predict values that were standardised with the truth's own mean and deviation; these are
    borrowed from the truth. A predicted motion is added up from the true pose at the start of each target patch,
    so the distance from the truth is 0 there and grows. SkeletonMAE's visible tokens are no targets: there the
    truth is drawn.

    Args:
        model: the model; in evaluation mode for the time of the call.
        given: the clip.
        seed: of the mask.
        unit: of the coordinates, for the text; None = the clip's.

    Raises:
        ValueError: a model whose prediction has no form that can be brought back.
    """
    if not isinstance(model, AMRModel | SkeletonMAEModel):
        raise ValueError(
            f"the prediction of a {type(model).__name__} cannot be brought back to coordinates: expected a "
            f"checkpoint of {AMRModel.name!r} or {SkeletonMAEModel.name!r}; --mask shows its tokens"
        )
    training = model.training
    with torch.inference_mode():
        try:
            model.eval()
            output = model(given.clips, seed=torch.tensor([seed, 0]), valid=given.valid, return_details=True)
        finally:
            model.train(training)
    clips = given.clips if given.valid is None else torch.where(given.valid[..., None], given.clips, 0)
    criterion = model.criterion
    target = Target.of(clips, given.valid, criterion)
    predicted = from_patches(output.prediction.float(), clips.shape, criterion)
    free = torch.ones(clips.shape[:3], dtype=torch.bool)
    if isinstance(model, SkeletonMAEModel):
        free = ~_visible_frames(output.keep, model)
    rebuilt = rebuild(predicted, clips, target, criterion, free)
    nothing = rebuild(torch.zeros_like(predicted), clips, target, criterion, free)
    text = _describe(
        model, criterion, output.keep, (rebuilt, nothing, clips), given.shown.unit if unit is None else unit
    )
    overlay = Overlay("reconstruction", rebuilt.transpose(0, 1).numpy(), text)
    return Prediction(output.keep, output.guidance, overlay, _traces(predicted, target, model))


class Target(NamedTuple):
    """The target of a loss and how it was standardised: ``target = (values - mean) / deviation``.

    Attributes:
        values: ``(M, T, V, C)`` motion or coordinates.
        known: ``(M, T, V)`` bool, where it is a target.
        seen: ``(M, T, V)`` bool, where the joint itself is known.
        mean: broadcasts to ``values``.
        deviation: broadcasts to ``values``.
    """

    values: Tensor
    known: Tensor
    seen: Tensor
    mean: Tensor
    deviation: Tensor

    @property
    def standardised(self) -> Tensor:
        """``(M, T, V, C)``, what the model shall predict."""
        return (self.values - self.mean) / self.deviation

    @classmethod
    def of(cls, clips: Tensor, valid: Tensor | None, criterion: WeightedReconstructionLoss) -> Target:
        """Make the target of clips ``(M, T, V, C)`` as the loss does."""
        seen = torch.ones(clips.shape[:3], dtype=torch.bool) if valid is None else valid
        values, known = clips, seen
        if criterion.target == "motion":
            values, moving = motion_of(clips, seen, criterion.stride)
            known = seen if moving is None else moving
        if criterion.normalize == "none":
            return cls(values, known, seen, torch.zeros(()), torch.ones(()))
        if criterion.normalize == "sequence":
            _, mean, deviation = centre(values, known[..., None], (1,), criterion.eps)
            return cls(values, known, seen, mean, deviation)
        blocks = _blocks(values, criterion)
        counted = _blocks(known[..., None].expand_as(values), criterion)
        moments = centre(blocks, counted, (2, 4, 5), criterion.eps)[1:]
        mean, deviation = (moment.expand_as(blocks).reshape(values.shape) for moment in moments)
        return cls(values, known, seen, mean, deviation)


def _blocks(values: Tensor, criterion: WeightedReconstructionLoss) -> Tensor:
    """Cut ``(M, T, V, C)`` into target patches ``(M, rows, frames, groups, joints, C)``."""
    bodies, frames, joints, channels = values.shape
    rows, groups = frames // criterion.target_frames, joints // criterion.target_joints
    return values.reshape(bodies, rows, criterion.target_frames, groups, criterion.target_joints, channels)


def from_patches(prediction: Tensor, shape: torch.Size, criterion: WeightedReconstructionLoss) -> Tensor:
    """Lay predicted patches ``(M, Q, P)`` out as ``(M, T, V, C)``: patches go time-major, then by joints."""
    bodies, frames, joints, channels = shape
    rows, groups = frames // criterion.target_frames, joints // criterion.target_joints
    grid = prediction.reshape(
        bodies, rows, groups, criterion.target_frames, criterion.target_joints, channels
    )
    return grid.transpose(2, 3).reshape(shape)


def rebuild(
    predicted: Tensor,
    clips: Tensor,
    target: Target,
    criterion: WeightedReconstructionLoss,
    free: Tensor,
) -> Tensor:
    """Bring a standardised prediction back to coordinates; NaN where the truth is not known.

    Args:
        predicted: ``(M, T, V, C)``.
        clips: ``(M, T, V, C)`` the truth.
        target: the target of the truth.
        criterion: the model's loss.
        free: ``(M, T, V)`` bool, where the prediction counts; elsewhere the truth is taken.
    """
    values = predicted * target.deviation + target.mean
    if criterion.target == "joints":
        result = torch.where(free[..., None], values, clips)
        return torch.where(target.known[..., None], result, torch.nan)
    values = torch.where(free[..., None], values, target.values)
    values = torch.where(target.known[..., None], values, torch.nan)
    result = torch.where(target.seen[..., None], clips, torch.nan)
    for start in range(0, clips.shape[1], criterion.target_frames):
        # The first pose of a patch is the truth; each later one stands on predicted motion.
        for frame in range(start + criterion.stride, min(start + criterion.target_frames, clips.shape[1])):
            result[:, frame] = result[:, frame - criterion.stride] + values[:, frame - criterion.stride]
    return result


def _visible_frames(keep: Tensor, model: SkeletonModel) -> Tensor:
    """Return ``(M, T, V)``: whether a joint is part of a visible token."""
    config = model.config
    tokens = torch.zeros(len(keep), config.tokens, dtype=torch.bool).scatter(1, keep.long(), True)
    grid = tokens.unflatten(1, (config.frames // config.patch_frames, config.joints))
    return grid.repeat_interleave(config.patch_frames, dim=1)


def _describe(
    model: SkeletonModel,
    criterion: WeightedReconstructionLoss,
    keep: Tensor,
    bodies: tuple[Tensor, Tensor, Tensor],
    unit: str,
) -> str:
    rebuilt, nothing, truth = bodies
    away, still = (float((each - truth).norm(dim=-1).nanmean()) for each in (rebuilt, nothing))
    if criterion.target == "motion":
        what = (
            f"dotted: motion predicted from {keep.shape[1]} of {model.config.tokens} tokens, added up from the true "
            f"pose at the start of each target patch of {criterion.target_frames} frames"
        )
    else:
        what = f"dotted: joints predicted from {keep.shape[1]} of {model.config.tokens} tokens"
    if isinstance(model, SkeletonMAEModel):
        what += ", the truth in visible tokens"
    if criterion.normalize != "none":
        what += ", with the truth's mean and spread"
    place = f" {unit}" if unit else ""
    return f"{what}. Mean distance {away:.3f}{place} (a prediction of 0: {still:.3f}{place})"


def _traces(predicted: Tensor, target: Target, model: AMRModel | SkeletonMAEModel) -> Traces:
    """Return target and prediction of the joints of the first body that move most, each along its main axis."""
    values = torch.where(target.known[0, ..., None], target.values[0], 0)
    spread = values.var(0)
    channel = spread.argmax(1)
    joints = spread.sum(1).argsort(descending=True)[:_TRACES]
    truth = torch.where(target.known[0, ..., None], target.standardised[0], torch.nan)
    kind = "motion a frame" if model.criterion.target == "motion" else "position"
    scale = "" if model.criterion.normalize == "none" else "standardised "
    return Traces(
        [f"{model.layout.joints[int(j)]}, {'xyz'[int(channel[j])]}" for j in joints],
        np.stack([truth[:, j, channel[j]].numpy() for j in joints], axis=1),
        np.stack([predicted[0, :, j, channel[j]].numpy() for j in joints], axis=1),
        list(range(0, model.frames + 1, model.criterion.target_frames)),
        f"{scale}{kind}",
    )
