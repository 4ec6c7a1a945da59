"""How many floating-point operations a step needs, in its plain form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..data.synthetic.random_clips import random_clips
from ..models import SkeletonModel, count_flops
from ..nn import VisibleAttention


def step_flops(model: SkeletonModel, sequences: int) -> float:
    """FLOPs of one pre-training step: three forward passes (backward = two) of all linear layers and attentions.

    Two operations per multiply-add; the products of attention are counted, softmax, norms, loss and optimizer are
    not. The plain form is counted: what an implementation saves by algebra stays in, what it computes twice stays
    out, so that the figure is the same for every implementation of a model (model FLOPs, Chowdhery et al. 2022,
    arXiv 2204.02311, appendix B).

    Args:
        model: a masked model.
        sequences: S, sequences of the step.
    """
    return 3.0 * sequences * (count_flops(model, bodies=1) + _attention_flops(model))


def _attention_flops(model: SkeletonModel) -> float:
    """Products ``q k'`` and ``p v`` of all attentions in the forward pass of one sequence."""
    products = 0

    def count(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal products
        memory = arguments[1] if len(arguments) > 1 else arguments[0]
        products += 2 * output.shape[-2] * memory.shape[-2] * output.shape[-1]

    layers = [layer for layer in model.modules() if isinstance(layer, VisibleAttention)]
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
