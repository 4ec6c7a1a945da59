from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fastamr.models import ActionClassifier, build_model
from fastamr.models.parts.pooling import average_bodies, mean_tokens
from fastamr.nn import DropPath, TransformerBlock
from fastamr.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout("chain3", ("root", "neck", "head"), (-1, 0, 1), ())
SMALL = {"frames": 8, "width": 8, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


def small(name: str = "amr", depth: int = 3, **options):
    torch.manual_seed(0)
    extra = {"target_patches": 1} if name == "amr" else {}
    return build_model(name, layout=LAYOUT, depth=depth, **SMALL, **extra, **options)


def clips(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 8, 3, 3, generator=torch.Generator().manual_seed(1))


class TestDropPath:
    def test_by_hand(self) -> None:
        x = torch.arange(12.0).reshape(4, 1, 3) + 1
        layer = DropPath(0.75)
        torch.manual_seed(3)
        draws = torch.rand(4, 1, 1)
        torch.manual_seed(3)
        expected = torch.stack(
            [row * 4 if draw >= 0.75 else row * 0 for row, draw in zip(x, draws, strict=True)]
        )
        assert torch.equal(layer(x), expected)

    def test_keeps_the_mean_and_whole_sequences(self) -> None:
        torch.manual_seed(0)
        y = DropPath(0.25)(torch.ones(20_000, 2))
        assert torch.equal(y[:, 0], y[:, 1])
        assert y.unique().tolist() == pytest.approx([0, 4 / 3])
        assert (y == 0).double().mean() == pytest.approx(0.25, abs=0.015)

    def test_is_the_identity_in_evaluation_and_at_rate_0(self) -> None:
        x = torch.randn(5, 2)
        assert DropPath(0.9).eval()(x) is x
        assert DropPath()(x) is x

    def test_wrong_rate(self) -> None:
        with pytest.raises(ValueError, match=r"rate=1.* below 1"):
            DropPath(1.0)

    def test_a_block_whose_branches_are_all_dropped_is_the_identity(self) -> None:
        block = TransformerBlock(8, 2)
        x = torch.randn(3, 4, 8)
        assert not torch.equal(block(x), x)
        block.drop_path.rate = 1 - 1e-12
        assert torch.equal(block(x), x)


class TestPooling:
    def test_tokens_by_hand(self) -> None:
        tokens = torch.tensor([[[1.0], [2.0], [6.0]], [[4.0], [5.0], [9.0]]])
        known = torch.tensor([[True, False, True], [False, False, False]])
        assert mean_tokens(tokens).tolist() == [[3.0], [6.0]]
        # Nothing known in the second: all of it counts.
        assert mean_tokens(tokens, known).tolist() == [[3.5], [6.0]]

    def test_bodies_by_hand(self) -> None:
        x = torch.tensor([[1.0, 0.0], [5.0, 2.0], [3.0, 4.0]])
        assert average_bodies(x, torch.tensor([1, 0, 1])).tolist() == [[5.0, 2.0], [2.0, 2.0]]

    @pytest.mark.parametrize(
        ("owner", "message"),
        [([0, 2, 2], "no body of clip 1"), ([0, 1], r"shape \(2,\).*expected \(3,\) int64")],
    )
    def test_wrong_owner(self, owner: list[int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            average_bodies(torch.zeros(3, 2), torch.tensor(owner))

    def test_joints_stand_side_by_side(self) -> None:
        model = small()
        classifier = ActionClassifier(model, 5).eval()
        tokens = model.encode(clips()).reshape(4, 2, 3, 8)
        expected = torch.stack([tokens[:, :, joint].mean(1) for joint in range(3)], 1).reshape(4, 24)
        torch.testing.assert_close(classifier.features(clips()), expected)

    def test_mean_equals_the_encoders_features(self) -> None:
        model = small()
        valid = torch.rand(4, 8, 3, generator=torch.Generator().manual_seed(2)) > 0.1
        classifier = ActionClassifier(model, 5, pooling="mean").eval()
        torch.testing.assert_close(
            classifier.features(clips(), valid=valid), model.features(clips(), valid=valid)
        )

    def test_a_token_with_missing_joints_does_not_count(self) -> None:
        model = small()
        classifier = ActionClassifier(model, 5).eval()
        valid = torch.ones(4, 8, 3, dtype=torch.bool)
        valid[:, 6, 1] = False  # the second time patch of joint 1
        tokens = model.encode(clips(), valid=valid).reshape(4, 2, 3, 8)
        features = classifier.features(clips(), valid=valid).reshape(4, 3, 8)
        torch.testing.assert_close(features[:, 1], tokens[:, 0, 1])
        torch.testing.assert_close(features[:, 0], tokens[:, :, 0].mean(1))

    def test_bodies_of_a_clip_are_averaged_before_the_head(self) -> None:
        classifier = ActionClassifier(small(), 5).eval()
        alone = classifier.features(clips(3))
        logits = classifier(clips(3), owner=torch.tensor([0, 1, 0]))
        expected = classifier.head(torch.stack([(alone[0] + alone[2]) / 2, alone[1]]))
        torch.testing.assert_close(logits, expected)


class TestParameterGroups:
    def groups(self, classifier: ActionClassifier) -> dict[str, tuple[float, float, int]]:
        groups = classifier.parameter_groups(0.05, lr=1.0, layer_decay=0.5)
        found = {id(p): (g["lr"], g["weight_decay"], g["layer"]) for g in groups for p in g["params"]}
        assert len(found) == sum(len(group["params"]) for group in groups)
        return {name: found[id(p)] for name, p in classifier.named_parameters() if id(p) in found}

    def test_by_hand(self) -> None:
        found = self.groups(ActionClassifier(small(depth=3), 5, hidden=4))
        assert found["encoder.encoder.embed.proj.weight"] == (0.0625, 0.05, 0)
        assert found["encoder.encoder.embed.time_embed"] == (0.0625, 0.0, 0)
        assert found["encoder.encoder.blocks.0.attn.qkv.weight"] == (0.125, 0.05, 1)
        assert found["encoder.encoder.blocks.1.norm1.weight"] == (0.25, 0.0, 2)
        assert found["encoder.encoder.blocks.2.mlp.fc2.bias"] == (0.5, 0.0, 3)
        assert found["encoder.encoder.norm.weight"] == (1.0, 0.0, 4)
        assert found["head.0.weight"] == (1.0, 0.05, 4)
        assert found["head.1.weight"] == (1.0, 0.0, 4)  # BatchNorm
        assert found["head.3.bias"] == (1.0, 0.0, 4)

    @pytest.mark.parametrize("name", ["amr", "skeleton_mae", "mamp"])
    def test_hold_the_encoder_and_the_head_and_nothing_else(self, name: str) -> None:
        classifier = ActionClassifier(small(name), 5)
        found = self.groups(classifier)
        expected = {
            name for name, _ in classifier.named_parameters() if not name.startswith("encoder.decoder")
        }
        assert set(found) == expected
        assert all(
            parameter.requires_grad == (name in found) for name, parameter in classifier.named_parameters()
        )

    def test_every_one_gets_a_gradient(self) -> None:
        classifier = ActionClassifier(small(), 5, drop_path=0.0)
        classifier.loss(classifier(clips()), torch.tensor([0, 1, 2, 3])).backward()
        for group in classifier.parameter_groups(0.05, lr=1.0):
            assert all(parameter.grad is not None for parameter in group["params"])

    def test_frozen_parameters_stay_out(self) -> None:
        model = small()
        model.encoder.embed.requires_grad_(False)
        found = self.groups(ActionClassifier(model, 5))
        assert not any("embed" in name for name in found)
        model.requires_grad_(False)
        assert all(name.startswith("head.") for name in self.groups(ActionClassifier(model, 5)))

    def test_layer_decay_out_of_range(self) -> None:
        with pytest.raises(ValueError, match=r"layer_decay=1.5 must be above 0 and at most 1"):
            ActionClassifier(small(), 5).parameter_groups(0.05, lr=1.0, layer_decay=1.5)


def test_drop_path_grows_with_depth_and_spares_the_decoder() -> None:
    classifier = ActionClassifier(small("skeleton_mae", depth=4), 5, drop_path=0.3)
    rates = [block.drop_path.rate for block in classifier.encoder.encoder.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    others = [
        module.rate
        for name, module in classifier.named_modules()
        if isinstance(module, DropPath) and not name.startswith("encoder.encoder.")
    ]
    assert others
    assert set(others) == {0.0}


def test_label_smoothing_by_hand() -> None:
    classifier = ActionClassifier(small(), 3, label_smoothing=0.3)
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    labels = torch.tensor([1, 0])
    log = logits.log_softmax(1)
    expected = -(0.7 * log[[0, 1], labels] + 0.1 * log.sum(1)).mean()
    torch.testing.assert_close(classifier.loss(logits, labels), expected)


def test_the_state_round_trips_and_building_leaves_the_encoder_alone() -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    first = ActionClassifier(model, 5).train()
    assert model.training
    first(clips())
    for name, value in before.items():
        assert torch.equal(value, model.state_dict()[name])
    second = ActionClassifier(small(), 5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(clips()), second.eval()(clips()))


def test_building_does_not_move_batch_statistics() -> None:
    class WithBatchNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = small().config
            self.norm = nn.BatchNorm1d(9)
            self.linear = nn.Linear(9, 6)

        def encode(self, clips: torch.Tensor, *, valid: torch.Tensor | None = None) -> torch.Tensor:
            rows = self.norm(clips.flatten(2).flatten(0, 1)).reshape(len(clips), 8, 9)
            return self.linear(rows)

        parameter_groups = small().parameter_groups.__func__

    encoder = WithBatchNorm()
    with pytest.raises(
        ValueError, match=r"tokens of 3 joints, the encoder makes 8 tokens: use pooling='mean'"
    ):
        ActionClassifier(encoder, 4)  # type: ignore[arg-type]
    classifier = ActionClassifier(encoder, 4, pooling="mean")  # type: ignore[arg-type]
    assert encoder.norm.num_batches_tracked == 0
    assert classifier.depth == 0
    assert {group["layer"] for group in classifier.parameter_groups(0.0, lr=1.0)} == {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "unknown pooling 'max'"),
        ({"classes": 1}, "classes=1 must be at least 2"),
        ({"hidden": -1}, "hidden=-1 must be a width"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and at most 0.99"),
        ({"drop_path": -0.1}, "drop_path=-0.1 must be"),
        ({"label_smoothing": 1.5}, "label_smoothing=1.5 must be"),
    ],
)
def test_wrong_arguments(options: dict, message: str) -> None:
    build: Callable[..., ActionClassifier] = ActionClassifier
    with pytest.raises(ValueError, match=message):
        build(small(), **({"classes": 3} | options))
