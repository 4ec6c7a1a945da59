"""Which parameters every model trains without weight decay, by name and in order.

``decay_groups.json`` beside this file holds the answer of the tree before parameters were marked by the modules that
make them. It was written by running this file there: ``python tests/models/decay_groups.py > decay_groups.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from torch import nn

from fastamr.models import MODELS, ActionClassifier, SkeletonModel, build_model

SMALL = {"layout": "sbu15", "frames": 24, "width": 16, "depth": 1, "heads": 2}
DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
OPTIONS: dict[str, dict[str, object]] = {
    "amr": {**DECODER, "target_patches": 2, "guidance_windows": (4,)},
    "gfp": {**DECODER, "levels": (2,), "target_hidden": 8, "global_hidden": 8, "target_width": 8},
    "asma": {"projector": 8},
}


def models() -> Iterator[tuple[str, nn.Module]]:
    """Small ones of every method, ASMa's with both of its backbones."""
    for name in ("amr", "asma", "gfp", "mamp", "skeleton_mae"):
        yield name, build(name)
    yield "asma, transformer", build("asma", backbone="transformer")
    for name in ("amr", "asma"):
        yield f"classifier of {name}", ActionClassifier(build(name), 3, hidden=8)


def build(name: str, **more: object) -> SkeletonModel:
    assert name in MODELS
    return build_model(name, **SMALL, **OPTIONS.get(name, DECODER), **more)  # type: ignore[arg-type]


def groups(model: nn.Module) -> dict[str, list[str]]:
    """The names in the groups with and without decay, in the optimizer's order."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    options = {"lr": 1.0} if isinstance(model, ActionClassifier) else {}
    found: dict[str, list[str]] = {"decayed": [], "free": []}
    for group in model.parameter_groups(0.5, **options):  # type: ignore[operator]
        found["decayed" if group["weight_decay"] else "free"] += [names[each] for each in group["params"]]
    return found


if __name__ == "__main__":
    print(json.dumps({name: groups(model)["free"] for name, model in models()}, indent=1))
