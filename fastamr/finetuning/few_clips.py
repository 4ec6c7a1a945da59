"""Defaults that suit the number of training clips: the field's recipe is made for tens of thousands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FEW_CLIPS = 200
"""Fewer training clips than these are few."""

# As measured in docs/evaluation.md, "Few clips": small batches, so that few clips give many updates, and no BatchNorm,
# whose running statistics need more clips.
_RECIPE = {"hidden": 0, "batch_size": 8, "layer_decay": 0.65, "dropout": 0.0, "drop_path": 0.1}
_UPDATES = 500
_EPOCHS = (20, 100)


def few_clips_recipe(clips: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the settings of a recipe for few training clips, and a line that says so.

    The epochs follow from the number of updates: about 500, but 20 epochs at least and 100 at most.

    Args:
        clips: how many train.
        given: the settings that were asked for, which win.
    """
    recipe = {**_RECIPE, **given}
    per_epoch = math.ceil(clips / recipe["batch_size"])
    low, high = _EPOCHS
    recipe.setdefault("epochs", min(high, max(low, math.ceil(_UPDATES / per_epoch))))
    updates = recipe["epochs"] * per_epoch
    head = (
        "a linear head without BatchNorm" if not recipe["hidden"] else f"a head of width {recipe['hidden']}"
    )
    text = (
        f"{clips} training clips are few (below {FEW_CLIPS}): {head}, layer decay {recipe['layer_decay']:g}, batches "
        f"of {recipe['batch_size']}, {recipe['epochs']} epochs = {updates} updates; --no-frozen takes the usual "
        "recipe, --recipe.NAME sets a part, --frozen only fits a linear head"
    )
    return recipe, text
