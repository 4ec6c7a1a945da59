"""A user's own model becomes known by its name, and nothing takes a name that is in use."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from fastamr.models import MODELS, AMRModel, load_pretrained, register_model
from fastamr.training.config import model_config_class

TINY = {
    "layout": "sbu15",
    "frames": 16,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
}
TINY |= {"decoder_heads": 2, "target_patches": 2, "guidance_windows": (4,)}


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastamr.models.registry.MODELS", dict(MODELS))


def test_a_registered_model_is_configured_saved_and_loaded_by_name(tmp_path: Path) -> None:
    @register_model
    class Mine(AMRModel):
        name = "mine"

    assert model_config_class("mine") is AMRModel.Config
    Mine(**TINY).save_pretrained(tmp_path)
    assert type(load_pretrained(tmp_path)) is Mine


def test_a_checkpoint_of_an_unknown_model_imports_nothing(tmp_path: Path) -> None:
    class Mine(AMRModel):
        name = "os.path:join"

    Mine(**TINY).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"os\.path:join"):
        load_pretrained(tmp_path)


def test_a_name_in_use_is_refused_and_registering_again_is_not() -> None:
    class Other(AMRModel):
        name = "gfp"

    with pytest.raises(ValueError, match=r"'gfp'.*GFPModel"):
        register_model(Other)
    assert register_model(AMRModel) is AMRModel


def test_a_class_without_a_name_of_its_own_is_refused() -> None:
    class Nameless(AMRModel):
        pass

    with pytest.raises(TypeError, match="name is None"):
        register_model(Nameless)
    with pytest.raises(TypeError, match="SkeletonModel"):
        register_model(nn.Linear)  # type: ignore[arg-type]
