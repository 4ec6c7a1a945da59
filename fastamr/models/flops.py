"""Cost in the convention of the papers' tables: linear layers only (with attention: ``fastamr.benchmarking.cost``)."""

from __future__ import annotations

from torch import nn

from .base import SkeletonModel


def count_flops(model: SkeletonModel, *, bodies: int = 2, trained_only: bool = False) -> float:
    """Floating-point operations of one pre-training forward pass, as the AMR and GFP papers count them.

    Linear layers only, two bodies a clip, two operations per multiply-add. The plain form is counted: what an
    implementation saves by algebra (shared projections) stays in.

    Args:
        model: a masked model.
        bodies: sequences per clip.
        trained_only: leave out layers without gradients, such as those of a teacher.

    Returns:
        FLOPs; at the defaults 13.7e9 for SkeletonMAE and MAMP, 4.1e9 for GFP and 3.8e9 for AMR.
    """
    products = sum(
        model.linear_rows(name) * layer.in_features * layer.out_features
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and (layer.weight.requires_grad or not trained_only)
    )
    return 2.0 * bodies * products
