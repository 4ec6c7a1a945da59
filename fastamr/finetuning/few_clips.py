"""Defaults that suit the number of training clips: the field's recipe is made for tens of thousands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FEW_CLIPS = 200
"""Fewer training clips than these are few."""

# Small batches and a faster head, so that few clips and few epochs teach enough; no BatchNorm, whose running statistics
# need more clips. What else was tried: docs/evaluation.md, "Few clips".
_RECIPE = {"hidden": 0, "batch_size": 16, "lr": 2e-3, "dropout": 0.0, "drop_path": 0.1}
_UPDATES = 400
_EPOCHS = (40, 150)


def few_clips_recipe(clips: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the settings of a recipe for few training clips, and a line that says so.

    The epochs follow from the number of updates: about 400, but 40 epochs at least and 150 at most.

    Args:
        clips: how many train.
        given: the settings that were asked for, which win.
    """
    recipe: dict[str, Any] = {**_RECIPE, **given}
    per_epoch = math.ceil(clips / recipe["batch_size"])
    low, high = _EPOCHS
    recipe.setdefault("epochs", min(high, max(low, math.ceil(_UPDATES / per_epoch))))
    updates = recipe["epochs"] * per_epoch
    head = (
        "a linear head without BatchNorm" if not recipe["hidden"] else f"a head of width {recipe['hidden']}"
    )
    text = (
        f"{clips} training clips are few (below {FEW_CLIPS}): {head}, learning rate {recipe['lr']:g}, batches "
        f"of {recipe['batch_size']}, {recipe['epochs']} epochs = {updates} updates; --no-frozen takes the usual "
        "recipe, --recipe.NAME sets a part, --frozen only fits a linear head"
    )
    return recipe, text
