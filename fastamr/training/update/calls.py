"""Which calls of ops one update makes, for ``fastamr tune``: found from shapes alone, nothing is computed."""

from __future__ import annotations

from typing import Any

import torch

from ...models import SkeletonModel
from ...ops.common.backends import Problem, backend, watched
from ...ops.common.record import dtype_name
from .step import PretrainStep


def calls_of(step: PretrainStep) -> list[tuple[str, Problem]]:
    """Return each op that an update runs, with the calls as its back ends see them.

    Stacks of blocks count as fused where they can be: so the ops that they are made of are known.

    Args:
        step: one that draws its clips, or has been called.

    Raises:
        RuntimeError: the model's calls cannot be told, as where it is compiled.
    """
    with watched() as seen:
        with backend(transformer_stack="fused"):
            explanation = step.explain()
        if explanation.unknown is not None:
            seen.clear()
            explanation = step.explain()
    if explanation.unknown is not None:
        raise RuntimeError(f"the calls of an update cannot be told: {explanation.unknown}")
    return [(op, problem) for op, problem, _ in seen if op != "transformer_stack"]


def basis_of(model: SkeletonModel, sequences: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the sizes of :class:`fastamr.testing.op_sizes.Sizes` that a model's clips and layers have.

    Args:
        model: the model.
        sequences: of a micro-batch.
        dtype: of activations.
    """
    config = model.config
    return {
        "sequences": sequences,
        "frames": config.frames,
        "joints": config.joints,
        "target_frames": config.frames // getattr(config, "target_patches", 1),
        "windows": list(getattr(config, "guidance_windows", (4, 5))),
        "width": config.width,
        "hidden": int(config.width * config.mlp_ratio),
        "low": dtype_name(dtype),
    }
