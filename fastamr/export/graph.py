"""The computations that are exported: a model in plain PyTorch operations, with inputs that any runtime can make."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from ..layouts.body import parts_of
from ..models import ActionClassifier, SkeletonModel
from ..models.classifier import encoded_example, pretraining_only
from ..models.parts.pooling import mean_tokens
from ..nn import MaskedPatchEmbed, VisibleAttention
from ..skeleton import BODY, SkeletonLayout
from .description import clip_layout

# Example sizes: the batch and the bodies of a clip are free afterwards, so that neither may be 1 here.
_BATCH, _BODIES = 3, 2
_NAMESPACE = "fastamr"


class PlainPatchEmbed(nn.Module):
    """:class:`fastamr.nn.MaskedPatchEmbed` without a choice of tokens: a reshape and a matrix product.

    Args:
        embed: the layer whose parameters are used.
    """

    def __init__(self, embed: MaskedPatchEmbed) -> None:
        super().__init__()
        self.patch_frames = embed.patch_frames
        self.proj, self.time_embed, self.joint_embed = embed.proj, embed.time_embed, embed.joint_embed

    def forward(self, clips: Tensor, keep: Tensor | None = None) -> Tensor:
        """``(S, T, V, C)`` to all tokens ``(S, N, D)``, or to those of ``keep (S, K)``, whose rows are alike."""
        patches = clips.unflatten(1, (-1, self.patch_frames)).transpose(2, 3).flatten(3)
        tokens = (self.proj(patches) + self.time_embed + self.joint_embed).flatten(1, 2)
        return tokens if keep is None else tokens.index_select(1, keep[0])


class Parts(nn.Module):
    """Clips of a layout as parts of the layout ``body``, as :func:`fastamr.data.to_body.as_body` makes them.

    Args:
        source: the layout.
    """

    source: Tensor

    def __init__(self, source: SkeletonLayout) -> None:
        super().__init__()
        places = {part: place for place, part in enumerate(parts_of(source).values())}
        # Joints that the layout lacks are taken from behind its last one.
        rows = [places.get(part, source.num_joints) for part in BODY.joints]
        self.register_buffer("source", torch.tensor(rows), persistent=False)

    def forward(self, clips: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """``(S, T, V, C)`` and ``(S, T, V)`` bool to the same of the parts; those that are not there are not seen."""
        seen = functional.pad(valid.float(), (0, 1)).index_select(2, self.source) > 0
        return functional.pad(clips, (0, 0, 0, 1)).index_select(2, self.source), seen


class ClassifierGraph(nn.Module):
    """A classifier whose bodies stand in slots.

    Of an encoder of ``body`` that was trained on clips of one layout, V are the joints of that.

    Shapes:
        clips ``(B, M, T, V, C)`` float32, present ``(B, M)`` bool, valid ``(B, M, T, V)`` bool -> logits
        ``(B, classes)``. What a slot without a body, or a joint that was not seen, holds does not matter. A clip
        without any body gives the head's answer to zeros.

    Args:
        classifier: the classifier; a plain copy of it is made.
    """

    inputs = ("clips", "present", "valid")
    outputs = ("logits",)

    def __init__(self, classifier: ActionClassifier) -> None:
        super().__init__()
        self.classifier = plain_copy(classifier)
        self.parts = None if classifier.source is None else Parts(classifier.source)

    def forward(self, clips: Tensor, present: Tensor, valid: Tensor) -> Tensor:
        """Return the logits."""
        count = clips.shape[0]
        clips = torch.where(present[:, :, None, None, None], clips, 0.0)
        clips, valid = clips.flatten(0, 1), valid.flatten(0, 1)
        if self.parts is not None:
            clips, valid = self.parts(clips, valid)
        bodies = self.classifier.features(clips, valid=valid)
        # Sums over the bodies of each clip as a product (B, B*M) @ (B*M, F): splitting the first dimension of the
        # features again would tie the program to clips of more than one body.
        weights = present.to(bodies.dtype)
        own = torch.eye(count, dtype=bodies.dtype, device=bodies.device)
        total = (own[:, :, None] * weights).flatten(1) @ bodies
        return self.classifier.head(total / weights.sum(1, keepdim=True).clamp(min=1))


class EncoderGraph(nn.Module):
    """An encoder alone.

    Shapes:
        clips ``(S, T, V, C)`` float32, one body each, valid ``(S, T, V)`` bool -> features ``(S, D)``, the mean over
        the valid tokens, and tokens ``(S, N, D)``.

    Args:
        encoder: the model; a plain copy of it is made.
    """

    inputs = ("clips", "valid")
    outputs = ("features", "tokens")

    def __init__(self, encoder: SkeletonModel) -> None:
        super().__init__()
        self.encoder = plain_copy(encoder)

    def forward(self, clips: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and tokens."""
        tokens = self.encoder.encode(clips, valid=valid)
        return mean_tokens(tokens, self.encoder.known_tokens(clips.shape[0], valid)), tokens


class Traced(NamedTuple):
    """A model as a program of plain operations.

    Attributes:
        program: what ``torch.export`` made of it.
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order.
        free: the dimensions of the inputs that are free.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: dict[int, Any]


def trace(model: ActionClassifier | SkeletonModel) -> Traced:
    """Return a model as a program whose batch size, and bodies a clip, are free.

    Raises:
        TypeError: it is neither a classifier nor a model of this library.
        ValueError: weights of another type than float32, or an operation that only this library has.
    """
    if not isinstance(model, (ActionClassifier, SkeletonModel)):
        raise TypeError(
            f"cannot export a {type(model).__name__}: expected an ActionClassifier or a model of fastamr.models"
        )
    other = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    if other:
        raise ValueError(
            f"cannot export weights of {', '.join(map(str, sorted(other, key=str)))}: call model.float()"
        )
    graph: Any = ClassifierGraph(model) if isinstance(model, ActionClassifier) else EncoderGraph(model)
    example = example_inputs(model, _BATCH, _BODIES)
    free = {0: Dim("batch", min=1)}
    if isinstance(model, ActionClassifier):
        free |= {1: Dim("bodies", min=1)}
    with torch.no_grad():
        program = torch.export.export(
            graph.eval(), example, dynamic_shapes=tuple(dict(free) for _ in example), strict=False
        )
    _refuse_own_ops(program)
    for node in program.graph.nodes:
        # Paths of this machine's files.
        node.meta.pop("stack_trace", None)
    return Traced(program, graph.inputs, graph.outputs, free)


def example_inputs(model: ActionClassifier | SkeletonModel, batch: int, bodies: int) -> tuple[Tensor, ...]:
    """Return inputs of a model's graph: normal noise, some joints not seen and, of a classifier, a body missing."""
    encoder = model.encoder if isinstance(model, ActionClassifier) else model
    assert isinstance(encoder, SkeletonModel)
    config, joints = encoder.config, clip_layout(model).num_joints
    generator = torch.Generator().manual_seed(batch + 10 * bodies)
    slots = (batch, bodies) if isinstance(model, ActionClassifier) else (batch,)
    clips = torch.randn(*slots, config.frames, joints, config.channels, generator=generator)
    valid = torch.rand(*slots, config.frames, joints, generator=generator) > 0.05
    if (
        config.by_parts and joints == config.joints
    ):  # some of its joints are those of no sequence, some of one
        valid[..., ::7] = False
        valid[1:, ..., 1::7] = False
    if not isinstance(model, ActionClassifier):
        return clips, valid
    present = torch.ones(batch, bodies, dtype=torch.bool)
    present[-1, 1:] = False
    return clips, present, valid


def model_outputs(model: ActionClassifier | SkeletonModel, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return what the model itself makes of the inputs of its graph, body by body, on the CPU."""
    own = copy.deepcopy(model).cpu().eval()
    with torch.inference_mode():
        if isinstance(own, SkeletonModel):
            clips, valid = inputs
            return own.features(clips, valid=valid), own.encode(clips, valid=valid)
        clips, present, valid = inputs
        there = present.flatten()
        owner = torch.arange(len(clips)).repeat_interleave(clips.shape[1])[there]
        clips, valid = clips.flatten(0, 1)[there], valid.flatten(0, 1)[there]
        if own.source is not None:
            clips, valid = Parts(own.source)(clips, valid)
        return (own(clips, valid=valid, owner=owner),)


def plain_copy(module: nn.Module) -> Any:
    """Return a copy on the CPU, in evaluation mode, whose layers use no operation of this library.

    The parameters of an encoder's pre-training are gone.
    """
    plain = copy.deepcopy(module).cpu().eval()
    encoder = plain.encoder if isinstance(plain, ActionClassifier) else plain
    if isinstance(encoder, SkeletonModel):
        for name in pretraining_only(encoder, encoded_example(encoder)[1]):
            holder, _, leaf = name.rpartition(".")
            delattr(encoder.get_submodule(holder), leaf)
    plain.requires_grad_(False)
    for parent in list(plain.modules()):
        for name, child in parent.named_children():
            if isinstance(child, MaskedPatchEmbed):
                setattr(parent, name, PlainPatchEmbed(child))
            elif isinstance(child, VisibleAttention):
                child.backend = "sdpa"
    return plain


def _refuse_own_ops(program: ExportedProgram) -> None:
    found = {
        str(node.target)
        for node in program.graph.nodes
        if node.op == "call_function" and getattr(node.target, "namespace", "") == _NAMESPACE
    }
    if found:
        raise ValueError(
            f"the model calls {', '.join(sorted(found))}, which other runtimes do not have: "
            "encode with plain PyTorch operations, or extend fastamr.export.graph.plain_copy to replace the layer"
        )
