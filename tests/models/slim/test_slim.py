from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastamr import SLiMModel
from fastamr.models import ActionClassifier, load_pretrained
from fastamr.models.parts.masking import token_validity
from fastamr.reference import self_distillation as plain
from fastamr.skeleton import SkeletonLayout, get_layout
from fastamr.testing import random_clips
from fastamr.training import AdamW, PretrainStep
from fastamr.training.setup import check_spreads

SMALL = {
    "frames": 24,
    "patch_frames": 4,
    "width": 32,
    "depth": 1,
    "heads": 2,
    "prototypes": 40,
    "head_hidden": 24,
    "bottleneck": 16,
    "patch_targets": 5,
    "local_crops": 3,
}
SEED = torch.tensor([5, 0])


def small(**options: object) -> SLiMModel:
    torch.manual_seed(0)
    return SLiMModel(**{**SMALL, **options})


def moved(model: SLiMModel) -> SLiMModel:
    """A teacher that is no longer the student."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def holes(sequences: int = 4) -> Tensor:
    valid = torch.ones(sequences, 24, 25, dtype=torch.bool)
    valid[:, :, 4] = False  # the left shoulder, whose mirror image is seen
    valid[0, 5:9, 2] = False
    return valid


def test_the_papers_size() -> None:
    model = SLiMModel("ntu25", prototypes=64)
    config = model.config
    assert (config.frames, config.patch_frames, config.tokens, config.tubes) == (64, 8, 200, 10)
    assert (len(model.encoder.blocks), config.crop_frames, config.views) == (8, 16, 10)
    assert model.encoder.registers.shape == (1, 4, 256)
    # 8 blocks of a plain transformer hold 6.3 million weights.
    blocks = sum(parameter.numel() for parameter in model.encoder.blocks.parameters())
    assert 6.3e6 < blocks < 6.4e6


@pytest.mark.parametrize("with_holes", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_views": 1},
        {"local_crops": 0},
        {"summary": "mean"},
        {"class_weight": 0.3, "patch_weight": 2.0, "koleo_weight": 0.7},
        {"student_temperature": 0.3, "teacher_temperature": 0.04, "sinkhorn_rounds": 1},
    ],
)
def test_loss_is_the_papers_sum(options: dict, with_holes: bool) -> None:
    """The three losses in their plain form, of tokens that are computed view by view, in float64."""
    model = moved(small(**options)).double().eval()
    config, clips = model.config, random_clips(4, 24).double()
    valid = holes() if with_holes else None
    out = model(clips, seed=SEED, valid=valid, return_details=True)
    prepared = model.prepare(clips, valid)[0]
    draws = model.view_maker.split(out.keep)
    views = model.view_maker(prepared, valid, draws)
    targets = draws.targets.flatten(0, 1)
    rows = torch.arange(len(targets))[:, None]
    hidden, known = views.hidden[rows, targets], torch.ones_like(targets, dtype=torch.bool)
    if views.known is not None:
        known = views.known[rows, targets]
    counted = (hidden & known).flatten()

    def scores(holder: object, clips: Tensor, mask: Tensor | None, seen: Tensor | None) -> tuple[Tensor, ...]:
        first, tokens = holder.encoder.with_class(clips, mask)
        if config.summary == "mean":
            shown = torch.ones(tokens.shape[:2], dtype=torch.bool) if seen is None else seen
            shown = shown if mask is None else shown & ~mask
            first = torch.stack([row[part].mean(0) for row, part in zip(tokens, shown, strict=True)])
        picked = tokens[rows, targets].flatten(0, 1) if len(tokens) == len(rows) else tokens[:, 0]
        return first, holder.head(first)[1], holder.head(picked)[1]

    _, class_teacher, patch_teacher = scores(model.teacher, views.whole, None, views.known)
    first, class_student, patch_student = scores(model, views.whole, views.hidden, views.known)
    by_view = [class_student.view(4, config.global_views, -1)]
    if views.local is not None:
        crops = scores(model, views.local, None, views.known_local)[1]
        by_view.append(crops.view(4, config.local_crops, -1))
    settings = config.teacher_temperature, config.student_temperature
    rounds = {"rounds": config.sinkhorn_rounds}
    class_targets = plain.sinkhorn_targets(class_teacher, settings[0], **rounds)
    patch_targets = plain.sinkhorn_targets(patch_teacher, settings[0], **rounds, counted=counted)
    by_class = plain.class_loss(
        torch.cat(by_view, dim=1), class_targets.view(4, config.global_views, -1), settings[1]
    )
    by_patch = plain.patch_loss(patch_student, patch_targets, settings[1], counted)
    koleo = torch.stack([plain.koleo_loss(view) for view in first.view(4, config.global_views, -1).unbind(1)])
    expected = (
        config.class_weight * by_class + config.patch_weight * by_patch + config.koleo_weight * koleo.mean()
    )
    torch.testing.assert_close(out.loss, expected, rtol=1e-9, atol=0)
    terms = {"class": by_class, "patch": by_patch, "koleo": koleo.mean()}
    torch.testing.assert_close(
        {name: out.terms[name] for name in terms}, {k: v.detach() for k, v in terms.items()}
    )
    spread = {f"{kind}/{name}" for kind in ("std", "rank") for name in ("encoder", "teacher")}
    assert set(out.terms) == {*terms, *spread}
    gradients = [
        torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for loss in (out.loss, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


def test_the_student_sees_nothing_of_what_is_hidden_and_the_teacher_all() -> None:
    model = moved(small(bone_scale=0.0, mirror=0.0, local_crops=0)).eval()
    clips = random_clips(3, 24)
    keep = model.choose_visible(clips, seed=SEED)
    hidden = model.view_maker(clips, None, model.view_maker.split(keep)).hidden.unflatten(0, (3, -1))
    both = hidden.all(1).view(3, 6, 25).repeat_interleave(4, 1)
    assert both.any()
    spoiled = torch.where(both[..., None], clips + 1, clips)
    one, other = (model(x, keep=keep, return_details=True) for x in (clips, spoiled))
    assert torch.equal(one.prediction, other.prediction)
    assert not torch.equal(one.terms["patch"], other.terms["patch"])
    assert not torch.equal(one.terms["class"], other.terms["class"])


class TestTeacher:
    def test_starts_as_the_student_and_follows_it_slowly(self) -> None:
        model, clips = small(teacher_momentum=0.75), random_clips(3, 24)
        names = [name for name, _ in model.encoder.named_parameters()]
        before = {name: model.teacher.encoder.get_buffer(name).clone() for name in names}
        for name, parameter in model.encoder.named_parameters():
            assert torch.equal(before[name], parameter)
        model(clips)
        assert all(torch.equal(before[name], model.teacher.encoder.get_buffer(name)) for name in names)
        moved(model)
        model(clips)
        model.eval()(clips)
        with torch.no_grad():
            model.train()(clips)
        for name, parameter in model.encoder.named_parameters():
            expected = 0.75 * before[name] + 0.25 * parameter.detach()
            torch.testing.assert_close(model.teacher.encoder.get_buffer(name), expected)
        head = model.head.prototypes.weight, model.teacher.head.prototypes.weight
        assert not torch.equal(*head)

    def test_is_trained_by_nobody_and_saved(self, tmp_path) -> None:
        model = small()
        assert not [name for name, _ in model.named_parameters() if name.startswith("teacher")]
        trained = {name.partition(".")[2] for name, _ in model.encoder.named_parameters()}
        saved = model.state_dict()
        assert {f"teacher.encoder.{name}" for name, _ in model.encoder.named_parameters()} <= set(saved)
        assert trained
        moved(model)
        for _ in range(2):
            model(random_clips(2, 24))
        model.save_pretrained(tmp_path)
        again = load_pretrained(tmp_path)
        torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert not torch.equal(again.teacher.head.mlp[0].weight, again.head.mlp[0].weight)

    def test_stays_behind_in_a_copy_too(self) -> None:
        import copy

        model = small()
        other = copy.deepcopy(model)
        moved(other)
        other(random_clips(2, 24))
        assert not torch.equal(other.teacher.head.mlp[0].weight, model.teacher.head.mlp[0].weight)

    def test_stays_as_it_is_in_an_update_that_is_left_out(self) -> None:
        model = moved(small())
        optimizer = AdamW(model.parameter_groups(0.05), lr=1e-3)
        step = PretrainStep(
            model,
            optimizer,
            skip_not_finite=True,
            graph=False,
        )
        clips = random_clips(4, 24)
        step(clips)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with torch.no_grad():
            bias = model.head.mlp[4].bias
            kept = bias.clone()
            bias.fill_(torch.nan)
        assert step(clips).isnan()
        with torch.no_grad():
            bias.copy_(kept)
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
        step(clips)
        assert not torch.equal(
            before["teacher.head.mlp.0.weight"], model.state_dict()["teacher.head.mlp.0.weight"]
        )

    def test_a_classifier_leaves_it_behind(self, tmp_path) -> None:
        classifier = ActionClassifier(small(), 3, hidden=0)
        names = set(classifier.inference_state())
        assert not [name for name in names if "teacher" in name or "mask_token" in name]
        assert not [name for name in names if name.startswith("encoder.head")]
        assert {"encoder.encoder.class_token", "encoder.encoder.embed.proj.weight"} <= names
        classifier.eval().save_pretrained(tmp_path)
        clips = random_clips(2, 24)
        assert torch.equal(ActionClassifier.from_pretrained(tmp_path)(clips), classifier(clips))


class TestViews:
    def test_tubes_are_regions_of_the_body_over_half_the_clip(self) -> None:
        model, clips = small(), random_clips(300, 24)
        layout = get_layout("ntu25")
        draws = model.view_maker.split(model.choose_visible(clips, seed=SEED))
        hidden = model.view_maker(clips, None, draws).hidden.view(-1, 2, 3, 25)
        assert (hidden == hidden[:, :, :1]).all(), "all patches of a half alike"
        hidden = hidden[:, :, 0]
        for region in (
            ("base_of_spine", "middle_of_spine", "neck", "head", "spine"),
            ("left_hip", "left_knee", "left_ankle", "left_foot"),
            ("right_shoulder", "right_elbow", "right_wrist", "right_hand", "right_thumb"),
        ):
            joints = [layout.index(joint) for joint in region]
            assert (hidden[..., joints] == hidden[..., joints[:1]]).all(), region
        count = draws.tubes.sum(-1).float()
        assert (count.min(), count.max()) == (5, 9)
        assert 6.8 < count.mean() < 7.2
        assert not torch.equal(draws.tubes[:, 0], draws.tubes[:, 1])

    def test_tokens_of_the_loss_are_hidden_and_known(self) -> None:
        model = small(mirror=0.5)
        valid = holes()
        clips = model.prepare(random_clips(4, 24), valid)[0]
        draws = model.view_maker.split(model.choose_visible(clips, seed=SEED, valid=valid))
        views = model.view_maker(clips, valid, draws)
        rows = torch.arange(8)[:, None]
        targets = draws.targets.flatten(0, 1)
        assert 0 < draws.mirrored[:, :2].sum() < 8
        assert (views.hidden & views.known)[rows, targets].all()
        # A mirrored body lacks the other shoulder.
        lacking = (~views.known).view(4, 2, 6, 25).all(2)
        expected = torch.where(draws.mirrored[:, :2] == 1, 8, 4)
        assert torch.equal(lacking.nonzero()[:, 2].view(4, 2), expected)

    def test_each_sequence_has_its_own_draw_wherever_it_lies(self) -> None:
        model, clips = small(), random_clips(6, 24)
        valid = holes(6)
        whole = model.choose_visible(clips, seed=SEED, valid=valid)
        assert len({tuple(row.tolist()) for row in whole}) == 6
        shifted = torch.tensor([5, 0, 3])
        part = model.choose_visible(clips[3:], seed=shifted, valid=valid[3:])
        assert torch.equal(whole[3:], part)
        later = model.choose_visible(clips, seed=torch.tensor([5, 1]), valid=valid)
        assert not torch.equal(whole, later)

    def test_bones_change_by_what_was_drawn_and_keep_their_direction(self) -> None:
        model = small(mirror=0.0, bone_scale=0.2)
        maker, layout, clips = model.view_maker, get_layout("ntu25"), random_clips(2, 24)
        draws = maker.split(model.choose_visible(clips, seed=SEED))
        whole = maker(clips, None, draws).whole.unflatten(0, (2, 2))
        mirror = {joint: joint for joint in range(25)}
        for left, right in layout.pairs:
            mirror |= {left: right, right: left}
        factors = []
        for joint, parent in layout.edges:
            old = (clips[:, :, joint] - clips[:, :, parent])[:, None]
            new = whole[:, :, :, joint] - whole[:, :, :, parent]
            own = draws.bones[:, :2, min(joint, mirror[joint])]
            factor = 1 + 0.2 * own / 2**15
            torch.testing.assert_close(new, old * factor[:, :, None, None], rtol=1e-3, atol=1e-4)
            factors.append(factor)
        root = whole[:, :, :, layout.root]
        assert torch.equal(root, clips[:, None, :, layout.root].expand_as(root))
        spread = torch.stack(factors)
        assert spread.min() >= 0.8
        assert spread.max() <= 1.2
        assert spread.std() > 0.08

    def test_a_mirrored_body_is_that_of_the_other_side(self) -> None:
        model = small(mirror=1.0, bone_scale=0.0)
        clips, layout = random_clips(2, 24), get_layout("ntu25")
        draws = model.view_maker.split(model.choose_visible(clips, seed=SEED))
        assert draws.mirrored.all()
        whole = model.view_maker(clips, None, draws).whole[0]
        left, right = layout.pairs[0]
        torch.testing.assert_close(whole[:, left], clips[0, :, right] * torch.tensor([-1.0, 1, 1]))
        torch.testing.assert_close(
            whole[:, layout.root], clips[0, :, layout.root] * torch.tensor([-1.0, 1, 1])
        )

    def test_a_layout_without_sides_is_not_mirrored(self) -> None:
        chain = SkeletonLayout("chain", ("root", "mid", "tip"), (-1, 0, 1))
        model, clips = small(layout=chain, mirror=1.0), random_clips(5, 24, 3)
        draws = model.view_maker.split(model.choose_visible(clips, seed=SEED))
        assert not draws.mirrored.any()
        assert model(clips).isfinite()

    def test_local_crops_are_windows_of_the_clip(self) -> None:
        model, clips = small(mirror=0.0, bone_scale=0.0, local_crops=8), random_clips(40, 24)
        draws = model.view_maker.split(model.choose_visible(clips, seed=SEED))
        local = model.view_maker(clips, None, draws).local.unflatten(0, (40, 8))
        assert local.shape[2] == 8 == model.config.crop_frames
        assert set(draws.starts.flatten().tolist()) == set(range(17))
        start = int(draws.starts[3, 5])
        assert torch.equal(local[3, 5], clips[3, start : start + 8])

    def test_what_is_missing_stays_zero_and_moves_no_bone(self) -> None:
        model = small(bone_scale=0.5, mirror=0.0)
        valid = holes(2)
        clips = model.prepare(random_clips(2, 24), valid)[0]
        draws = model.view_maker.split(model.choose_visible(clips, seed=SEED, valid=valid))
        whole = model.view_maker(clips, valid, draws).whole.unflatten(0, (2, 2))
        assert (whole[:, :, :, 4] == 0).all()
        # The elbow hangs on the missing shoulder: it goes with the joint above that.
        above = get_layout("ntu25").parents[4]
        shift = whole[:, 0, :, above] - clips[:, :, above]
        expected = clips[:, :, 5] + shift
        seen = valid[:, :, above]
        torch.testing.assert_close(whole[:, 0, :, 5][seen], expected[seen], rtol=1e-4, atol=1e-5)

    def test_a_keep_that_does_not_fit(self) -> None:
        model, clips = small(), random_clips(2, 24)
        keep = model.choose_visible(clips)
        with pytest.raises(ValueError, match=r"keep has shape \(2, 3\), expected \(2, \d+\): take it from"):
            model(clips, keep=keep[:, :3])
        wrong = keep.clone()
        wrong[0, 20] = 150  # the first of the targets
        with pytest.raises(ValueError, match=r"keep holds targets \d+ to 150, expected 0 to 149"):
            model(clips, keep=wrong)


def test_features_are_means_of_the_known_tokens() -> None:
    model, clips, valid = small(), random_clips(2, 24), holes(2)
    tokens = model.encode(clips, valid=valid)
    assert tokens.shape == (2, 150, 32)
    known = token_validity(valid, 4)
    expected = torch.stack([row[mask].mean(0) for row, mask in zip(tokens, known, strict=True)])
    torch.testing.assert_close(model.features(clips, valid=valid), expected)


def test_order_in_time_reaches_the_features_by_rotation_alone() -> None:
    """Without attention's rotation a clip and its patches in another order are one to the mean over the tokens."""
    model, clips = small().eval(), random_clips(2, 24)
    reversed_patches = clips.unflatten(1, (6, 4)).flip(1).flatten(1, 2)
    difference = (model.features(clips) - model.features(reversed_patches)).abs().max()
    model.encoder.rotation[0].fill_(1)
    model.encoder.rotation[1].fill_(0)
    still = (model.features(clips) - model.features(reversed_patches)).abs().max()
    assert still < 1e-5
    assert difference > 30 * still


def test_what_it_cannot_do_it_says() -> None:
    model = small()
    with pytest.raises(ValueError, match="recompute=True is for fused blocks"):
        model.set_recompute()
    with pytest.raises(ValueError, match="side_branch=True is for fused blocks"):
        model.set_side_branch()
    model.set_recompute(False)
    model.set_side_branch(False)
    with pytest.raises(ValueError, match="clips holds 1 sequences: SLiM compares them over a batch"):
        model(random_clips(1, 24))
    with pytest.raises(ValueError, match="model 'slim' compares the sequences of a batch"):
        check_spreads(model, 2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prototypes": 1}, "prototypes=1 must be at least 2"),
        ({"prototypes": 1 << 21}, "prototypes=2097152 is too large"),
        ({"teacher_momentum": 1.5}, "teacher_momentum=1.5 must lie in 0 to 1"),
        ({"teacher_temperature": 0.0}, "teacher_temperature=0.0 must be positive"),
        ({"koleo_weight": -0.1}, "koleo_weight=-0.1 must be zero or more"),
        ({"tube_ratio": (0.9, 0.5)}, r"tube_ratio=\(0.9, 0.5\) must be two shares"),
        ({"tube_ratio": (0.5, 1.0)}, "must be two shares"),
        ({"tube_frames": 6}, "tube_frames=6 must be whole patches of 4 frames"),
        ({"local_frames": 28}, "local_frames=28 must be whole patches of 4 frames and at most frames=24"),
        ({"global_views": 1, "local_crops": 0}, "leaves no second view to compare"),
        ({"width": 6, "heads": 2}, "leaves 3 features a head, expected an even number"),
        ({"flat_embedding": True}, "flat_embedding is of the models with learned times"),
        ({"blocks": "fused"}, "blocks='fused' is for plain blocks"),
        ({"summary": "median"}, "unknown summary 'median'"),
        ({"registers": -1}, "registers=-1 must be at least 0"),
        ({"bone_scale": 1.0}, "bone_scale=1.0 must lie in 0 to 0.9"),
    ],
)
def test_wrong_options(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        small(**options)
