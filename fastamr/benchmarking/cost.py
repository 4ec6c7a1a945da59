"""How many floating-point operations a step needs, in its plain form, and in which convention.

Two conventions are in use for the models of this library, both for two bodies a clip and two operations per
multiply-add, and neither with softmax, norms and other passes over single values:

- linear layers only, as the tables of AMR and GFP have it: 13.7 GFLOPs for SkeletonMAE and MAMP, 3.8 for AMR
  (:func:`fastamr.models.count_flops`);
- with the products of attention, as SLiM, SOfA and GFP count MAMP: 19.67 in pre-training (1.97 encoder, 17.70 decoder),
  28.32 for the encoder over the whole sequence (:func:`clip_flops`, :func:`encoding_flops`, 1 % lower: the published
  figures hold some of the passes as well).

A step's FLOPs (:func:`step_flops`) are of the second kind, three times the forward pass, for sequences, not clips.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..data.synthetic.random_clips import random_clips
from ..models import SkeletonModel, count_flops
from ..nn import VisibleAttention

CONVENTION = (
    "linear layers and the products of attention, two operations per multiply-add, backward = two forwards"
)
"""What :func:`step_flops` counts, in words."""


def clip_flops(model: SkeletonModel, *, bodies: int = 2, trained_only: bool = False) -> float:
    """FLOPs of one pre-training forward pass of a clip: linear layers and the products of attention.

    Args:
        model: a masked model.
        bodies: sequences per clip.
        trained_only: leave out what has no gradients, such as a teacher.

    Returns:
        FLOPs; at the defaults 19.6e9 for SkeletonMAE and MAMP (published: 19.67e9).
    """
    linear = count_flops(model, bodies=bodies, trained_only=trained_only)
    return linear + bodies * _attention_flops(model, trained_only)


def encoding_flops(model: SkeletonModel, *, bodies: int = 2) -> float:
    """FLOPs of the encoder over all tokens of a clip, as in evaluation: linear layers and the products of attention.

    Args:
        model: a masked model with a transformer encoder.
        bodies: sequences per clip.

    Returns:
        FLOPs; at the papers' sizes 28.1e9 (published: 28.32e9).
    """
    config = model.config
    tokens, width = config.tokens, config.width
    layers = [layer for layer in model.encoder.modules() if isinstance(layer, nn.Linear)]
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    return 2.0 * bodies * (tokens * weights + config.depth * 2 * tokens**2 * width)


def step_flops(model: SkeletonModel, sequences: int) -> float:
    """FLOPs of one pre-training step: three forward passes (backward = two) of all linear layers and attentions.

    What has no gradients, such as a teacher, has no backward pass.

    Two operations per multiply-add; the products of attention are counted, softmax, norms, loss and optimizer are
    not. The plain form is counted: what an implementation saves by algebra stays in, what it computes twice stays
    out, so that the figure is the same for every implementation of a model (model FLOPs, Chowdhery et al. 2022,
    arXiv 2204.02311, appendix B).

    Args:
        model: a masked model.
        sequences: S, sequences of the step.
    """
    forward, trained = (clip_flops(model, bodies=1, trained_only=only) for only in (False, True))
    return sequences * (forward + 2.0 * trained)


def _attention_flops(model: SkeletonModel, trained_only: bool) -> float:
    """Products ``q k'`` and ``p v`` of all attentions in the forward pass of one sequence."""
    products = 0

    def count(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal products
        memory = arguments[1] if len(arguments) > 1 else arguments[0]
        products += 2 * output.shape[-2] * memory.shape[-2] * output.shape[-1]

    layers = [layer for layer in model.modules() if isinstance(layer, VisibleAttention)]
    if trained_only:
        layers = [layer for layer in layers if layer.proj.weight.requires_grad]
    handles = [layer.register_forward_hook(count) for layer in layers]
    config = model.config
    parameter = next(model.parameters())
    clips = random_clips(2, config.frames, config.joints, config.channels, device=parameter.device)
    try:
        with torch.no_grad(), ops.backend("reference"):  # block by block, so that each attention is seen
            model(clips.to(parameter.dtype), seed=torch.zeros(2, dtype=torch.int64, device=parameter.device))
    finally:
        for handle in handles:
            handle.remove()
    return 2.0 * products
