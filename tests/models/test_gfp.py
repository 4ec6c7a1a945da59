from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastamr import GFPModel
from fastamr.nn import TransformerStack
from fastamr.testing import random_clips

SMALL = {
    "frames": 24,
    "width": 32,
    "depth": 1,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "levels": (2, 6),
    "target_width": 12,
    "target_hidden": 20,
    "global_hidden": 28,
}


def test_251_targets_at_the_papers_configuration() -> None:
    """Six, three and one window of 25 joints, and the clip; each target network sees its window's numbers."""
    model = GFPModel()
    assert model.config.level_names == ("level_5", "level_10", "level_30", "global")
    assert sum(model.config.level_rows) == 251
    sizes = [[layer.in_features for layer in network[::2]] for network in model.targets.networks]
    assert sizes == [[60, 512, 512], [120, 512, 512], [360, 512, 512], [9000, 2048, 2048]]
    assert [len(level.blocks) for level in model.decoder.levels] == [2, 2, 2, 2]


def test_targets_see_exactly_their_window_of_normalised_motion() -> None:
    model, clips = GFPModel(**SMALL), random_clips(2, 24)
    motion = torch.zeros_like(clips)
    motion[:, :-1] = clips[:, 1:] - clips[:, :-1]
    motion = (motion - motion.mean(1, keepdim=True)) / (motion.var(1, keepdim=True) + 1e-6).sqrt()
    features, counted = model.targets(clips)
    assert counted == [None, None, None]
    assert [feature.shape for feature in features] == [(2, 75, 12), (2, 25, 12), (2, 1, 12)]
    windows = motion[1, 8:16, 7].flatten()  # second window of two patches, joint 7
    torch.testing.assert_close(features[0][1, 25 + 7], model.targets.networks[0](windows))
    torch.testing.assert_close(features[1][1, 7], model.targets.networks[1](motion[1, :, 7].flatten()))
    torch.testing.assert_close(features[2][1, 0], model.targets.networks[2](motion[1].flatten()))


def test_the_pyramid_pools_time_then_everything() -> None:
    """With stages that pass their input on, the levels are plain means of the filled tokens."""
    model = GFPModel(**SMALL)
    tokens, keep = torch.randn(2, 3, 32), torch.tensor([[0, 60, 149], [5, 26, 100]])
    filled = model.decoder.fill(tokens, keep)
    position = (model.decoder.time_embed + model.decoder.joint_embed).flatten(0, 1)
    expected = model.decoder.mask_token[0, 0] + position
    torch.testing.assert_close(filled[1, 5], model.decoder.embed(tokens)[1, 0] + position[5])
    torch.testing.assert_close(filled[0, 1:60], expected[1:60])
    for level in model.decoder.levels:
        level.blocks = TransformerStack()
    grid = filled.view(2, 6, 25, 16)
    pooled = [grid.view(2, 3, 2, 25, 16).mean(2).flatten(1, 2), grid.mean(1), grid.mean((1, 2))[:, None]]
    for level, prediction, mean in zip(
        model.decoder.levels, model.decoder(tokens, keep), pooled, strict=True
    ):
        torch.testing.assert_close(prediction, level.head(level.norm(mean)))


def test_loss_is_the_papers_sum_over_levels() -> None:
    """``5 * L_pred + sum(5 * L_cov + 1 * L_var)`` with statistics by PyTorch's own functions."""
    model, clips = GFPModel(**SMALL), random_clips(5, 24)
    out = model(clips, return_details=True)
    expected, start = torch.zeros(()), 0
    for feature in model.targets(clips)[0]:
        prediction = out.prediction[:, start : start + feature.shape[1]]
        start += feature.shape[1]
        covariance = torch.cov(feature.flatten(0, 1).T)
        off = covariance - covariance.diagonal().diag()
        variance = (1 - (covariance.diagonal() + 1e-4).sqrt()).relu().mean()
        expected = (
            expected + 5 * (prediction - feature).square().mean() + 5 * off.square().sum() / 12 + variance
        )
    assert start == out.prediction.shape[1]
    torch.testing.assert_close(out.loss, expected)


def test_every_term_is_reported() -> None:
    out = GFPModel(**SMALL)(random_clips(5, 24), return_details=True)
    kinds = ("prediction", "covariance", "variance", "std", "rank")
    names = {f"{kind}/{level}" for kind in kinds for level in ("level_2", "level_6", "global")}
    assert set(out.terms) == names | {"std/encoder", "rank/encoder"}
    assert all(term.shape == () and term.dtype == torch.float32 for term in out.terms.values())
    assert all(1 <= out.terms[name] <= 32 for name in out.terms if name.startswith("rank/"))


def test_windows_without_any_known_motion_do_not_count() -> None:
    model, clips = GFPModel(**SMALL), random_clips(4, 24)
    valid = torch.ones(4, 24, 25, dtype=torch.bool)
    valid[0, :9, 3] = False  # motion of the first window is known nowhere, that of the clip from frame 9
    valid[2, :, 11] = False
    features, counted = model.targets(clips, valid)
    assert (~counted[0]).nonzero().tolist() == [[0, 3], [2, 11], [2, 36], [2, 61]]
    assert (~counted[1]).nonzero().tolist() == [[2, 11]]
    assert counted[2].all()

    def loss(clips: Tensor) -> Tensor:
        return model(clips, seed=torch.tensor([1, 0]), valid=valid)

    spoiled = torch.where(valid[..., None], clips, float("nan"))
    assert torch.equal(loss(clips), loss(spoiled))
    assert all(torch.isfinite(feature).all() for feature in features)


def test_the_targets_train_together_with_the_encoder() -> None:
    """No stop-gradient: with the prediction term alone the target networks still move."""
    model = GFPModel(**SMALL, covariance_weight=0.0, variance_weight=0.0)
    model(random_clips(3, 24)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.targets.parameters())


@pytest.mark.parametrize("levels", [(1,), (6,), (1, 3, 6), (2,)])
def test_other_levels(levels: tuple[int, ...]) -> None:
    model = GFPModel(**{**SMALL, "levels": levels})
    out = model(random_clips(3, 24), return_details=True)
    assert out.prediction.shape == (3, sum(6 // span * 25 for span in levels) + 1, 12)
    out.loss.backward()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"levels": (5, 12)},
            r"levels=\(5, 12\): each must divide .* 30 is divided by 1, 2, 3, 5, 6, 10, 15, 30",
        ),
        ({"levels": (5, 20)}, "the last the 30 time patches"),
        ({"levels": ()}, "levels="),
        ({"levels": (0, 5)}, "levels="),
        ({"target_width": 0}, "target_width=0 must be at least 1"),
        ({"variance_weight": -1.0}, "variance_weight=-1.0 must be zero or more"),
        ({"mask_tau": 0.0}, "mask_tau=0.0 must be positive"),
        ({"visible_rounding": "up"}, "unknown visible_rounding 'up'"),
    ],
)
def test_wrong_options(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GFPModel(**options)
