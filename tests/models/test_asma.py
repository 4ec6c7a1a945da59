from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr import ASMaModel, SkeletonLayout, get_layout
from fastamr.data import apply_missing, synthetic_actions
from fastamr.models import build_model, count_flops, load_pretrained
from fastamr.models.parts import asymmetric_masking as masking
from fastamr.models.parts.joint_graph import JointGraph
from fastamr.testing import random_clips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.metrics.collapse import CollapseGuard

SMALL: dict[str, Any] = {
    "frames": 24,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "hidden": 4,
    "projector": 24,
    "align_depth": 1,
}
BACKBONES = ("stgcn", "transformer")
NTU = get_layout("ntu25")


def small(backbone: str, **options: Any) -> ASMaModel:
    torch.manual_seed(0)
    return ASMaModel(**{**SMALL, "backbone": backbone, **options})


# Masks


@pytest.mark.parametrize("central", [True, False])
def test_joints_are_hidden_in_proportion_to_their_degree(central: bool) -> None:
    """One hidden joint of 25 follows the degrees, or their inverses, within four standard errors."""
    draws = 20000
    seen = masking.draw_joints(
        torch.tensor([3, 0]),
        draws,
        JointGraph(NTU, "spatial").degrees(torch.arange(25)),
        24,
        central=central,
        valid=None,
    )
    hidden = draws - torch.bincount(seen.flatten(), minlength=25).double()
    degrees = torch.tensor(NTU.degrees, dtype=torch.float64)
    weights = degrees if central else 1 / degrees
    share = weights / weights.sum()
    error = (hidden / draws - share) / (share * (1 - share) / draws).sqrt()
    assert error.abs().max() < 4


def test_eight_joints_without_replacement() -> None:
    model = ASMaModel(projector=8)
    assert (model.config.kept_joints, model.config.kept_times) == (17, 42)
    masks = model.split_masks(model.choose_visible(random_clips(500, 52)))
    degrees = torch.tensor(NTU.degrees, dtype=torch.float32)
    for view in masks.values():
        assert (view.joints.diff(dim=1) > 0).all()
        assert (view.times.diff(dim=1) > 0).all()
    left = {view: degrees[masks[view].joints].mean() for view in "ab"}
    assert left["a"] < degrees.mean() < left["b"]


def test_frame_motion_by_hand() -> None:
    """Squared steps of 1, 4 and 9 over one joint and one of two coordinates; the last frame takes the one before."""
    place = torch.tensor([0.0, 1.0, 3.0, 6.0])
    clips = torch.stack([place, torch.zeros(4)], dim=1)[None, :, None]
    motion, known = masking.frame_motion(clips)
    torch.testing.assert_close(motion, torch.tensor([[0.5, 2.0, 4.5, 4.5]]))
    assert known.all()
    torch.testing.assert_close(masking.frame_motion(clips, 2)[0], torch.tensor([[1.25, 4.5]]))
    both = clips.repeat(1, 1, 2, 1) * torch.tensor([1.0, 2.0])[:, None]
    valid = torch.ones(1, 4, 2, dtype=torch.bool)
    valid[0, 2, 1] = False
    valid[0, 0, :] = False
    motion, known = masking.frame_motion(both, valid=valid)
    torch.testing.assert_close(motion, torch.tensor([[0.0, 2.0, 4.5, 4.5]]))
    assert known.tolist() == [[False, True, True, True]]
    assert masking.frame_motion(clips[:, :1])[0].tolist() == [[0.0]]


def test_the_views_miss_the_stillest_and_the_most_moving_frames() -> None:
    motion = torch.tensor([[3.0, 1.0, 5.0, 2.0, 4.0, 1.0]])
    known = torch.ones_like(motion, dtype=torch.bool)
    assert masking.rank_times(motion, known, 4, still=True).tolist() == [[0, 2, 3, 4]]
    assert masking.rank_times(motion, known, 4, still=False).tolist() == [[0, 1, 3, 5]]
    known[0, 4] = False
    assert masking.rank_times(motion, known, 5, still=True).tolist() == [[0, 1, 2, 3, 5]]
    assert masking.rank_times(motion, known, 5, still=False).tolist() == [[0, 1, 2, 3, 5]]
    assert masking.rank_times(motion * 0, known | True, 4, still=False).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_times_of_the_views_are_complementary(backbone: str) -> None:
    """Hiding half each, what one view misses the other sees."""
    model = small(backbone, masked_times=0.5)
    masks = model.split_masks(model.choose_visible(random_clips(6, 24)))
    units = 24 if backbone == "stgcn" else 6
    together = torch.cat([masks["a"].times, masks["b"].times], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(units).expand(6, -1))


def test_missing_joints_and_frames_are_hidden_first() -> None:
    clips, valid = random_clips(40, 24), torch.ones(40, 24, 25, dtype=torch.bool)
    valid[:, :, [4, 20]] = False
    valid[:, 10:13] = False
    masks = masking.draw_masks(
        torch.tensor([1, 0]),
        clips,
        JointGraph(NTU, "spatial").degrees(torch.arange(25)),
        joints=17,
        times=19,
        valid=valid,
    )
    for view in masks.values():
        assert not torch.isin(view.joints, torch.tensor([4, 20])).any()
        assert not torch.isin(view.times, torch.tensor([9, 10, 11, 12])).any()


# Model


@pytest.mark.parametrize("backbone", BACKBONES)
def test_loss_is_the_sum_of_four_barlow_twins_losses(backbone: str) -> None:
    model, clips = small(backbone, redundancy_weight=0.01), random_clips(7, 24)
    out = model(clips, return_details=True)
    assert out.prediction.shape == (7, 6, 24)
    expected = torch.zeros(())
    for view, streams in zip("ab", out.prediction.chunk(2, dim=1), strict=True):
        scaled = (streams - streams.mean(0)) / (streams.var(0, correction=0) + 1e-5).sqrt()
        for place, stream in ((1, "spatial"), (2, "temporal")):
            correlation = torch.einsum("si,sj->ij", scaled[:, 0], scaled[:, place]) / 7
            on = (1 - correlation.diagonal()).square().sum()
            off = correlation.square().sum() - correlation.diagonal().square().sum()
            torch.testing.assert_close(out.terms[f"invariance/{view}_{stream}"], on)
            torch.testing.assert_close(out.terms[f"redundancy/{view}_{stream}"], off)
            expected = expected + on + 0.01 * off
    torch.testing.assert_close(out.loss, expected)
    spread = {f"{kind}/encoder_{view}" for kind in ("std", "rank") for view in "ab"}
    assert len(out.terms) == 12
    assert spread < set(out.terms)
    assert all(term.shape == () and term.dtype == torch.float32 for term in out.terms.values())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_streams_see_what_their_masks_say(backbone: str) -> None:
    """In evaluation mode, spoiling what a stream does not see leaves its projection; the anchor's changes."""
    model, clips = small(backbone).eval(), random_clips(3, 24)
    keep = model.choose_visible(clips, seed=torch.tensor([1, 0]))
    masks = model.split_masks(keep)
    unit = model.config.time_unit
    prediction = model(clips, keep=keep, return_details=True).prediction
    for place, view in enumerate("ab"):
        joint_seen = torch.zeros(3, 1, 25, dtype=torch.bool).scatter(2, masks[view].joints[:, None], True)
        time_seen = torch.zeros(3, 24 // unit, dtype=torch.bool).scatter(1, masks[view].times, True)
        time_seen = time_seen.repeat_interleave(unit, 1)[..., None]
        for stream, seen in ((1, joint_seen), (2, time_seen)):
            spoiled = torch.where(seen[..., None], clips, 5.0)
            found = model(spoiled, keep=keep, return_details=True).prediction
            torch.testing.assert_close(found[:, 3 * place + stream], prediction[:, 3 * place + stream])
            anchor = prediction[:, 3 * place]
            assert (found[:, 3 * place] - anchor).norm() > 0.01 * anchor.norm()


@pytest.mark.parametrize("partition", ["uniform", "distance", "spatial"])
def test_gradient_reaches_every_parameter_of_the_graph_network(partition: str) -> None:
    model = small("stgcn", partition=partition, align_depth=0)
    model(random_clips(4, 24)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_alignment_starts_as_identity_and_learns_with_a_classifier(backbone: str) -> None:
    model, clips = small(backbone).eval(), random_clips(3, 24)
    model(clips).backward()
    assert all(parameter.grad is None for parameter in model.encoder.align.parameters())
    tokens = model.encode(clips)
    assert tokens.shape == (3, 150, 32)
    own = torch.cat([model.encoder.views[view](clips) for view in "ab"], dim=-1)
    assert torch.equal(tokens, own)
    weights = torch.randn(32)
    optimizer = torch.optim.SGD(model.encoder.align.parameters(), lr=0.1)
    for _ in range(2):  # the inner layers get a gradient once the last ones are no longer zero
        optimizer.zero_grad()
        (model.encode(clips) @ weights).mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.encoder.align.parameters())
    assert not torch.allclose(model.encode(clips)[..., :16], own[..., :16])
    assert not torch.allclose(model.encode(clips)[..., 16:], own[..., 16:])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_invalid_coordinates_have_no_effect(backbone: str) -> None:
    model, clips = small(backbone), random_clips(4, 24)
    valid = torch.ones(4, 24, 25, dtype=torch.bool)
    valid[:, :, [4, 9]] = False
    valid[0, 5:9, 2] = False
    valid[3] = False
    results = []
    for filler in (0.0, math.nan):
        spoiled = torch.where(valid[..., None], clips, filler)
        model.zero_grad()
        loss = model(spoiled, seed=torch.tensor([2, 0]), valid=valid)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        model.eval()
        results.append((loss.detach(), model.features(spoiled, valid=valid).detach(), *gradients))
        model.train().load_state_dict(small(backbone).state_dict())
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
    assert all(torch.isfinite(value).all() for value in results[0])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_invalid_tokens_do_not_count_in_the_mean(backbone: str) -> None:
    """The anchor of a half-seen clip is the mean over its seen tokens, of each stream over its own."""
    model, clips = small(backbone).eval(), random_clips(2, 24)
    valid = torch.ones(2, 24, 25, dtype=torch.bool)
    valid[:, :9] = False
    clips = torch.where(valid[..., None], clips, 0)
    encoder = model.encoder.views["a"]
    tokens, mask = encoder.stream(clips, valid)
    assert tokens.shape == (2, 150, 16)
    assert torch.equal(mask, torch.arange(150).expand(2, -1) >= 75)
    keep = model.choose_visible(clips, valid=valid)
    out = model(clips, keep=keep, valid=valid, return_details=True)
    torch.testing.assert_close(out.prediction[:, 0], model.projectors["a"](tokens[:, 75:].mean(1)))
    valid[1, :, 5] = False
    joints = torch.tensor([[0, 5], [5, 6]])
    mask = encoder.stream(clips, valid, joints=joints)[1].view(2, 6, 2)
    assert mask.sum(1).tolist() == [[3, 3], [0, 3]]
    valid[1, :, 5] = valid[1, :, 6]
    times = torch.arange(8, 18) if backbone == "stgcn" else torch.arange(1, 4)
    mask = encoder.stream(clips, valid, times=times.expand(2, -1))[1]
    seen = [False, True, True] if backbone == "stgcn" else [False, False, True]
    assert mask.view(2, 3, 25).all(2).tolist() == [seen, seen]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_round_trip_of_another_layout(backbone: str, tmp_path: Path) -> None:
    layout = SkeletonLayout("chain", ("root", "mid", "tip"), (-1, 0, 1))
    model = small(backbone, layout=layout, channels=2)
    clips, seed = random_clips(4, 24, 3, 2), torch.tensor([1, 0])
    model(clips).backward()  # moves the running statistics, which must come back too
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert type(loaded) is ASMaModel
    assert loaded.config == model.config
    assert torch.equal(loaded(clips, seed=seed), model(clips, seed=seed))
    assert torch.equal(loaded.eval().features(clips), model.eval().features(clips))


def test_the_step_is_one_graph() -> None:
    """Traced whole, with the graph network on one stream only: its six times ten blocks take long."""
    torch.compiler.reset()
    model, clips, seed = small("transformer"), random_clips(6, 24), torch.tensor([1, 0])
    traced = torch.compile(model, backend="eager", fullgraph=True)(clips, seed=seed)
    with fastamr.backend(transformer_stack="reference"):  # tracing takes plain blocks
        torch.testing.assert_close(traced, model(clips, seed=seed))
    encoder = small("stgcn").encoder.views["a"]
    joints, valid = torch.arange(17).expand(6, -1), torch.ones(6, 24, 25, dtype=torch.bool)
    tokens, mask = torch.compile(encoder.stream, backend="eager", fullgraph=True)(clips, valid, joints=joints)
    torch.testing.assert_close(tokens, encoder.stream(clips, valid, joints=joints)[0])
    assert mask.all()


def test_decay_groups_spare_norms_and_count_everything() -> None:
    model = small("transformer")
    decayed, free = model.parameter_groups(1e-5)
    names = {id(p): name for name, p in model.named_parameters()}
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    assert all(names[id(p)].endswith("weight") and p.ndim > 1 for p in decayed["params"])
    assert {"encoder.views.a.embed.time_embed", "projectors.b.1.weight"} < {
        names[id(p)] for p in free["params"]
    }


def test_a_micro_batch_has_its_own_statistics_and_two_sequences() -> None:
    model, clips, seed = small("transformer"), random_clips(8, 24), torch.tensor([1, 0])
    keep = model.choose_visible(clips, seed=seed)
    whole = model(clips, keep=keep)
    halves = [model(part, keep=mask) for part, mask in zip(clips.chunk(2), keep.chunk(2), strict=True)]
    assert abs(whole - sum(halves) / 2) > 0.05 * whole
    with pytest.raises(ValueError, match=r"clips holds 1 sequences: .* at least 2 .*accumulate"):
        model(clips[:1])


def test_cost_of_the_transformer_counts_all_streams() -> None:
    """150 tokens whole, 17 joints of 6 patches, 5 patches of 25 joints; the alignment takes no part."""
    embedding, block, projector = 12 * 16, 16 * (48 + 16 + 2 * 64), 24 * (16 + 24 + 24)
    products = 2 * ((150 + 17 * 6 + 25 * 5) * (embedding + block) + 3 * projector)
    assert count_flops(small("transformer"), bodies=1) == 2 * products
    assert count_flops(small("stgcn"), bodies=1) == 2 * 2 * 3 * projector


def test_the_balance_of_the_loss_follows_the_projector() -> None:
    assert ASMaModel(hidden=4, width=16, projector=24).criterion.weight == pytest.approx(2e-4 * 256)
    assert small("stgcn", redundancy_weight=0.3).criterion.weight == 0.3
    assert ASMaModel.Config().balance == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"backbone": "stgc"}, "did you mean 'stgcn'"),
        ({"partition": "distanc"}, "did you mean 'distance'"),
        ({"patch_frames": 2}, "patch_frames=2 must be 4 with backbone='stgcn'"),
        ({"masked_joints": 1.0}, "masked_joints=1.0 must be a share"),
        ({"masked_times": 0.0}, "masked_times=0.0 must be a share"),
        ({"backbone": "transformer", "frames": 4}, "masked_times=0.2 cannot hide a part of 1"),
        ({"layout": SkeletonLayout("point", ("p",), (-1,))}, "masked_joints=0.32 cannot hide a part of 1"),
        ({"projector": 0}, "projector=0 must be at least 1"),
        ({"align_depth": -1}, "align_depth=-1 must be at least 0"),
        ({"redundancy_weight": -1.0}, "redundancy_weight=-1.0 must be zero or more"),
    ],
)
def test_wrong_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_model("asma", options)


def test_wrong_keep() -> None:
    model, clips = small("stgcn"), random_clips(3, 24)
    keep = model.choose_visible(clips)
    with pytest.raises(ValueError, match=r"expected \(3, 72\): take it from choose_visible"):
        model(clips, keep=keep[:, 1:])
    for place, value, match in ((0, 25, "joints .* 25, expected 0 to 24"), (17, 24, "expected 0 to 23")):
        wrong = keep.clone()
        wrong[0, place] = value
        with pytest.raises(ValueError, match=match):
            model(clips, keep=wrong)


@pytest.fixture(scope="module")
def motion() -> Tensor:
    data = apply_missing(synthetic_actions(40, seed=0), ["center"])
    sampler = ClipSampler(data, 24, min_frames=16, crop=(1.0, 1.0), max_angle=0.0)
    return sampler(torch.arange(16), torch.tensor([0, 0]))[0]


@pytest.mark.parametrize(("backbone", "updates"), [("stgcn", 25), ("transformer", 40)])
def test_streams_come_to_agree_without_collapse(motion: Tensor, backbone: str, updates: int) -> None:
    """Equal features of two streams correlate nearly fully, different ones less than at first; the guard is silent."""
    model = small(backbone, projector=12, align_depth=0)
    optimizer = torch.optim.AdamW(model.parameter_groups(0.0), lr=1e-2)
    sums: list[dict[str, Tensor]] = []
    for update in range(updates):
        out = model(motion, seed=torch.tensor([1, update]), return_details=True)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        sums.append(
            {
                kind: sum(value for name, value in out.terms.items() if name.startswith(kind))
                for kind in ("invariance", "redundancy")
            }
        )
    last = {kind: sum(each[kind] for each in sums[-5:]) / 5 for kind in sums[0]}
    assert last["invariance"] < 4 * 12 * 0.1
    assert last["redundancy"] < 0.75 * sums[0]["redundancy"]
    assert CollapseGuard(16).check({name: value.item() for name, value in out.terms.items()}) == []
