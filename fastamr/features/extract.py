"""One feature vector a clip from a frozen encoder, computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.to_body import common_joints, for_layout, gains_depth, joints_left_out, joints_of_data
from ..distributed import World
from ..errors import check_name
from ..models.parts.pooling import POOLINGS, body_motion, order_bodies
from ..skeleton import is_body
from .cache import feature_key, read_features, write_features
from .sampling import CENTRAL_SHARE, sample_bodies

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel

BODIES = ("existing", "field", "ordered")
# The field's batches have this many body slots a clip, and the released code averages the empty ones too.
FIELD_SLOTS = 2


def extract_features(
    model: SkeletonModel,
    data: PackedSkeletons,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    cache: str | Path | None = None,
    bodies: str = "existing",
    pooling: str = "mean",
    crop: float = CENTRAL_SHARE,
    dtype: torch.dtype | None = None,
    world: World | None = None,
) -> Tensor:
    """Return a frozen encoder's features of each clip: its tokens pooled over each body, then over the bodies.

    Every body sequence is sampled in evaluation mode (the central 95 % of its frames, resized to the model's
    frames, not turned), encoded without masking and pooled over its tokens; then the bodies of a clip are
    averaged, or put side by side. Joints that the data marks as not seen are marked so for the model: a resized
    frame counts as seen where every frame it is made of is. The model's mode (training or evaluation) and device
    are restored.

    Args:
        model: has ``layout``, ``frames`` and ``features(clips, valid=None)``, which takes ``pooling`` where that is not
            ``"mean"``.
        data: packed data of the model's layout and channels, pre-processed; of any layout for a model of ``body``.
        batch_size: body sequences encoded at a time.
        device: where to encode; None = where the model is.
        cache: folder of a cache keyed by weights, configuration, data and settings; None = no cache. A
            damaged file in it is computed anew.
        bodies: ``"existing"`` averages the bodies that a clip has; ``"field"`` fills a clip up to two bodies
            with all-zero ones and averages those too, as the released code does; ``"ordered"`` puts the two
            that move most side by side, see :func:`fastamr.models.parts.pooling.order_bodies`.
        pooling: of the tokens of a body, see :meth:`fastamr.models.SkeletonModel.features`.
        crop: central share of the frames.
        dtype: autocast the encoder to this type, for example ``torch.bfloat16``; None = as the weights are.
        world: processes that share the work, all of which call this; each encodes some of the batches that one process
            would encode, so that the features are the same to the bit (on devices of one kind, with as many threads).

    Returns:
        ``(N, F)`` float32, on the device where it was encoded. With several processes the first one has them, which
        alone reads and writes the cache; the others get an empty tensor.

    Raises:
        ValueError: layout or channels of model and data differ, a clip without a body, an option out of
            range, or a pooling that the model's layout does not allow.
    """
    check_name("bodies", bodies, BODIES)
    check_name("pooling", pooling, POOLINGS)
    settings: dict[str, Any] = {} if pooling == "mean" else {"pooling": pooling}
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1 body sequence")
    check_fit(model, data)
    data = for_layout(data, model.layout, channels=model_channels(model))
    target = next(model.parameters()).device if device is None else torch.device(device)
    world, path, stored = world or World(), None, None
    if cache is not None and world.first:
        described = {"frames": model.frames, "crop": crop, "bodies": bodies, "dtype": str(dtype)} | settings
        path = Path(cache) / f"{feature_key(model, data, described)}.safetensors"
        stored = read_features(path, data.num_clips)
    if world.any(stored is not None):
        return torch.empty(0, device=target) if stored is None else stored.to(target)
    with _frozen(model, target), torch.autocast(target.type, dtype, enabled=dtype is not None):
        parts = _encode(model, data, batch_size, target, crop, world, settings, ordered=bodies == "ordered")
        encoded = world.collect(parts)
        if not world.first:
            return encoded
        if bodies == "ordered":
            owner = data.body_clip.to(target)
            features = order_bodies(encoded[:, :-1], owner, encoded[:, -1], data.num_clips)
        else:
            features = _average(model, data, encoded, bodies, settings)
    if path is not None:
        write_features(path, features)
    return features


def model_channels(model: SkeletonModel) -> int | None:
    """Return the channels that a model reads; None where it does not say."""
    return getattr(getattr(model, "config", None), "channels", None)


def check_fit(model: SkeletonModel, data: PackedSkeletons) -> None:
    """Raise unless a model can read a data set.

    Raises:
        ValueError: another layout or channel count (saying which), or a clip without a body.
    """
    expected = model_channels(model)
    if expected not in (None, data.coords.shape[-1]) and not gains_depth(data, model.layout, expected):
        raise ValueError(
            f"the model was built for {expected} channels, the data has {data.coords.shape[-1]}, and no step makes one "
            f"of the other: use data with the model's channels"
        )
    if is_body(model.layout):
        joints_left_out(data.layout)
    elif model.layout != data.layout:
        raise ValueError(
            f"the model was built for layout {_describe(model.layout)}, the data has {_describe(data.layout)}: map it "
            f"first, with fastamr convert IN OUT --layout {model.layout.name} (fastamr evaluate --protocol transfer "
            f"does so by itself)"
        )
    counts = torch.bincount(data.body_clip, minlength=data.num_clips)
    if bool((counts == 0).any()):
        clip = int((counts == 0).nonzero()[0])
        raise ValueError(
            f"clip {clip} ({data.names[clip]!r}) has no body: import the data again, which drops it"
        )


def given_joints(model: SkeletonModel, data: PackedSkeletons) -> dict[str, Any]:
    """Return ``{"joints": ...}`` for a model of ``body`` where all sequences have the same joints; else nothing."""
    joints = common_joints(data) if is_body(model.layout) else None
    return {} if joints is None else {"joints": joints}


def untrained_note(model: SkeletonModel, data: PackedSkeletons) -> str | None:
    """Return a line on the joints of a data set that a model of ``body`` was not trained with, or None.

    Args:
        model: the model.
        data: the data, in the model's layout.
    """
    present = model.config.present_joints if is_body(model.layout) else ()
    names = (
        [data.layout.joints[place] for place in joints_of_data(data) if place not in present]
        if present
        else []
    )
    if not names:
        return None
    return f"{len(names)} joints are left out, the model's training data had none of them: {', '.join(names)}"


def _describe(layout: object) -> str:
    return f"{layout.name!r} ({layout.num_joints} joints)"  # type: ignore[attr-defined]


@contextlib.contextmanager
def _frozen(model: SkeletonModel, device: torch.device) -> Iterator[None]:
    """Put a model into evaluation mode on a device, without autograd; then restore its mode and device."""
    training, home = model.training, next(model.parameters()).device
    moved = home != device
    try:
        # Moved outside inference mode: its parameters would else come back as inference tensors.
        if moved:
            model.to(device)
        model.eval()
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
        if moved:
            model.to(home)


def _encode(
    model: SkeletonModel,
    data: PackedSkeletons,
    batch_size: int,
    device: torch.device,
    crop: float,
    world: World,
    settings: dict[str, Any],
    *,
    ordered: bool,
) -> Tensor:
    """Encode this process's share of the batches of bodies, ``(B', F)``, or with their motion ``(B', F + 1)``."""
    parts, joints = [], given_joints(model, data)
    batches = torch.arange(data.num_bodies, device=data.device).split(batch_size)
    for place in world.share(len(batches)):
        ids = batches[place]
        clips, valid = sample_bodies(data, ids, model.frames, crop=(crop,))
        clips = clips.to(device, non_blocking=True)
        # A data set without missing joints asks nothing more of a model than features(clips).
        known: dict[str, Any] = {} if valid is None else {"valid": valid.to(device, non_blocking=True)}
        features = model.features(clips, **known, **settings, **joints).float()
        if ordered:
            features = torch.cat([features, body_motion(clips, known.get("valid"))[:, None]], dim=1)
        parts.append(features)
    return torch.cat(parts) if parts else torch.empty(0, device=device)


def _average(
    model: SkeletonModel, data: PackedSkeletons, encoded: Tensor, bodies: str, settings: dict[str, Any]
) -> Tensor:
    """Average bodies ``(B, F)`` over their clips, ``(N, F)``."""
    device = encoded.device
    owner = data.body_clip.to(device)
    total = encoded.new_zeros(data.num_clips, encoded.shape[1]).index_add_(0, owner, encoded)
    counts = torch.bincount(owner, minlength=data.num_clips)[:, None]
    if bodies == "field":
        empty = torch.zeros(1, model.frames, *data.coords.shape[1:], device=device)
        missing = (FIELD_SLOTS - counts).clamp(min=0)
        nobody = model.features(empty, **settings, **given_joints(model, data)).float()
        total, counts = total + missing * nobody, counts + missing
    return total / counts
