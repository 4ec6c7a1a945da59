"""An encoder with a classification head: fine-tuned, or trained from scratch as the supervised baseline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import ops
from ..distributed import draw_rows, processes
from ..errors import check_name, naming
from ..layouts.body import parts_of
from ..nn import DropPath, drop_path_seed, initialize
from ..skeleton import BODY, SkeletonLayout, is_body
from ..weights import BODY_SIZE, CONFIG_FILE, WEIGHTS_FILE, Publishable, find_model, read_description
from .base import CLASSIFIER, SkeletonModel, check_fits_file, load_weights, write_model
from .parts.config import LARGEST
from .parts.pooling import (
    POOLINGS,
    average_bodies,
    body_motion,
    mean_tokens,
    order_bodies,
    ordered_width,
    pool_tokens,
    pooled_width,
)
from .registry import build_model, model_config

HEAD_POOLINGS = ("joints", *POOLINGS)
"""What a classifier's ``pooling`` may name."""

HEAD_BODIES = ("mean", "ordered")
"""What a classifier's ``bodies`` may name."""

# A block of an encoder by its parameters' names: what holds the list, and the place in it.
_BLOCK = re.compile(r"^(.*\.)blocks\.(\d+)\.")


class ActionClassifier(Publishable, nn.Module):
    """The fine-tuning module of MAMP's public code over the tokens of any encoder.

    The tokens of each body are pooled, the bodies of a clip averaged, or put side by side, and the head turns that into
    logits.
    The classifier trains what :meth:`SkeletonModel.encode` uses; decoders and targets of the pre-training stay as
    they are. It is as good a start from scratch: give it an encoder with fresh weights.

    Drop path grows linearly from 0 in the first block to ``drop_path`` in the last one. It reaches every
    :class:`fastamr.nn.DropPath` inside a list named ``blocks``; an encoder without such has none.

    Args:
        encoder: the model to build on, taken over as it is: its weights are trained in place.
        classes: number of classes.
        pooling: ``"joints"`` averages over time and puts the joints side by side, ``V * D`` features (MAMP's public
            code), ``"mean"`` averages over all tokens, ``D`` features; ``"regions"``, ``"regions+time"`` and
            ``"mean+max"`` as of :meth:`SkeletonModel.features`. Joints that were not seen do not count.
        bodies: ``"mean"`` averages the bodies of a clip, ``"ordered"`` puts the two that move most side by side, see
            :func:`~fastamr.models.parts.pooling.order_bodies`.
        hidden: width of a layer with BatchNorm and ReLU before the last one (MAMP's public code: 2048); 0 = none,
            one linear layer.
        dropout: of the tokens before pooling (MAMP's public code: 0.3).
        drop_path: of the last block (MAMP's public code: 0.3).
        label_smoothing: of :meth:`loss` (MAMP's public code: 0.1).
        class_names: what the classes are called; empty = unknown.
        steps: the pre-processing that its clips go through before they are sampled, as a data set's ``steps`` lists it;
            saved with the classifier, for whoever uses it on raw coordinates.
        training_data: what is known of the clips that it was trained on, for whoever uses it on others: plain values
            by name, as ``fps`` (frames a second), ``median_frames`` and ``median_seconds`` of a clip; saved with it.
            A key that is missing, or None, is unknown.
        source: for an encoder of the layout ``body``, the layout of all clips that it was trained on, or its fields
            (:meth:`~fastamr.skeleton.SkeletonLayout.to_dict`): each sequence has the joints of that layout, and an
            exported classifier takes clips of it. None = clips of several layouts; each sequence has the joints that it
            shows.

    Shapes:
        clips ``(S, T, V, C)`` -> logits ``(S, classes)``, or ``(B, classes)`` with the owners of the S bodies.

    Raises:
        ValueError: an argument out of range, or tokens that do not divide into joints.
    """

    name: ClassVar[str] = CLASSIFIER
    body_size: float | None = None
    """The median trunk of the clips that it was trained on, as for an encoder; saved with it."""

    def __init__(
        self,
        encoder: SkeletonModel,
        classes: int,
        *,
        pooling: str = "joints",
        bodies: str = "mean",
        hidden: int = 2048,
        dropout: float = 0.3,
        drop_path: float = 0.3,
        label_smoothing: float = 0.1,
        class_names: Sequence[str] = (),
        steps: Sequence[Mapping[str, Any]] = (),
        training_data: Mapping[str, Any] | None = None,
        source: SkeletonLayout | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_classifier(classes, pooling, bodies, hidden, dropout, drop_path, label_smoothing)
        if class_names and len(class_names) != classes:
            raise ValueError(
                f"class_names holds {len(class_names)} names for {classes} classes: expected one each, or none"
            )
        self.encoder = encoder
        self.classes, self.pooling, self.label_smoothing = classes, pooling, label_smoothing
        self.bodies = bodies
        self.class_names = tuple(str(name) for name in class_names)
        self.steps = tuple(dict(step) for step in steps)
        self.training_data: dict[str, Any] = dict(training_data or {})
        self.source = SkeletonLayout.from_dict(source) if isinstance(source, Mapping) else source
        self.source_joints = None if self.source is None else _joints_of(self.source, encoder)
        self._head_options = {"hidden": hidden, "dropout": dropout, "drop_path": drop_path}
        self.joints = encoder.config.joints
        if pooling.startswith("regions"):
            encoder.check_pooling(pooling)
        tokens, used = encoded_example(encoder)
        if pooling == "joints" and tokens.shape[1] % self.joints:
            raise ValueError(
                f"pooling='joints' needs tokens of {self.joints} joints, the encoder makes {tokens.shape[1]} tokens: "
                "use pooling='mean'"
            )
        for parameter in encoder.parameters():
            # Parts of the pre-training alone would only fill the optimizer; what the caller froze stays frozen.
            parameter.requires_grad_(parameter.requires_grad and parameter in used)
        self._pretraining_only = {f"encoder.{name}" for name in pretraining_only(encoder, used)}
        width = tokens.shape[2]
        width = width * self.joints if pooling == "joints" else pooled_width(pooling, width)
        width = ordered_width(width) if bodies == "ordered" else width
        self.dropout = nn.Dropout(dropout)
        self.head = _head(width, hidden, classes).to(tokens.device)
        self._layers, self.depth = _layers(name for name, _ in self._trained("encoder."))
        self._set_drop_path(drop_path)

    @property
    def hidden(self) -> int:
        """Width of the head's hidden layer, 0 = none."""
        return int(self._head_options["hidden"])

    def inference_state(self) -> dict[str, Tensor]:
        """Return the parameters and buffers that the logits depend on, by name, without the pre-training's parts."""
        state = self.state_dict()
        return {name: value for name, value in state.items() if name not in self._pretraining_only}

    def num_parameters(self) -> int:
        """Return how many parameters the logits depend on."""
        names = self.inference_state().keys()
        return sum(parameter.numel() for name, parameter in self.named_parameters() if name in names)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, each in one piece, into a folder.

        The file holds :meth:`inference_state`. Decoders and targets of the pre-training are left out; save the encoder
        itself to train it further as a masked model.
        """
        config = {
            "encoder": {"model": self.encoder.name, "config": self.encoder.config.to_dict()},
            "classes": self.classes,
            "pooling": self.pooling,
            "bodies": self.bodies,
            **self._head_options,
            "label_smoothing": self.label_smoothing,
            "class_names": list(self.class_names),
            "steps": [dict(step) for step in self.steps],
            "training_data": self.training_data,
            **({} if self.source is None else {"source": self.source.to_dict()}),
        }
        write_model(directory, self.name, config, self.inference_state(), {BODY_SIZE: self.body_size})

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, revision: str | None = None) -> Self:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode; nothing is unpickled.

        Parts of the pre-training, which the file does not hold, have fresh weights.

        Args:
            directory: the folder, a shipped model or a repository, see :func:`fastamr.weights.find_model`.
            revision: branch, tag or commit of a repository.

        Raises:
            FileNotFoundError: the folder holds no model.
            ValueError: the folder holds an encoder without classes, or the files do not fit each other.
        """
        directory = find_model(directory, revision=revision)
        description = read_description(directory)
        if description["model"] != cls.name:
            raise ValueError(
                f"{directory} holds a {description['model']!r}, an encoder without classes: train a classifier on it "
                "with fastamr finetune, or load it with fastamr.models.load_pretrained"
            )
        with naming(
            Path(directory) / CONFIG_FILE, "it describes no classifier: train one with fastamr finetune"
        ):
            config = dict(description["config"])
            encoder = config.pop("encoder")
            built = model_config(encoder["model"], encoder["config"])
            check_fits_file(built, directory)
            model = cls(build_model(encoder["model"], built), **config)
        load_weights(model, Path(directory) / WEIGHTS_FILE, without=model._pretraining_only)
        model.body_size = description.get(BODY_SIZE)
        return model.eval()

    def _trained(self, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and name.startswith(prefix):
                yield name, parameter

    def _set_drop_path(self, rate: float) -> None:
        positions = {match[0]: int(match[2]) for name in self._layers if (match := _BLOCK.match(name))}
        for name, module in self.named_modules():
            match = _BLOCK.match(name)
            if isinstance(module, DropPath) and match is not None and match[0] in positions:
                module.rate = rate * positions[match[0]] / max(1, self.depth - 1)

    def features(
        self,
        clips: Tensor,
        *,
        valid: Tensor | None = None,
        owner: Tensor | None = None,
        count: int | None = None,
        partial: bool = False,
        seed: Tensor | None = None,
        generator: torch.Generator | None = None,
        joints: Sequence[int] | None = None,
    ) -> Tensor:
        """Pool the tokens of each body, and average the bodies of each clip or put them side by side.

        Args:
            clips: ``(S, T, V, C)``, one body each.
            valid: ``(S, T, V)`` bool, joints that were seen.
            owner: ``(S,)`` int64, the clip in the batch that a body belongs to; None = a clip each.
            count: B, clips in the batch. With it nothing is read back from a GPU, so that a CUDA graph can record the
                call, and an owner of -1 marks a row that belongs to no clip, see
                :func:`~fastamr.models.parts.pooling.average_bodies`.
            partial: with ``count``: clips without a body here may have some elsewhere, and get zeros.
            seed: ``(2,)`` int64 of drop path, on the clips' device, or ``(3,)`` with the number of the first sequence,
                see :func:`fastamr.nn.drop_path_seed`. None draws it. Dropout follows PyTorch's generator.
            generator: source of the seed; None = PyTorch's default one.
            joints: of the layout ``body``, the joints that every sequence has; () = those that each one shows, None =
                those of ``source``. See :meth:`SkeletonModel.encode`.

        Returns:
            ``(B, F)``, the input of ``head``.
        """
        if seed is None and generator is not None and self.training:
            seed = ops.make_seed(generator, clips.device)
        with drop_path_seed(seed):
            pooled = self.pool_bodies(clips, valid, joints)
        if self.bodies == "mean":
            return pooled if owner is None else average_bodies(pooled, owner, count, partial=partial)
        if owner is None:
            owner, count = torch.arange(len(pooled), device=pooled.device), len(pooled)
        return order_bodies(pooled, owner, body_motion(clips, valid), count, partial=partial)

    def pool_bodies(
        self, clips: Tensor, valid: Tensor | None = None, joints: Sequence[int] | None = None
    ) -> Tensor:
        """Pooled tokens of each body ``(S, F')``, before the bodies of a clip are brought together.

        Args:
            clips: ``(S, T, V, C)``, one body each.
            valid: ``(S, T, V)`` bool, joints that were seen.
            joints: see :meth:`features`.
        """
        joints = self.source_joints if joints is None else joints
        static: dict[str, Any] = {"joints": joints} if joints else {}
        tokens = self._drop(self.encoder.encode(clips, valid=valid, **static))
        known = self.encoder.known_tokens(clips.shape[0], valid, **static)
        if self.pooling != "joints":
            slots = self.encoder.slots if self.pooling.startswith("regions") else ()
            return pool_tokens(tokens, known, self.pooling, slots)
        tokens = tokens.unflatten(1, (-1, self.joints))
        known = None if known is None else known.unflatten(1, (-1, self.joints))
        return mean_tokens(tokens, known).flatten(1)

    def _drop(self, tokens: Tensor) -> Tensor:
        """Drop-out; of several processes each takes its rows of what one alone would draw."""
        stays = 1 - self.dropout.p
        if processes() == 1 or not self.training or stays == 1:
            return self.dropout(tokens)
        noise = draw_rows(
            lambda rows: tokens.new_empty(rows, *tokens.shape[1:]).bernoulli_(stays), len(tokens)
        )
        return tokens * noise.div(stays)

    def forward(
        self,
        clips: Tensor,
        *,
        valid: Tensor | None = None,
        owner: Tensor | None = None,
        count: int | None = None,
        seed: Tensor | None = None,
        generator: torch.Generator | None = None,
        joints: Sequence[int] | None = None,
    ) -> Tensor:
        """Logits ``(B, classes)``, see :meth:`features` for the arguments."""
        rest: dict[str, Any] = {"count": count, "seed": seed, "generator": generator, "joints": joints}
        return self.head(self.features(clips, valid=valid, owner=owner, **rest))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy with label smoothing, a float32 scalar.

        Args:
            logits: ``(B, classes)``.
            labels: ``(B,)`` int64.
        """
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    def parameter_groups(
        self, weight_decay: float, *, lr: float, layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """Parameters for an optimizer, with learning rates that shrink towards the input (BEiT, MAE).

        The head and the encoder's last norm learn with ``lr``, block i of n (from 0) with
        ``lr * layer_decay ** (n - i)``, the embedding with ``lr * layer_decay ** (n + 1)``. Weight decay as in
        :meth:`SkeletonModel.parameter_groups`.

        Args:
            weight_decay: of the parameters that have one.
            lr: learning rate of the head.
            layer_decay: factor from one layer to the one before it; 1 = all alike.

        Returns:
            Groups with ``params``, ``lr``, ``weight_decay`` and ``layer``, the embedding's layer being 0.
        """
        if not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay={layer_decay} must be above 0 and at most 1, for example 0.8")
        decayed = set(self.encoder.parameter_groups(weight_decay)[0]["params"])
        decayed |= {parameter for parameter in self.head.parameters() if parameter.ndim > 1}
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in self._trained(""):
            layer, decays = self._layers.get(name, self.depth + 1), parameter in decayed
            empty = {
                "params": [],
                "lr": lr * layer_decay ** (self.depth + 1 - layer),
                "weight_decay": weight_decay if decays else 0.0,
                "layer": layer,
            }
            groups.setdefault((layer, decays), empty)["params"].append(parameter)
        return [groups[key] for key in sorted(groups)]


def _joints_of(source: SkeletonLayout, encoder: SkeletonModel) -> tuple[int, ...]:
    """Return the joints of ``body`` that a layout has.

    Raises:
        ValueError: the encoder is of another layout, or the layout has none of them.
    """
    parts = set(parts_of(source).values())
    joints = tuple(place for place, joint in enumerate(BODY.joints) if joint in parts)
    if not is_body(encoder.layout) or not joints:
        raise ValueError(
            f"source={source.name!r}: expected a layout with parts of a body, and an encoder of layout 'body' (it has "
            f"{encoder.layout.name!r}): omit source"
        )
    return joints


# What stays is divided by its share: more than a hundred times the values is of no use, and nearly 1 gives infinity.
MOST = 0.99


def check_classifier(
    classes: int,
    pooling: str,
    bodies: str,
    hidden: int,
    dropout: float,
    drop_path: float,
    label_smoothing: float,
) -> None:
    """Raise ``ValueError`` for an option of :class:`ActionClassifier` that is out of range."""
    check_name("pooling", pooling, HEAD_POOLINGS)
    check_name("bodies", bodies, HEAD_BODIES)
    if classes < 2:
        raise ValueError(f"classes={classes} must be at least 2")
    for name, size in (("classes", classes), ("hidden", hidden)):
        if size > LARGEST[name]:
            raise ValueError(f"{name}={size} is too large, expected at most {LARGEST[name]}")
    if hidden < 0:
        raise ValueError(f"hidden={hidden} must be a width, or 0 for a single linear layer")
    rates = {"dropout": dropout, "drop_path": drop_path, "label_smoothing": label_smoothing}
    for name, value in rates.items():
        if not 0 <= value <= MOST:
            raise ValueError(f"{name}={value} must be at least 0 and at most {MOST}, for example 0.1")


def _head(width: int, hidden: int, classes: int) -> nn.Sequential:
    """One linear layer, or two with BatchNorm and ReLU between them; Xavier-uniform (MAMP's public code)."""
    if hidden == 0:
        return nn.Sequential(nn.Linear(width, classes)).apply(initialize)
    layers = (nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes))
    return nn.Sequential(*layers).apply(initialize)


def encoded_example(encoder: SkeletonModel) -> tuple[Tensor, set[nn.Parameter]]:
    """Encode one empty clip: its tokens ``(1, N, D)``, and the parameters that they depend on, frozen or not."""
    config, training = encoder.config, encoder.training
    device = next(encoder.parameters()).device
    clip = torch.zeros(1, config.frames, config.joints, config.channels, device=device)
    # Evaluation mode, so that an encoder with batch statistics does not learn from the empty clip.
    encoder.eval()
    candidates = list(encoder.parameters())
    frozen = [parameter for parameter in candidates if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        tokens = encoder.encode(clip)
        gradients = torch.autograd.grad(tokens.sum(), candidates, allow_unused=True)
    encoder.train(training)
    for parameter in frozen:
        parameter.requires_grad_(False)
    used = {p for p, gradient in zip(candidates, gradients, strict=True) if gradient is not None}
    return tokens.detach(), used


def pretraining_only(encoder: SkeletonModel, used: set[nn.Parameter]) -> set[str]:
    """Return the names of an encoder's parameters that are not used, and of the buffers that stand beside only such.

    The buffers of its ``pretraining_parts`` are among them.

    Args:
        encoder: the model.
        used: the parameters that its tokens depend on, see :func:`encoded_example`.
    """
    names = set()
    for prefix, module in encoder.named_modules():
        own = dict(module.named_parameters(recurse=False))
        idle = [name for name, parameter in own.items() if parameter not in used]
        if own and len(idle) == len(own):
            idle += [name for name, _ in module.named_buffers(recurse=False)]
        names |= {f"{prefix}.{name}" if prefix else name for name in idle}
    for part in getattr(encoder, "pretraining_parts", ()):
        names |= {f"{part}.{name}" for name, _ in encoder.get_submodule(part).named_buffers()}
    return names


def _layers(names: Iterator[str]) -> tuple[dict[str, int], int]:
    """Number an encoder's parameters from the input on.

    What comes before a list of blocks is layer 0, block i is layer i + 1, what comes after is the last layer.

    Returns:
        The layer by the parameter's name, and the number of blocks of the longest list.
    """
    layers: dict[str, int | None] = {}
    coming: set[str] = set()
    for name in reversed(list(names)):
        match = _BLOCK.match(name)
        if match is not None:
            layers[name] = int(match[2]) + 1
            coming.add(match[1])
        else:
            # Before the blocks of its own holder; a part beside them (ASMa's alignment) comes after all.
            layers[name] = 0 if any(name.startswith(holder) for holder in coming) else None
    depth = max((layer for layer in layers.values() if layer is not None), default=0)
    if depth == 0:
        return dict.fromkeys(layers, 0), 0
    return {name: depth + 1 if layer is None else layer for name, layer in layers.items()}, depth
