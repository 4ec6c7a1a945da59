"""Which parameters train without weight decay: what their modules say, and what it was before they said it."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fastamr.models import AMRModel, SkeletonModel
from fastamr.nn import MaskedPatchEmbed, without_decay

from .decay_groups import build, groups, models

EXPECTED = json.loads((Path(__file__).parent / "decay_groups.json").read_text())


@pytest.fixture(scope="module")
def built() -> dict[str, nn.Module]:
    return dict(models())


def test_every_model_is_compared(built: dict[str, nn.Module]) -> None:
    assert set(EXPECTED) == set(built)


@pytest.mark.parametrize("name", EXPECTED)
def test_groups_are_those_of_the_list_by_name(name: str, built: dict[str, nn.Module]) -> None:
    """``decay_groups.json`` was written by ``decay_groups.py`` in the tree that listed the names in one place."""
    found = groups(built[name])
    assert found["free"] == EXPECTED[name]
    trained = [key for key, parameter in built[name].named_parameters() if parameter.requires_grad]
    assert sorted(found["decayed"] + found["free"]) == sorted(trained)


class Stamps(nn.Module):
    """Makes a table under a name that nobody knew before."""

    no_decay = ("stamps",)

    def __init__(self) -> None:
        super().__init__()
        self.stamps, self.kernel = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))


class Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def exempt(model: nn.Module) -> set[str]:
    found = without_decay(model)
    return {name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter in found}


def pickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_a_new_name_needs_one_line_where_it_is_made_and_survives() -> None:
    model = nn.Sequential(Stamps(), nn.Linear(4, 4))
    restored = copy.deepcopy(model)
    restored.load_state_dict(model.state_dict())
    for form in (
        *(model, copy.deepcopy(model), pickled(model), restored, Wrapper(model)),
        *(copy.deepcopy(model).to("meta"), copy.deepcopy(model).double()),
    ):
        assert exempt(form) == {"stamps", "bias"}


def test_old_names_stay_without_decay_in_models_registered_elsewhere() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask_token, self.tokens = (
                nn.Parameter(torch.ones(1, 1, 4)),
                nn.Parameter(torch.ones(1, 1, 4)),
            )

    assert exempt(Plain()) == {"mask_token"}


def test_the_modules_say_it_themselves(monkeypatch: pytest.MonkeyPatch, built: dict[str, nn.Module]) -> None:
    """Without the old names nothing changes: every table of the library is named by the module that makes it."""
    monkeypatch.setattr("fastamr.nn.initialization._OLD_NAMES", frozenset())
    for name, model in built.items():
        assert groups(model)["free"] == EXPECTED[name], name
    monkeypatch.setattr(MaskedPatchEmbed, "no_decay", ())
    assert groups(built["mamp"])["free"] != EXPECTED["mamp"]


def test_a_copied_model_trains_alike() -> None:
    model = build("amr")
    assert groups(copy.deepcopy(model)) == groups(model)


def test_another_decoder_takes_the_place_of_amrs() -> None:
    class Mean(nn.Module):
        def __init__(self, config: object) -> None:
            super().__init__()
            self.head = nn.Linear(16, 2 * 4 * 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(tokens.mean(1, keepdim=True)).expand(-1, 3 * 15, -1)

    class MeanModel(AMRModel):
        name = "amr_mean"
        decoder_class = Mean

    torch.manual_seed(0)
    model = MeanModel(**build("amr").config.to_dict())
    assert [name for name, _ in model.decoder.named_parameters()] == ["head.weight", "head.bias"]
    model(torch.randn(2, 24, 15, 3)).backward()
    assert model.decoder.head.weight.grad.any()
    assert not model.decoder.head.bias.detach().any(), "the model's own initialisation reaches it"


def test_the_base_is_abstract() -> None:
    class Half(SkeletonModel):
        name = "half"

    model = Half("sbu15", 24)
    clips = torch.zeros(1, 24, 15, 3)
    with pytest.raises(NotImplementedError, match=r"Half is abstract: implement reconstruct\(\)"):
        model(clips)
    with pytest.raises(NotImplementedError, match=r"Half is abstract: implement linear_rows\(\)"):
        model.linear_rows("encoder.embed.proj")


def test_the_old_name_of_the_embedding() -> None:
    import fastamr.nn

    with pytest.warns(DeprecationWarning, match=r"fastamr\.nn\.table is now fastamr\.nn\.learned_embedding"):
        from fastamr.nn import table
    assert table is fastamr.nn.learned_embedding
    with pytest.raises(AttributeError, match="no attribute 'tables'"):
        _ = fastamr.nn.tables
