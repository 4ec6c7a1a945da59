"""What every masked model has: checks, masking, encoding, features, saving and loading."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .. import ops
from ..checksums import load_file, save_file
from ..errors import naming, told, unknown_name
from ..files import replaced, write_text
from ..nn import CrossAttentionStack, TransformerStack, WeightedReconstructionLoss, without_decay
from ..ops.common.checks import check_clips, check_keep, check_valid, is_readable
from ..skeleton import SkeletonLayout, get_layout
from ..weights import (
    BODY_SIZE,
    CONFIG_FILE,
    PREPROCESS,
    WEIGHTS_FILE,
    Publishable,
    find_model,
    read_description,
)
from .parts.config import ModelConfig
from .parts.encoder import SkeletonEncoder
from .parts.masking import choose_visible, motion_scores, token_validity
from .parts.pooling import check_pooling, pool_tokens, slots_of
from .parts.presence import (
    check_masking,
    joints_seen,
    known_or_there,
    over_layout,
    over_times,
    present_index,
    tokens_of,
)

# What a classifier's file says in the place of a model's name.
CLASSIFIER = "action_classifier"


class PretrainOutput(NamedTuple):
    """What a pre-training forward pass saw and made.

    Attributes:
        loss: scalar.
        prediction: ``(S, Q, P)``.
        keep: ``(S, K)`` int32, visible tokens.
        guidance: ``(S, T, V)`` weights of the loss, or None.
        terms: scalars worth logging beside the loss, by name: its parts, and of features ``std/NAME`` and
            ``rank/NAME``, which :class:`fastamr.training.metrics.collapse.CollapseGuard` watches. None where the model
            has none.
        sequences: ``(S,)`` float32 without gradient, the loss of each sequence, NaN where it has none; None unless
            :meth:`SkeletonModel.set_sequence_losses` asks for it.
    """

    loss: Tensor
    prediction: Tensor
    keep: Tensor
    guidance: Tensor | None
    terms: dict[str, Tensor] | None = None
    sequences: Tensor | None = None


class SkeletonModel(Publishable, nn.Module):
    """Base of the masked models.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of the model's ``Config``.

    Attributes:
        reports_terms: whether the details hold terms that a training run should log.
        reports_sequences: whether the details can hold the loss of each sequence; not where the loss compares sequences
            with one another.
        spreads: whether several processes can share a batch, see :mod:`fastamr.distributed`.
        pretraining_parts: children without parameters of their own, such as a teacher, that :meth:`encode` does not
            use; a classifier's file and an exported model leave their buffers out.
        body_size: the median trunk of the bodies that it was trained on, as pre-processing left them; None = unknown,
            or of no effect. It is saved with the model.
        fixed_shapes: whether :meth:`encode` masks the joints that a sequence lacks in evaluation mode too, so that
            nothing is read back from a GPU.
        slots: the region of each joint, see :func:`fastamr.models.parts.pooling.slots_of`.
        preprocess: the pre-processing steps that its training data went through; None = unknown. They are saved with
            the model, so that it is shown the same input where the run's ``config.yaml`` is not beside it.

    Raises:
        ValueError: an unknown option (with the nearest valid one) or a value out of range.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ModelConfig]] = ModelConfig
    reports_terms: ClassVar[bool] = False
    reports_sequences: ClassVar[bool] = False
    spreads: ClassVar[bool] = True
    pretraining_parts: ClassVar[tuple[str, ...]] = ()
    body_size: float | None = None
    preprocess: list[str] | None = None
    fixed_shapes: bool = False
    encoder: SkeletonEncoder
    present: Tensor | None

    def __init__(self, layout: str | SkeletonLayout = "ntu25", frames: int = 120, **options: Any) -> None:
        super().__init__()
        known = [field.name for field in dataclasses.fields(self.Config)]
        for name in options:
            if name not in known:
                raise unknown_name(f"option of {type(self).__name__}", name, known)
        self.config = self.Config(layout=layout, frames=frames, **options)
        self.layout = get_layout(self.config.layout)
        self.frames = frames
        # On the model's device, so that a training step can be recorded as a CUDA graph; not saved.
        self.register_buffer("present", present_index(self.config), persistent=False)
        self._joints: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}
        self.slots = slots_of(self.layout)

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """Build a freshly initialised model from its configuration."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})

    def forward(
        self,
        clips: Tensor,
        *,
        keep: Tensor | None = None,
        seed: Tensor | None = None,
        generator: torch.Generator | None = None,
        valid: Tensor | None = None,
        return_details: bool = False,
    ) -> Tensor | PretrainOutput:
        """Mask, encode, reconstruct and compare.

        Args:
            clips: ``(S, T, V, C)`` float32 coordinates in metres.
            keep: ``(S, K)`` visible tokens; None draws them.
            seed: ``(2,)`` int64 for the draw, or ``(3,)`` with the number of the first sequence; None draws the seed.
            generator: source of the seed.
            valid: ``(S, T, V)`` bool; missing joints are chosen last and are not targets. Of the layout ``body`` a
                joint that is seen in no frame of a sequence is no token of it.
            return_details: return a :class:`PretrainOutput` instead of the loss.

        Returns:
            Scalar loss, or the details.

        Raises:
            ValueError: clips that do not fit the model, or hold NaN or infinity (checked on the CPU; a GPU is not
                waited for).
            TypeError: a wrong dtype.
        """
        clips, valid = self.prepare(clips, valid)
        if keep is None:
            keep = self.choose_visible(clips, seed=seed, generator=generator, valid=valid)
        else:
            self._check_keep(keep, clips)
        output = self.reconstruct(clips, keep, valid)
        return self.over_layout(output) if return_details else output.loss

    def over_layout(self, output: PretrainOutput) -> PretrainOutput:
        """Return the details with zeros for the joints that are no tokens, where they tell a value of each joint."""
        return output

    def present_part(self, clips: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the joints that are tokens: ``clips (S, T, V', C)`` and ``valid (S, T, V')`` of prepared ones."""
        if self.present is None:
            return clips, valid
        return clips.index_select(2, self.present), None if valid is None else valid.index_select(
            2, self.present
        )

    def joints_of_each(self, valid: Tensor | None) -> Tensor | None:
        """Return which of the joints that are present each training sequence has.

        Args:
            valid: ``(S, T, V')`` bool of the joints that are present.

        Returns:
            ``(S, V')`` bool; None where all have all.
        """
        return None if valid is None or self.config.uniform else joints_seen(valid)

    def reconstruct(self, clips: Tensor, keep: Tensor, valid: Tensor | None) -> PretrainOutput:
        """Encode the visible tokens, predict, and compute the loss; each model's own part."""
        raise self._abstract("reconstruct")

    def choose_visible(
        self,
        clips: Tensor,
        *,
        seed: Tensor | None = None,
        generator: torch.Generator | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Draw the visible tokens ``(S, K)`` of prepared clips by the model's masking strategy."""
        config = self.config
        if seed is None:
            seed = ops.make_seed(generator, clips.device)
        clips, valid = self.present_part(clips, valid)
        scores = None
        if config.masking == "motion":
            scores = motion_scores(clips, patch_frames=config.patch_frames, tau=config.mask_tau, valid=valid)
        keep = choose_visible(
            seed,
            clips.shape[0],
            config.time_patches,
            clips.shape[2],
            config.visible,
            strategy=config.masking,
            valid=None if valid is None else self._choosable(valid),
            scores=scores,
        )
        if self.present is None:
            return keep
        return tokens_of(self.present, config.time_patches, config.joints).int()[keep.long()]

    def _choosable(self, valid: Tensor) -> Tensor:
        """Return the tokens ``(S, N')`` to choose first: valid ones; where these are too few, all that there are."""
        config = self.config
        whole, seen = token_validity(valid, config.patch_frames), self.joints_of_each(valid)
        if seen is None:
            return whole
        check_masking(config)
        enough = whole.sum(1, keepdim=True) >= config.visible
        return torch.where(enough, whole, over_times(seen, config.time_patches))

    def prepare(self, clips: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Check clips against the model; coordinates that are not valid become 0, whatever they held."""
        check_clips(clips)
        check_valid(valid, clips)
        wanted = (self.frames, self.config.joints, self.config.channels)
        if tuple(clips.shape[1:]) != wanted:
            raise ValueError(
                f"clips has shape {tuple(clips.shape)}, expected (S, T, V, C) = (S, {wanted[0]}, {wanted[1]}, "
                f"{wanted[2]}) for layout {self.layout.name!r}: resample the clips or build the model for them"
            )
        if valid is not None:
            clips = torch.where(valid[..., None], clips, 0)
        if is_readable(clips):
            check_finite(clips)
        return clips, valid

    def _check_keep(self, keep: Tensor, clips: Tensor) -> None:
        check_keep(keep, clips.shape[0])
        if not 1 <= keep.shape[1] <= self.config.tokens:
            raise ValueError(f"keep lists {keep.shape[1]} tokens, expected 1 to {self.config.tokens}")
        if is_readable(keep) and keep.numel():
            low, high = int(keep.min()), int(keep.max())
            if low < 0 or high >= self.config.tokens:
                raise ValueError(
                    f"keep holds token {low if low < 0 else high}, expected 0 to {self.config.tokens - 1}"
                )

    def encode(
        self, clips: Tensor, *, valid: Tensor | None = None, joints: Sequence[int] | None = None
    ) -> Tensor:
        """Encode all tokens without masking: ``(S, T, V, C)`` to ``(S, N, D)``.

        Joints that the training data lacks (``config.present``) are no tokens. Neither are, in the layout ``body``, the
        joints that a sequence lacks: what others of its batch have does not matter to it. Where there is no token, the
        result is 0; :meth:`known_tokens` tells.

        Args:
            clips: ``(S, T, V, C)``.
            valid: ``(S, T, V)`` bool, joints that were seen.
            joints: the joints that every sequence has, where that is known: nothing is read back from a GPU then, and
                shapes are fixed. None = those that each sequence shows in any frame: in evaluation mode sequences of
                the same joints are encoded together, in training mode and with ``fixed_shapes`` the others are masked.

        Raises:
            ValueError: as :meth:`forward`; or none of the ``joints`` is present.
        """
        clips, valid = self.prepare(clips, valid)
        if joints is None and self.present is None and not self.config.by_parts:
            return self.encoder(clips)
        seen = None if joints is not None else self._seen(valid)
        if seen is None:
            return self._encode_joints(clips, self._static(joints))
        if self.training or self.fixed_shapes or torch.compiler.is_compiling():
            return self._encode_masked(clips, seen)
        patterns, group = seen.unique(dim=0, return_inverse=True)
        parts = [(group == place).nonzero()[:, 0] for place in range(len(patterns))]
        made = [
            self._encode_joints(clips[rows], pattern.nonzero()[:, 0])
            for rows, pattern in zip(parts, patterns, strict=True)
        ]
        return torch.cat(made)[torch.cat(parts).argsort()]

    def known_tokens(
        self, sequences: int, valid: Tensor | None = None, joints: Sequence[int] | None = None
    ) -> Tensor | None:
        """Return which tokens of :meth:`encode` count in a mean.

        Args:
            sequences: S.
            valid: as there.
            joints: as there.

        Returns:
            ``(S, N)`` bool: the tokens that there are and whose joint is seen in all frames; of a sequence without such
            all that there are. None = all.
        """
        config = self.config
        whole = None if valid is None else token_validity(valid, config.patch_frames)
        if joints is None and self.present is None and not config.by_parts:
            return whole
        seen = None if joints is not None else self._seen(valid)
        if seen is None:
            static = self._static(joints)
            there = torch.zeros(1, config.joints, dtype=torch.bool, device=static.device).index_fill(
                1, static, True
            )
            seen = there.expand(sequences, -1)
        tokens = over_times(seen, config.time_patches)
        if whole is None:
            return tokens
        return known_or_there(whole, tokens)

    def _seen(self, valid: Tensor | None) -> Tensor | None:
        """Return the joints ``(S, V)`` bool that are tokens of each sequence; None where those of the model are."""
        if valid is None or not self.config.by_parts:
            return None
        if self.present is None:
            return joints_seen(valid)
        seen = joints_seen(valid.index_select(2, self.present))
        return over_layout(seen, self.present, self.config.joints, 1)

    def _static(self, joints: Sequence[int] | None) -> Tensor:
        """Return the joints ``(V',)`` int64 that every sequence has, of those that are present."""
        device = next(self.parameters()).device
        if joints is None:
            return torch.arange(self.config.joints, device=device) if self.present is None else self.present
        chosen = tuple(sorted(set(joints) & set(self.config.present_joints)))
        if not chosen:
            names = ", ".join(self.layout.joints[place] for place in sorted(set(joints)))
            raise ValueError(
                f"the data has {names or 'no joint'}, the training data of the model had none of these: train on "
                "data like this too"
            )
        index = self._joints.get((chosen, device))
        if index is None:
            index = torch.tensor(chosen, device=device)
            if type(index) is Tensor:  # kept: a recorded step copies nothing from the host
                self._joints[chosen, device] = index
        return index

    def _encode_joints(self, clips: Tensor, joints: Tensor) -> Tensor:
        """Encode the tokens of some joints ``(V',)``; the others are 0."""
        config = self.config
        keep = tokens_of(joints, config.time_patches, config.joints)
        return over_layout(self._encode_part(clips, joints), keep, config.tokens, 1)

    def _encode_masked(self, clips: Tensor, seen: Tensor) -> Tensor:
        """Encode the tokens that are present, of which no one attends to those that its sequence lacks."""
        config = self.config
        joints = self._static(None)
        keep = tokens_of(joints, config.time_patches, config.joints)
        known = over_times(seen.index_select(1, joints), config.time_patches)
        made = self._encode_part(clips, joints, known)
        return over_layout(torch.where(known[..., None], made, 0), keep, config.tokens, 1)

    def _encode_part(self, clips: Tensor, joints: Tensor, known: Tensor | None = None) -> Tensor:
        """Encode the tokens ``(S, T/l * V', D)`` of some joints ``(V',)`` of ``clips (S, T, V, C)``.

        Tokens that are not ``known`` are attended to by none; what becomes of them has no meaning.
        """
        keep = tokens_of(joints, self.config.time_patches, self.config.joints).expand(clips.shape[0], -1)
        return self.encoder(clips, keep) if known is None else self.encoder(clips, keep, known)

    def features(
        self,
        clips: Tensor,
        *,
        valid: Tensor | None = None,
        pooling: str = "mean",
        joints: Sequence[int] | None = None,
    ) -> Tensor:
        """One vector per sequence ``(S, F)``, pooled over its tokens, or over the valid ones if any is.

        Args:
            clips: ``(S, T, V, C)``.
            valid: ``(S, T, V)`` bool.
            joints: the joints that every sequence has, see :meth:`encode`.
            pooling: ``"mean"`` (F = D); ``"regions"``, the means of trunk, arms and legs and a flag each (5 * D + 5);
                ``"regions+time"``, the same for each third of the time (15 * D + 15); ``"mean+max"`` (2 * D). See
                :mod:`fastamr.models.parts.pooling`.

        Raises:
            ValueError: an unknown pooling, or one that the layout or the frames do not allow.
        """
        self.check_pooling(pooling)
        tokens = self.encode(clips, valid=valid, joints=joints)
        known = self.known_tokens(clips.shape[0], valid, joints)
        return pool_tokens(tokens, known, pooling, self.slots)

    def check_pooling(self, pooling: str) -> None:
        """Raise ``ValueError`` for a pooling that is unknown, or that the model's tokens cannot have."""
        check_pooling(pooling, self.layout.name, self.slots, self.config.frames // self.config.patch_frames)

    def set_recompute(self, recompute: bool = True) -> None:
        """Let the backward compute the blocks' hidden layers again instead of keeping them.

        Memory for speed, at the same gradients to the bit, wherever blocks run fused; see
        :class:`fastamr.nn.TransformerStack`.
        """
        for module in self.modules():
            if isinstance(module, (TransformerStack, CrossAttentionStack)):
                module.recompute = recompute

    def set_side_branch(self, side_branch: bool = True) -> None:
        """Let the backward compute the weights' gradients on a second stream of the GPU, off the critical path.

        The same gradients to the bit, wherever blocks run fused on a GPU; see :class:`fastamr.nn.TransformerStack`.
        """
        for module in self.modules():
            if isinstance(module, (TransformerStack, CrossAttentionStack)):
                module.side_branch = side_branch

    def set_sequence_losses(self, wanted: bool = True) -> None:
        """Let the details hold the loss of each sequence, where the model has it; loss and gradient stay the same."""
        for module in self.modules():
            if isinstance(module, WeightedReconstructionLoss):
                module.by_sequence = wanted

    def linear_rows(self, name: str) -> int:
        """Rows that the linear layer ``name`` processes for one sequence, for :func:`fastamr.models.count_flops`."""
        raise self._abstract("linear_rows")

    def _abstract(self, method: str) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} is abstract: implement {method}(), or use one of fastamr.models.MODELS"
        )

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters for an optimizer: with decay, and without, see :func:`fastamr.nn.without_decay`.

        Embeddings, tokens and queries have no decay (choice; the released code decays embeddings).
        """
        exempt = without_decay(self)
        decayed = [parameter for parameter in self.parameters() if parameter not in exempt]
        free = [parameter for parameter in self.parameters() if parameter in exempt]
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, each in one piece, into a folder."""
        more = {BODY_SIZE: self.body_size, PREPROCESS: self.preprocess}
        write_model(directory, self.name, self.config.to_dict(), self.state_dict(), more)

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, revision: str | None = None) -> Self:
        """Load what :meth:`save_pretrained` wrote; nothing is unpickled.

        Args:
            directory: the folder, a shipped model or a repository, see :func:`fastamr.weights.find_model`.
            revision: branch, tag or commit of a repository.

        Raises:
            FileNotFoundError: the folder holds no model.
            ValueError: the folder holds another architecture, or the files do not fit each other.
        """
        directory = find_model(directory, revision=revision)
        description = read_description(directory)
        if description["model"] != cls.name:
            raise ValueError(
                f"{directory} holds a {description['model']!r}, not a {cls.name!r}: "
                "load it with its own class or with fastamr.models.load_pretrained"
            )
        with naming(Path(directory) / CONFIG_FILE, "expected a folder written by save_pretrained"):
            config = cls.Config.from_dict(description["config"])
            check_fits_file(config, directory)
            model = cls.from_config(config)
        load_weights(model, Path(directory) / WEIGHTS_FILE)
        model.body_size, model.preprocess = description.get(BODY_SIZE), description.get(PREPROCESS)
        return model


def model_files(checkpoint: str | Path | None) -> list[Path]:
    """Return the files that a model, a run or an exported file may be read from, whether they exist or not."""
    if checkpoint is None:
        return []
    path = Path(checkpoint)
    names = (
        CONFIG_FILE,
        WEIGHTS_FILE,
        "config.yaml",
        "classifier.json",
        "state.safetensors",
        "metrics.jsonl",
    )
    return [path / name for name in names] if path.is_dir() else [path]


def write_model(
    directory: str | Path,
    name: str,
    config: dict[str, Any],
    tensors: Mapping[str, Tensor],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's folder: ``config.json`` and ``model.safetensors``, each in one piece.

    Args:
        directory: the folder; it is made.
        name: what kind of model it is.
        config: what JSON can hold.
        tensors: the weights by name, on any device.
        more: what else ``config.json`` says, as :class:`SkeletonModel`'s ``body_size``; None values are left out.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    content = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    with replaced(directory / WEIGHTS_FILE) as temporary:
        save_file(content, temporary, {"format": "pt"})
    description: dict[str, Any] = {"model": name, "config": config}
    description |= {key: value for key, value in (more or {}).items() if value is not None}
    write_text(directory / CONFIG_FILE, json.dumps(description, indent=2) + "\n")


def check_finite(clips: Tensor) -> None:
    """Raise if any coordinate is NaN or infinite, naming the clip and the frame."""
    if torch.isfinite(clips.sum()):
        return
    bad = (~torch.isfinite(clips)).nonzero()
    if len(bad):
        clip, frame, joint, _ = bad[0].tolist()
        raise ValueError(
            f"clips holds {clips[tuple(bad[0].tolist())].item()} in clip {clip}, frame {frame}, joint {joint} "
            f"({len(bad)} such values): mark missing joints in valid=(S, T, V) or repair the data"
        )


def check_fits_file(config: ModelConfig, directory: str | Path) -> None:
    """Raise ``ValueError`` before a model is built that has more weights than the file in its folder can hold."""
    path = Path(directory) / WEIGHTS_FILE
    # The smallest numbers that are saved have 2 bytes.
    if path.is_file() and 2 * config.block_weights() > path.stat().st_size:
        raise ValueError(
            f"{directory}: {CONFIG_FILE} describes {config.block_weights()} weights of blocks and more (width "
            f"{config.width}, depth {config.depth}), but {WEIGHTS_FILE} has {path.stat().st_size} bytes: it belongs "
            "to another architecture, or is truncated"
        )


def load_weights(model: nn.Module, path: Path, *, without: Collection[str] = ()) -> None:
    """Load a safetensors file into a model, naming what does not fit.

    Args:
        model: the model to fill.
        path: the file.
        without: tensors of the model that the file leaves out; they stay as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or a tensor is missing, superfluous or of another shape.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the folder holds a configuration but no weights")
    try:
        with naming(path):
            tensors, _ = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file or is truncated ({told(error)})") from error
    state = model.state_dict()
    for name, value in state.items():
        if name not in tensors and name in without:
            continue
        if name not in tensors:
            raise ValueError(f"{path} has no tensor {name!r}: it belongs to another architecture")
        if tensors[name].shape != value.shape:
            raise ValueError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, the model expects "
                f"{tuple(value.shape)}: it belongs to another architecture"
            )
    extra = sorted(tensors.keys() - state.keys())
    if extra:
        raise ValueError(
            f"{path} holds {extra[0]!r}, which the model lacks: it belongs to another architecture"
        )
    model.load_state_dict(state | tensors)
