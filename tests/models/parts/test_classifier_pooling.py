"""Classifiers whose tokens are pooled by regions, and whose people stand side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from fastamr.models import ActionClassifier
from fastamr.models.parts.pooling import POOLINGS, body_motion, order_bodies, ordered_width, pooled_width
from fastamr.skeleton import get_layout

from ...features.puppets import model

OWNER = torch.tensor([0, 1, 1, 2, 2, 2])


def classifier(pooling: str = "regions", bodies: str = "mean", **options: Any) -> ActionClassifier:
    torch.manual_seed(0)
    return ActionClassifier(model(), 3, pooling=pooling, bodies=bodies, **options).eval()


def seen() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(6, 16, 6, 3, generator=generator)
    valid = torch.rand(6, 16, 6, generator=generator) > 0.05
    valid[2, :, 2] = False
    return clips, valid


@pytest.mark.parametrize("bodies", ["mean", "ordered"])
@pytest.mark.parametrize("pooling", ["joints", *POOLINGS])
def test_features_are_those_of_the_encoder(pooling: str, bodies: str) -> None:
    own = classifier(pooling, bodies)
    clips, valid = seen()
    with torch.no_grad():
        found = own.features(clips, valid=valid, owner=OWNER)
        alone = own.pool_bodies(clips, valid)
        if pooling != "joints":
            assert torch.equal(alone, own.encoder.features(clips, valid=valid, pooling=pooling))
            assert alone.shape == (6, pooled_width(pooling, 8))
        if bodies == "mean":
            wanted = torch.stack([alone[0], alone[1:3].mean(0), alone[3:].mean(0)])
        else:
            wanted = order_bodies(alone, OWNER, body_motion(clips, valid), 3)
            assert found.shape == (3, ordered_width(alone.shape[1]))
        torch.testing.assert_close(found, wanted)
        assert own(clips, valid=valid, owner=OWNER).shape == (3, 3)
        assert own(clips).shape == (6, 3)  # a clip each


@pytest.mark.parametrize("bodies", ["mean", "ordered"])
def test_rows_of_no_clip_and_clips_of_others_change_nothing(bodies: str) -> None:
    own = classifier(bodies=bodies)
    clips, valid = seen()
    wanted = own.features(clips, valid=valid, owner=OWNER)
    filled = torch.cat([clips, torch.randn(2, 16, 6, 3)]), torch.cat([valid, valid[:2]])
    owner = torch.cat([OWNER, torch.tensor([-1, -1])])
    torch.testing.assert_close(own.features(filled[0], valid=filled[1], owner=owner, count=3), wanted)
    # Two processes with the bodies of some clips each: what they hold adds up.
    parts = [
        own.features(clips[part], valid=valid[part], owner=OWNER[part], count=3, partial=True)
        for part in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(parts[0] + parts[1], wanted)
    with pytest.raises(ValueError, match="owner names no body of clip 0"):
        own.features(clips, owner=OWNER + 1)
    with pytest.raises(ValueError, match="owner names no body of clip 3"):
        own.features(clips, owner=OWNER, count=4)


@pytest.mark.parametrize("bodies", ["mean", "ordered"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_everything_learns(pooling: str, bodies: str) -> None:
    own = classifier(pooling, bodies, hidden=4, dropout=0.1).train()
    clips, valid = seen()
    logits = own(clips, valid=valid, owner=OWNER, count=3)
    own.loss(logits, torch.tensor([0, 1, 2])).backward()
    used = [parameter for parameter in own.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in used)
    assert all(parameter.grad.any() for parameter in used if parameter.ndim > 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("bodies", ["mean", "ordered"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_under_torch_compile_and_autocast(pooling: str, bodies: str) -> None:
    own = classifier(pooling, bodies, hidden=0)
    clips, valid = seen()
    with torch.no_grad():
        pooled = own.pool_bodies(clips, valid)
        compiled = torch.compile(
            lambda *given: order_bodies(given[0], given[1], body_motion(*given[2:]), 3),
            backend="eager",
            fullgraph=True,
        )
        wanted = order_bodies(pooled, OWNER, body_motion(clips, valid), 3)
        assert torch.equal(compiled(pooled, OWNER, clips, valid), wanted)
        with torch.autocast("cpu", torch.bfloat16):
            assert own.features(clips, valid=valid, owner=OWNER).dtype == torch.float32


def test_saved_and_loaded_and_older_files_average(tmp_path) -> None:
    own = classifier("regions+time", "ordered")
    own.save_pretrained(tmp_path / "new")
    again = ActionClassifier.from_pretrained(tmp_path / "new")
    clips, valid = seen()
    assert (again.pooling, again.bodies) == ("regions+time", "ordered")
    assert torch.equal(again(clips, valid=valid, owner=OWNER), own(clips, valid=valid, owner=OWNER))
    old = classifier("mean")
    old.save_pretrained(tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    description = json.loads(file.read_text())
    del description["config"]["bodies"]
    file.write_text(json.dumps(description))
    loaded = ActionClassifier.from_pretrained(tmp_path / "old")
    assert loaded.bodies == "mean"
    assert torch.equal(loaded(clips, owner=OWNER), old(clips, owner=OWNER))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="layout 'hand21' has no joint whose region is known"):
        ActionClassifier(model(layout=get_layout("hand21")), 3, pooling="regions")
    with pytest.raises(ValueError, match=r"unknown pooling 'region': .*did you mean 'regions'"):
        classifier("region")
    with pytest.raises(ValueError, match=r"unknown bodies 'order': .*did you mean 'ordered'"):
        classifier(bodies="order")
