"""Pooled features of models and of clips, up to the evaluation of frozen encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.data import split_bodies
from fastamr.evaluation import extract_features
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.models import MODELS
from fastamr.models.parts.masking import token_validity
from fastamr.models.parts.pooling import POOLINGS, pool_tokens, pooled_width, slots_of
from fastamr.skeleton import get_layout

from .puppets import BODY, model, puppets


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_pools_its_tokens(name: str, pooling: str) -> None:
    encoder = model(name)
    clips = torch.randn(3, 16, 6, 3)
    valid = torch.rand(3, 16, 6) > 0.1
    valid[:, :, :2], valid[0, :, 2] = True, False  # the trunk is seen, an arm is not
    with torch.no_grad():
        tokens = encoder.encode(clips, valid=valid)
        found = encoder.features(clips, valid=valid, pooling=pooling)
        plain = encoder.features(clips, valid=valid)
    known = token_validity(valid, encoder.config.patch_frames)
    torch.testing.assert_close(found, pool_tokens(tokens, known, pooling, slots_of(BODY)))
    assert found.shape == (3, pooled_width(pooling, tokens.shape[2]))
    if pooling.startswith("mean"):
        assert torch.equal(found[:, : plain.shape[1]], plain)
    else:  # the left arm of the first one is missing
        cells = 5 if pooling == "regions" else 15
        means, flags = found[:, :-cells].unflatten(1, (cells, -1)), found[:, -cells:]
        assert not flags[0, 1::5].any()
        assert not means[0, 1::5].any()
        assert flags[:, 0::5].all()


def test_a_model_without_regions_refuses_and_names_the_way_on() -> None:
    hand = model(layout=get_layout("hand21"))
    clips = torch.zeros(1, 16, 21, 3)
    assert hand.features(clips, pooling="mean+max").shape == (1, 16)
    with pytest.raises(
        ValueError, match=r"layout 'hand21' has no joint .*: use pooling='mean' or 'mean\+max'"
    ):
        hand.features(clips, pooling="regions")


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_clips_of_one_two_and_three_bodies(pooling: str, missing: bool) -> None:
    encoder, data = model(), puppets((1, 2, 3, 2), missing=missing)
    single, ordered = (
        extract_features(encoder, data, pooling=pooling, bodies=bodies, batch_size=3)
        for bodies in ("existing", "ordered")
    )
    width = pooled_width(pooling, 8)
    assert single.shape == (4, width)
    assert ordered.shape == (4, 2 * width + 1)
    alone = extract_features(encoder, split_bodies(data), pooling=pooling)
    # Bodies 0 | 1 2 | 3 4 5 | 6 7, and the last of a clip moves most.
    torch.testing.assert_close(single[2], alone[3:6].mean(0))
    for clip, (first, second) in enumerate([(0, None), (2, 1), (5, 4), (7, 6)]):
        torch.testing.assert_close(ordered[clip, :width], alone[first])
        other = torch.zeros(width) if second is None else alone[second]
        torch.testing.assert_close(ordered[clip, width:-1], other)
    assert ordered[:, -1].tolist() == [0, 1, 1, 1]


def test_the_field_counts_empty_bodies_with_every_pooling() -> None:
    encoder, data = model(), puppets((1, 2))
    empty = encoder.features(torch.zeros(1, 16, 6, 3), pooling="regions")[0]
    existing, field = (
        extract_features(encoder, data, pooling="regions", bodies=bodies) for bodies in ("existing", "field")
    )
    torch.testing.assert_close(field[0], (existing[0] + empty.detach()) / 2)
    torch.testing.assert_close(field[1], existing[1])


def test_each_pooling_has_a_file_of_its_own_and_the_mean_that_of_before(tmp_path: Path) -> None:
    encoder, data = model(), puppets((1, 2))
    extract_features(encoder, data, cache=tmp_path)
    (before,) = tmp_path.iterdir()
    for pooling in POOLINGS:
        for bodies in ("existing", "ordered"):
            options: dict[str, Any] = {"pooling": pooling, "bodies": bodies}
            found = extract_features(encoder, data, cache=tmp_path, **options)
            assert torch.equal(extract_features(encoder, data, cache=tmp_path, **options), found)
    assert len(list(tmp_path.iterdir())) == 2 * len(POOLINGS)
    assert before.is_file()


def test_evaluation_with_wide_features(tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "data.safetensors"
    model().save_pretrained(run)
    puppets((1, 2, 2, 1) * 6).save(file)
    seen = {}
    for pooling, bodies in (("mean", "existing"), ("regions+time", "ordered")):
        config = EvaluateConfig(
            str(run),
            [str(file)],
            pooling=pooling,
            bodies=bodies,
            cache=False,
            device="cpu",  # type: ignore[arg-type]
        )
        seen[pooling] = evaluate(config, quiet=True)
        assert f"--pooling {pooling}" in seen[pooling]["command"] or pooling == "mean"
    mean, regions = (report["results"] for report in seen.values())
    assert mean["raw"] == regions["raw"]
    assert mean["encoder"] != regions["encoder"]
    stored = [json.loads(path.read_text())["config"]["pooling"] for path in run.glob("evaluation*.json")]
    assert sorted(stored) == ["mean", "regions+time"]


def test_an_evaluation_that_cannot_pool_stops_at_once(tmp_path: Path) -> None:
    model(layout=get_layout("hand21")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="layout 'hand21' has no joint whose region is known"):
        evaluate(
            EvaluateConfig(str(tmp_path), ["absent.safetensors"], pooling="regions", device="cpu"), quiet=True
        )
    with pytest.raises(ValueError, match="unknown pooling 'max'"):
        EvaluateConfig("run", ["data"], pooling="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"protocol='finetune' trains the encoder: give --finetune.pooling"):
        EvaluateConfig("run", ["data"], protocol="finetune", pooling="regions")


def test_probes_take_wide_features_with_constant_flags() -> None:
    """As wide as those of two people by region and time: flags that never change, values far from 0."""
    from fastamr.probes import knn_accuracy, linear_probe, logistic_regression, standardize_features

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    x = 50 + torch.randn(120, 7711, generator=generator)
    x[:, :300] += torch.nn.functional.one_hot(labels, 3).repeat(1, 100)
    x[:, -31:] = 1.0
    sets = x[:90], labels[:90], x[90:], labels[90:]
    scaled = standardize_features(x[:90], x[90:])
    assert not scaled[1][:, -31:].any()
    exact = (x[90:].double() - x[:90].double().mean(0)) / x[:90].double().std(0, correction=0)
    torch.testing.assert_close(scaled[1][:, :-31], exact[:, :-31].float())
    assert linear_probe(*sets, standardize=True, epochs=20).accuracy > 80
    assert logistic_regression(*sets) > 80
    assert knn_accuracy(scaled[0], sets[1], scaled[1], sets[3], k=20) > 60
