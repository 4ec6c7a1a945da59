"""What a run starts from: data, body sequences, length and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.packed.mapped import mapped_files
from ..data.preprocessing.apply import missing_steps
from ..data.to_body import common_joints, parts_seen
from ..memory import free_memory
from ..models.parts.presence import check_masking
from ..skeleton import BODY, SkeletonLayout, get_layout, is_body
from .clips.augmentation import Augmentation
from .clips.batches import BatchOrder, Part
from .clips.clip_streams import ClipStream, PrefetchedClips, ResidentClips
from .clips.mixture import MixtureOrder, set_of
from .clips.sampling import ClipSampler
from .config import DEFAULT_EPOCHS, DEFAULT_WARMUP_EPOCHS, PretrainConfig

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel

DEFAULT_SPLIT = "official"
# The public code's batches have this many body slots a clip.
BODY_SLOTS = 2


def steps_as_text(data: PackedSkeletons, asked: Sequence[str]) -> list[str]:
    """Return all pre-processing that the data has been through, as ``config.yaml`` lists it.

    So the steps that a file brought along are known to whoever evaluates the run on another file. Where several files
    of different pre-processing train together, only the steps that were asked for are common to all.

    Args:
        data: the pre-processed data.
        asked: the steps of the configuration.
    """
    from ..data.preprocessing.apply import STEPS

    applied = [step for step in data.steps if step["name"] != "note"]
    if any(step["name"] not in STEPS for step in applied):
        return list(asked)
    texts = []
    for step in applied:
        settings = ",".join(
            f"{key}={'null' if value is None else value}" for key, value in step.items() if key != "name"
        )
        texts.append(f"{step['name']}:{settings}" if settings else step["name"])
    return texts


def pick_split(
    name: str | None, data: PackedSkeletons | Sequence[PackedSkeletons], train_on: str
) -> str | None:
    """Return the split's name: the given one, else ``official`` where the data has it, else None.

    Args:
        name: the split that was asked for, in any case, or None.
        data: the packed data, or the sets that train together, of which one has the split.
        train_on: ``train`` or ``all``, see :func:`training_sequences`.

    Raises:
        ValueError: the data has no split of the given name; or none is given although the data has some, none of them
            ``official``, so that test clips would be trained on.
    """
    from ..data.joining import choose_split

    sets = data if isinstance(data, Sequence) else [data]
    known = list(dict.fromkeys(one for each in sets for one in each.splits))
    if name is not None or DEFAULT_SPLIT in known:
        return choose_split(name or DEFAULT_SPLIT, sets)
    if known and train_on != "all":
        first = known[0]
        raise ValueError(
            f"split is missing, and the data has splits {known}, none of them {DEFAULT_SPLIT!r}: name the "
            f"one whose training clips to train on, for example --split {first}, or pass --train-on all to train on "
            "every clip"
        )
    return None


def training_sequences(
    data: PackedSkeletons,
    train_on: str,
    split: str | None,
    *,
    keep_empty_bodies: bool = False,
    clip_set: Tensor | None = None,
) -> Tensor:
    """Return the body sequences to train on, as :class:`fastamr.training.clips.batches.BatchOrder` takes them.

    Args:
        data: the packed data, on the CPU.
        train_on: ``train`` for the training clips of the split, ``all`` for every clip.
        split: the split's name; None stands for all clips.
        keep_empty_bodies: give every clip two body slots, as the public code does.
        clip_set: ``(N,)`` int64, the set of each clip; None = all are of set 0.

    Returns:
        ``(B,)`` int64, indices of body sequences; with ``keep_empty_bodies`` ``(N, 2)``, one row a clip, ``-1 - k``
        for an empty slot of a clip of set k. Bodies beyond the second have no slot there.

    Raises:
        ValueError: there is no such split, or it has no training clip.
    """
    chosen = torch.ones(data.num_clips, dtype=torch.bool)
    if train_on != "all" and split is not None:
        halves = data.split(split)
        chosen = halves.train
        if not bool(chosen.any()):
            others = [name for name in data.splits if name != split] or "none"
            raise ValueError(
                f"split {split!r} has no training clip ({int(halves.test.sum())} test clips); other splits: {others}: "
                "name one with --split, or pass --train-on all to train on every clip"
            )
    bodies = chosen[data.body_clip].nonzero().squeeze(1)
    if not keep_empty_bodies:
        return bodies
    owner = data.body_clip[bodies]
    first = torch.searchsorted(data.body_clip, owner)
    slot = bodies - first
    slots = torch.full((data.num_clips, BODY_SLOTS), -1, dtype=torch.int64)
    if clip_set is not None:
        slots -= clip_set[:, None]
    within = slot < BODY_SLOTS
    slots[owner[within], slot[within]] = bodies[within]
    return slots[chosen]


def batch_order(
    sequences: Tensor, body_set: Tensor, sets: int, config: PretrainConfig, part: Part
) -> BatchOrder:
    """Return the order of a run's batches.

    Args:
        sequences: from :func:`training_sequences`.
        body_set: ``(B,)`` int64, the set of each body sequence.
        sets: how many there are.
        config: batch size, seed and temperature.
        part: of this process.

    Raises:
        ValueError: there is nothing to train on; a temperature for a single set.
    """
    if config.mixture is None:
        return BatchOrder(sequences, config.batch_size, config.seed, part)
    if sets == 1:
        raise ValueError(
            f"mixture {config.mixture:g} is the temperature of a sampling from several data sets, and there is one: "
            "name more with --data, or pass --mixture null"
        )
    parts = [sequences[owner_of(sequences, body_set) == place] for place in range(sets)]
    return MixtureOrder(parts, config.batch_size, config.seed, config.mixture, part)


def owner_of(sequences: Tensor, body_set: Tensor) -> Tensor:
    """Return the set of each row of :func:`training_sequences`."""
    return set_of(sequences if sequences.ndim == 1 else sequences[:, 0], body_set)


def describe_sets(
    names: Sequence[str], sequences: Tensor, body_set: Tensor, order: BatchOrder, total: int
) -> list[dict[str, Any]]:
    """Return what a run draws from each set: its name, sequences, share of a batch, and passes over it in the run.

    Args:
        names: of the sets.
        sequences: from :func:`training_sequences`.
        body_set: ``(B,)`` int64, the set of each body sequence.
        order: of the batches.
        total: updates of the whole run.
    """
    width = sequences[:1].numel()
    owner = owner_of(sequences, body_set)
    sizes = (torch.bincount(owner, minlength=len(names)) * width).tolist()
    shares = order.shares if isinstance(order, MixtureOrder) else [size / order.count for size in sizes]
    drawn = total * order.batch_size
    return [
        {"name": name, "sequences": size, "share": share, "passes": drawn * share / size if size else 0.0}
        for name, size, share in zip(names, sizes, shares, strict=True)
    ]


def describe_bodies(data: PackedSkeletons, sequences: Tensor, keep_empty_bodies: bool) -> dict[str, Any]:
    """Return which body sequences a run draws, for the header of its metrics.

    Args:
        data: the packed data.
        sequences: from :func:`training_sequences`.
        keep_empty_bodies: whether every clip has two body slots.
    """
    clips = len(sequences if keep_empty_bodies else data.body_clip.cpu()[sequences].unique())
    return {
        "clips": clips,
        "all_clips": data.num_clips,
        "bodies": "two slots a clip, empty ones kept" if keep_empty_bodies else "existing",
        "sequences": sequences.numel(),
        "empty_sequences": int((sequences < 0).sum()),
    }


def is_resident(sets: Sequence[PackedSkeletons], device: torch.device, budget: float | None) -> bool:
    """Return whether the data shall lie on the device: it fits into the budget.

    Args:
        sets: the packed data, on the CPU.
        device: where the step runs.
        budget: GiB; None = half of the free memory, of the GPU or of the host; a single set that lies in the host's
            memory already may stay there.
    """
    needed = sum(
        one.coords.nbytes + (0 if one.valid is None else 2 * one.valid.numel()) for one in sets
    )  # float16
    if budget is not None:
        return needed <= budget * 2**30
    if device.type == "cuda":
        return needed <= torch.cuda.mem_get_info(device)[0] / 2
    free = free_memory(device)
    in_memory = len(sets) == 1 and not mapped_files(sets[0].coords)
    return in_memory or free is None or needed <= free / 2


def model_layout(config: PretrainConfig) -> SkeletonLayout | None:
    """Return the layout ``body`` where the architecture names it, else None: the data's own layout."""
    layout = config.architecture.get("layout")
    if isinstance(layout, Mapping):
        layout = SkeletonLayout.from_dict(layout)
    return None if layout is None or not is_body(get_layout(layout)) else BODY


def check_room(
    sets: Sequence[PackedSkeletons],
    sources: Sequence[str],
    steps: Sequence[str],
    layout: SkeletonLayout | None = None,
) -> None:
    """Raise where pre-processing would copy mapped files into memory that there is not.

    Args:
        sets: the data sets, as they were opened.
        sources: what they are called.
        steps: the pre-processing that is asked for; what a file has been through is not done again.
        layout: the layout ``body``, to which sets of other layouts are converted, or None.

    Raises:
        ValueError: the copies do not fit into the free memory.
    """
    copied: dict[str, tuple[int, str]] = {}
    for one, source in zip(sets, sources, strict=True):
        converted = layout is not None and one.layout != layout
        names = [step.name for step in missing_steps(one, steps)] + ["--layout body"] * converted
        if names and mapped_files(one.coords):
            size = one.coords.nbytes if len(names) > converted else 0
            if layout is not None and converted:  # coordinates and a mask
                size += one.num_frames * layout.num_joints * (one.coords[:1, :1].nbytes + 1)
            copied[source] = size, ", ".join(names)
    free, needed = free_memory(torch.device("cpu")), sum(size for size, _ in copied.values())
    if free is not None and needed > free:
        source, (_, steps_of_it) = next(iter(copied.items()))
        others = " and other files" if len(copied) > 1 else ""
        raise ValueError(
            f"preprocess: {steps_of_it} would copy {needed / 1e9:.1f} GB of {source}{others} into memory, of which "
            f"{free / 1e9:.1f} GB are free: do it once, file by file (fastamr convert IN OUT --preprocess ...), or "
            "take the data as it is (preprocess: [] in the file of --config)"
        )


def open_clip_stream(
    data: PackedSkeletons,
    order: BatchOrder,
    config: PretrainConfig,
    model: SkeletonModel,
    device: torch.device,
    *,
    resident: bool,
    body_set: Tensor | None = None,
) -> ClipStream:
    """Return the source of a run's clips.

    Args:
        data: the packed data, on the device if it is resident, else on the CPU.
        order: which body sequences make up each batch.
        config: the augmentation, and whether there are empty body slots.
        model: says how many frames a clip has, and what the augmentation must leave of it.
        device: where the step runs.
        resident: take the frames from the data itself; otherwise send them ahead of each update.
        body_set: ``(B,)`` int64, the set of each body sequence, where batches shall say it.

    Raises:
        ValueError: an augmentation that the layout or the channels do not allow.
    """
    augmentation = build_augmentation(config, model)
    sampler = ClipSampler(
        data,
        model.frames,
        crop=config.crop,
        min_frames=config.min_frames,
        max_angle=config.max_angle,
        empty_bodies=config.keep_empty_bodies,
        resident=resident,
        augmentation=None if augmentation is None else augmentation.to(device),
    )
    if resident:
        return ResidentClips(sampler, order, body_set)
    return PrefetchedClips(sampler, order, device, body_set)


def build_augmentation(config: PretrainConfig, model: SkeletonModel) -> Augmentation | None:
    """Return a run's augmentation beyond crop and rotation, or None.

    Raises:
        ValueError: the model's layout or channels do not allow it.
    """
    return Augmentation.of(
        model.layout,
        model.config.channels,
        mirror=config.mirror,
        scale_jitter=config.scale_jitter,
        drop_limbs=config.drop_limbs,
        noise=config.noise,
        project=config.project,
        patch_frames=getattr(model.config, "patch_frames", 1),
        visible=model.config.visible,
        keep_flat=getattr(model.config, "flat_embedding", False),
    )


def run_lengths(config: PretrainConfig, steps_per_epoch: int) -> tuple[int, int]:
    """Return the updates of the run and of its warm-up.

    Raises:
        ValueError: the warm-up is not shorter than the run.
    """
    epochs = config.epochs or DEFAULT_EPOCHS
    total = config.updates or max(1, round(epochs * steps_per_epoch))
    epochs = total / steps_per_epoch
    warmup_epochs = config.warmup_epochs
    if warmup_epochs is None:
        warmup_epochs = min(DEFAULT_WARMUP_EPOCHS, epochs / 5)
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup >= total:
        raise ValueError(
            f"warmup_epochs {warmup_epochs:g} must be shorter than the run's {epochs:g} epochs; "
            f"pass --warmup-epochs {epochs / 5:g}"
        )
    return total, warmup


def build_model(
    config: PretrainConfig, data: PackedSkeletons, sequences: Tensor | None = None
) -> SkeletonModel:
    """Build the model for the data's layout and channels, with weights that depend on the seed.

    Args:
        config: the configuration.
        data: the pre-processed data.
        sequences: of the training, see :func:`training_sequences`; they tell a model of the layout ``body`` which
            joints there are. None = all of the data.

    Raises:
        ValueError: the architecture names another layout or channel count than the data's, or as
            :func:`check_visible`.
    """
    from ..models.registry import MODELS

    channels = data.coords.shape[-1]
    sequences = torch.arange(data.num_bodies) if sequences is None else sequences
    found = body_settings(data, sequences) if is_body(data.layout) else {}
    settings = config.model_config(layout=_layout_setting(data.layout), channels=channels, **found)
    torch.manual_seed(config.seed)
    model = MODELS[config.model].from_config(settings)
    if model.layout != data.layout or settings.channels != channels:
        raise ValueError(
            f"the architecture expects layout {model.layout.name!r} with {settings.channels} channels, "
            f"the data has {data.layout.name!r} with {channels}; "
            "omit --model.layout and --model.channels"
        )
    check_visible(model, data, sequences)
    if config.recompute:
        model.set_recompute(True)
    if config.side_branch:
        model.set_side_branch(True)
    return model


def body_settings(data: PackedSkeletons, sequences: Tensor) -> dict[str, Any]:
    """Return which joints the training sequences have, as settings of a model of the layout ``body``.

    Args:
        data: the data, in that layout.
        sequences: of the training, see :func:`training_sequences`.

    Returns:
        ``present``, and where sequences differ ``typical_joints``.
    """
    common = common_joints(data)
    if common is not None:
        return {"present": tuple(data.layout.joints[place] for place in common)}
    seen = _seen_in_training(data, sequences)
    counts = seen.sum(1)
    present = tuple(data.layout.joints[place] for place in seen.any(0).nonzero()[:, 0].tolist())
    same = bool((counts == len(present)).all())
    return (
        {"present": present}
        if same
        else {"present": present, "typical_joints": round(float(counts.double().mean()))}
    )


def _seen_in_training(data: PackedSkeletons, sequences: Tensor) -> Tensor:
    numbers = sequences.flatten()
    return parts_seen(data)[numbers[numbers >= 0]]


def check_visible(model: SkeletonModel, data: PackedSkeletons, sequences: Tensor) -> None:
    """Raise where training sequences have fewer tokens than stay visible, or differ in a way that masking cannot serve.

    Args:
        model: the model.
        data: its data.
        sequences: of the training, see :func:`training_sequences`.

    Raises:
        ValueError: which sequence, and what to change.
    """
    config = model.config
    if getattr(config, "uniform", True):
        return
    check_masking(config)
    counts = _seen_in_training(data, sequences)[:, list(config.present_joints)].sum(1)
    fewest, tokens = int(counts.min()), int(counts.min()) * config.time_patches
    numbers = sequences.flatten()
    clip = data.names[int(data.body_clip[int(numbers[numbers >= 0][int(counts.argmin())])])]
    if fewest == 0:
        raise ValueError(f"clip {clip!r} shows no joint of the model in any frame: leave such clips out")
    if config.masks_tokens and tokens < config.visible:
        raise ValueError(
            f"clip {clip!r} has {fewest} joints of the model, {tokens} tokens, fewer than the K = {config.visible} "
            f"that stay visible (mask_ratio {config.mask_ratio:g} of {config.typical_tokens}): raise "
            "--model.mask-ratio, or leave such clips out"
        )


def check_spreads(model: SkeletonModel, processes: int) -> None:
    """Raise ``ValueError`` where several processes cannot share the batches of a model."""
    if processes > 1 and not getattr(model, "spreads", True):
        raise ValueError(
            f"model {model.name!r} compares the sequences of a batch with one another, so they must lie in one "
            f"process, and torchrun started {processes}: start one, or pass another --model"
        )


def _layout_setting(layout: SkeletonLayout) -> str | dict[str, Any]:
    """Return a known layout's name, so that the configuration stays readable, or the whole layout."""
    try:
        known = get_layout(layout.name) == layout
    except ValueError:
        known = False
    return layout.name if known else layout.to_dict()
