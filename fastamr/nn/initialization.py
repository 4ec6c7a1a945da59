"""How parameters start (as in the public code of MAE and MAMP), and which of them have no weight decay."""

from __future__ import annotations

import torch
from torch import nn

# Names that had no decay before a module could say so itself; a model registered elsewhere may count on them.
_OLD_NAMES = frozenset({"time_embed", "joint_embed", "mask_token", "queries"})


def initialize(module: nn.Module) -> None:
    """Linear layers Xavier-uniform with zero bias, LayerNorms at identity; use with ``model.apply(initialize)``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def learned_embedding(*shape: int) -> nn.Parameter:
    """Return a learned embedding, token or query of this shape: truncated normal with standard deviation 0.02.

    The module that makes one lists its name in ``no_decay``, see :func:`without_decay`.
    """
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=0.02))


def without_decay(model: nn.Module) -> set[nn.Parameter]:
    """Return the parameters that train without weight decay: biases, norms, and those that a module exempts.

    A module exempts parameters of its own by name, in a class attribute: ``no_decay = ("queries",)``. (A mark on the
    parameter itself would not survive ``copy.deepcopy``.)

    Args:
        model: any module; its submodules are asked too.
    """
    exempt = set()
    for module in model.modules():
        names = _OLD_NAMES.union(getattr(module, "no_decay", ()))
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim <= 1 or name in names:
                exempt.add(parameter)
    return exempt
