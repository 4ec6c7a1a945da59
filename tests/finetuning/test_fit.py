"""The update of a classifier: the losses of a plain loop, whatever shape its batches are given."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastamr.data import PackedSkeletons
from fastamr.evaluation import FinetuneConfig, finetune, labelled_split
from fastamr.features.clip_batches import ClipBatches
from fastamr.finetuning.fitting.classifier_step import Fit, FitSettings, build_optimizer
from fastamr.finetuning.fitting.fit import fit_classifier
from fastamr.finetuning.fitting.labelled_clips import LabelledClips, LabelOrder
from fastamr.finetuning.fitting.learner import Learner, cross_entropy, head_logits
from fastamr.finetuning.fitting.plain import PlainFit
from fastamr.models import ActionClassifier, build_model

from ..training.update.graphs import ReplayedCalls

QUICK = FinetuneConfig(
    epochs=3, batch_size=5, lr=5e-3, hidden=32, dropout=0.0, drop_path=0.0, min_frames=4, max_angle=0.1
)


@pytest.fixture
def data(make_data: Any) -> PackedSkeletons:
    return make_data(clips=45, lengths=(5, 9, 12))


def masked(data: PackedSkeletons) -> PackedSkeletons:
    generator = torch.Generator().manual_seed(0)
    return dataclasses.replace(data, valid=torch.rand(data.coords.shape[:2], generator=generator) > 0.2)


def small_model(data: PackedSkeletons, name: str = "amr", **more: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": 2, "heads": 2}
    if name == "amr":
        sizes |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "target_patches": 1}
    return build_model(name, layout=data.layout, frames=8, **sizes, **more)


def fit(
    data: PackedSkeletons,
    recipe: FinetuneConfig,
    model: Any = None,
    bodies: str = "existing",
    **settings: Any,
) -> Fit:
    """A fit on the training clips of the split; every one of the same recipe starts from the same weights."""
    model = small_model(data) if model is None else model
    torch.manual_seed(3)
    classifier = ActionClassifier(copy.deepcopy(model), 3, **recipe.head())
    clips = labelled_split(data, "official")[0].nonzero()[:, 0]
    batches = ClipBatches(data, model.frames, bodies)
    return Fit(classifier, batches, clips, data.labels, recipe, 3, None, FitSettings(**settings))


def losses(one: Fit, updates: int | None = None) -> list[float]:
    return [one.step().item() for _ in range(one.total if updates is None else updates)]


def check_alike(one: nn.Module, other: nn.Module) -> None:
    """The same matrices: biases before a BatchNorm, or of keys, have gradient 0 and follow rounding alone."""
    found, wanted = (
        torch.cat([value.flatten() for value in each.parameters() if value.ndim > 1]) for each in (one, other)
    )
    assert (found - wanted).norm() < 1e-2 * wanted.norm()


@pytest.mark.parametrize(
    ("mask", "more", "bodies", "expected"),
    [
        (False, {}, "existing", 0.937242),
        (False, {}, "field", 0.930614),
        (False, {"hidden": 0}, "existing", 1.278695),
        (True, {}, "existing", 1.429311),
        (True, {"hidden": 0}, "field", 1.035604),
    ],
)
def test_losses_are_those_of_the_loop_of_before(
    data: PackedSkeletons, mask: bool, more: dict[str, Any], bodies: str, expected: float
) -> None:
    """What version 0.9's loop of its own gave."""
    data = masked(data) if mask else data
    recipe = dataclasses.replace(QUICK, **more)
    halves = labelled_split(data, "official")
    found = finetune(small_model(data), data, halves, recipe, seed=3, bodies=bodies).train_loss
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"hidden": 0, "label_smoothing": 0.0},
        {"dropout": 0.3, "drop_path": 0.2},
        {"pooling": "regions", "bodies": "ordered"},
    ],
)
def test_updates_are_those_of_a_plain_loop(data: PackedSkeletons, mask: bool, more: dict[str, Any]) -> None:
    data = masked(data) if mask else data
    recipe = dataclasses.replace(QUICK, **more)
    one = fit(data, recipe)
    plain = PlainFit(
        copy.deepcopy(one.model.classifier),
        ClipBatches(data, 8),
        one.order.clips,
        data.labels,
        recipe,
        seed=3,
    )
    torch.manual_seed(8)
    wanted = [plain().item() for _ in range(one.total)]
    torch.manual_seed(8)
    assert losses(one) == pytest.approx(wanted, rel=1e-2)
    check_alike(one.model.classifier, plain.classifier)


@pytest.mark.parametrize(
    ("mask", "more", "bodies"),
    [
        (False, {}, "existing"),
        (True, {}, "field"),
        (False, {"hidden": 0}, "field"),
        (True, {"mixup": 0.8}, "existing"),
        (True, {"batch_size": 8}, "existing"),
        (True, {"pooling": "regions", "bodies": "ordered"}, "existing"),
        (False, {"pooling": "mean+max", "mixup": 0.8}, "existing"),
    ],
)
def test_a_recorded_update_computes_the_same(
    data: PackedSkeletons, mask: bool, more: dict[str, Any], bodies: str
) -> None:
    """Its batches are filled up to one shape: with bodies and clips that count nowhere."""
    data = masked(data) if mask else data
    recipe = dataclasses.replace(QUICK, **more)
    eager = fit(data, recipe, bodies=bodies)
    recorder = ReplayedCalls()
    recorded = fit(data, recipe, bodies=bodies, recorder=recorder)
    recorder.parameters = tuple(recorded.model.parameters())
    assert losses(recorded) == pytest.approx(losses(eager), rel=1e-2)
    assert recorded.step.graph_reason is None
    assert recorder.eager == 3
    assert recorder.recorded == 1
    assert recorder.launched == recorded.total - 3
    check_alike(recorded.model, eager.model)


def test_batches_hold_each_clip_once_an_epoch_and_all_its_bodies(data: PackedSkeletons) -> None:
    batches = ClipBatches(data, 8)
    clips = labelled_split(data, "official")[0].nonzero()[:, 0]
    order = LabelOrder(clips, QUICK, seed=1)
    assert int(order.sizes.sum()) == len(clips)
    assert order.sizes.max() == 5
    assert order.sizes.min() >= 4
    for processes in (1, 3):
        parts = [
            LabelledClips(batches, order, data.labels, QUICK, static=False, rank=rank, processes=processes)
            for rank in range(processes)
        ]
        for update in range(2 * order.per_epoch):
            drawn = []
            for part in parts:
                part.advance(update)
                drawn.append(part.draw(torch.tensor(update), torch.tensor([4, update])))
            wanted, owner = batches.bodies(order.batch(update))
            assert torch.equal(torch.cat([part.bodies(update) for part in parts]), wanted)
            assert torch.equal(torch.cat([each.owner for each in drawn]), owner)
            assert all(torch.equal(each.labels, data.labels[order.batch(update)]) for each in drawn)
            assert [each.rows[1] for each in drawn] == [len(wanted)] * processes
            assert drawn[-1].rows[0] + len(drawn[-1].clips) == len(wanted)
        seen = torch.cat([order.batch(update) for update in range(order.per_epoch)])
        assert torch.equal(seen.sort().values, clips)
    again = LabelOrder(clips, QUICK, seed=1)
    assert torch.equal(again.epoch(2), order.epoch(2))
    assert torch.equal(again.epoch(0), order.epoch(0))
    assert not torch.equal(order.epoch(0), order.epoch(1))


def test_clips_are_augmented_and_follow_seed_and_update(data: PackedSkeletons) -> None:
    one = fit(data, dataclasses.replace(QUICK, crop=(0.7, 0.9)))
    sampler = one.stream.sampler
    assert (sampler.crop, sampler.min_frames, sampler.max_angle) == ((0.7, 0.9), 4, 0.1)
    drawn = [one.stream.draw(torch.tensor(0), torch.tensor(seed)).clips for seed in ([1, 0], [1, 0], [1, 1])]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])
    assert one.step.seed.tolist() == [3, 0]
    losses(one, 2)
    assert one.step.seed.tolist() == [3, 2]


@pytest.mark.parametrize("flat", [False, True])
def test_bodies_without_depth_stay_so_for_an_encoder_that_tells_them(
    data: PackedSkeletons, flat: bool
) -> None:
    coords = data.coords.clone()
    coords[..., 2] = 0
    one = fit(dataclasses.replace(data, coords=coords), QUICK, small_model(data, flat_embedding=flat))
    clips = one.stream.draw(torch.tensor(0), torch.tensor([1, 0])).clips
    assert bool((clips[..., 2] == 0).all()) == flat


def test_learning_rates_follow_warmup_cosine_and_layers(data: PackedSkeletons) -> None:
    recipe = dataclasses.replace(QUICK, epochs=4, batch_size=12, lr=1e-2, min_lr=1e-3, warmup_epochs=1)
    one = fit(data, recipe)
    seen = []
    for _ in range(one.total):
        one.step()
        seen.append([float(group["lr"]) for group in one.step.optimizer.param_groups])
    # 22 or 23 clips make two batches: two updates of warm-up, then six of the cosine down to min_lr.
    head = [rates[-1] for rates in seen]
    assert len(head) == 8
    assert head[:2] == pytest.approx([5e-3, 1e-2])
    assert head[4] == pytest.approx((1e-2 + 1e-3) / 2)
    assert head[-1] == pytest.approx(1e-3)
    assert seen[1][0] == pytest.approx(1e-2 * 0.8**3)  # two blocks, so the embedding is three layers below


def test_groups_that_share_a_rate_need_one_factor(data: PackedSkeletons) -> None:
    one = fit(data, QUICK)
    groups = one.step.optimizer.param_groups
    groups[0]["lr"] = groups[-1]["lr"]
    with pytest.raises(ValueError, match=r"lr_scale .* shares its learning rate"):
        one.step()


def test_mixup_lerps_features_and_losses(data: PackedSkeletons) -> None:
    one = fit(data, dataclasses.replace(QUICK, mixup=0.8, hidden=0))
    batch = one.stream.draw(torch.tensor(0), torch.tensor([3, 0]))
    classifier = one.model.classifier.eval()
    features = classifier.features(batch.clips, valid=batch.valid, owner=batch.owner)
    share, other = batch.share, batch.partner
    assert share is not None
    assert other is not None
    assert 0 < share < 1
    assert sorted(other.tolist()) == list(range(len(batch.labels)))
    logits = classifier.head(share * features + (1 - share) * features[other])
    expected = share * classifier.loss(logits, batch.labels)
    expected = expected + (1 - share) * classifier.loss(logits, batch.labels[other])
    torch.testing.assert_close(Learner(classifier).eval()(batch), expected)
    before = float(share)
    one.stream.advance(one.order.per_epoch)
    assert one.stream.draw(torch.tensor(one.order.per_epoch), torch.tensor([3, 0])).share != before


def test_clips_that_only_fill_up_count_nowhere() -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).train()
    padded = copy.deepcopy(head)
    features, labels = torch.randn(5, 6), torch.tensor([0, 2, 1, 1, 0])
    junk = torch.full((2, 6), 1e4)
    counted = torch.tensor([1.0] * 5 + [0.0] * 2)
    whole = head_logits(head, features)
    found = head_logits(padded, torch.cat([features, junk]), counted)
    torch.testing.assert_close(found[:5], whole)
    for name, value in head.state_dict().items():
        torch.testing.assert_close(padded.state_dict()[name], value)
    full_labels = torch.cat([labels, torch.tensor([0, 0])])
    one = cross_entropy(whole, labels, 0.1)
    other = cross_entropy(found, full_labels, 0.1, counted)
    torch.testing.assert_close(other, one)
    gradients = [torch.autograd.grad(loss, net[0].weight)[0] for loss, net in ((one, head), (other, padded))]
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("recorded", [False, True])
def test_low_precision_learns_as_float32_does(data: PackedSkeletons, precision: str, recorded: bool) -> None:
    exact = losses(fit(data, QUICK), 4)
    recorder = ReplayedCalls() if recorded else None
    one = fit(data, QUICK, precision=precision, recorder=recorder)
    # Under float16 the first updates are left out, until the scale of the loss has found its size.
    count = 4 if precision == "bfloat16" else 1
    assert losses(one, 4)[:count] == pytest.approx(exact[:count], rel=0.1)
    assert one.step.dtype == getattr(torch, precision)
    assert next(one.model.parameters()).dtype == torch.float32
    assert one.step.optimizer.working_dtype == one.step.dtype


def test_an_encoder_of_batch_statistics_is_never_filled_up(data: PackedSkeletons) -> None:
    model = build_model("asma", layout=data.layout, frames=8, width=8, depth=1, heads=2, projector=8)
    recorder = ReplayedCalls()
    one = fit(data, QUICK, model, recorder=recorder)
    assert not one.stream.static
    losses(one, 5)
    assert recorder.recorded == 0
    with pytest.raises(ValueError, match="graph 'on', but the encoder 'asma' normalises"):
        fit(data, QUICK, model, recorder=recorder, graph="on")


def test_a_graph_that_is_demanded_needs_a_gpu(data: PackedSkeletons) -> None:
    with pytest.raises(ValueError, match="graph 'on', but the model is on the cpu"):
        fit(data, QUICK, graph="on")


@pytest.mark.parametrize("recorded", [False, True])
def test_skipping_leaves_everything_as_it_was(
    data: PackedSkeletons, monkeypatch: Any, recorded: bool
) -> None:
    """Weights, moments and the running statistics of the head."""
    one = fit(data, QUICK, on_nan="skip", recorder=ReplayedCalls() if recorded else None)
    losses(one, 5)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    moments = [value.clone() for state in one.step.optimizer.state.values() for value in state.values()]
    forward = Learner.forward
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "forward", lambda self, *rest: forward(self, *rest) * float("nan"))
        assert one.step().isnan()
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    now = [value for state in one.step.optimizer.state.values() for value in state.values()]
    assert all(torch.equal(value, old) for value, old in zip(now, moments, strict=True))
    assert one.step().isfinite()
    assert one.update == 7


def test_a_loss_that_is_not_finite_names_its_clips(data: PackedSkeletons, monkeypatch: Any) -> None:
    def broken(self: Learner, batch: Any, seed: Any = None) -> Tensor:
        return next(self.parameters()).sum() * float("nan")

    monkeypatch.setattr(Learner, "forward", broken)
    model = small_model(data)
    classifier = ActionClassifier(model, 3, **QUICK.head())
    clips = labelled_split(data, "official")[0].nonzero()[:, 0]
    with pytest.raises(
        FloatingPointError, match=r"the loss became nan at update 1; its clips: .*; lower lr=0.005"
    ):
        fit_classifier(classifier, ClipBatches(data, 8), clips, data.labels, QUICK)
    many, skip = dataclasses.replace(QUICK, epochs=10), FitSettings(on_nan="skip")
    with pytest.raises(FloatingPointError, match=r"20 updates in a row were skipped, up to update 20"):
        fit_classifier(classifier, ClipBatches(data, 8), clips, data.labels, many, settings=skip)


def test_the_optimizer_has_a_rate_for_each_layer(data: PackedSkeletons) -> None:
    classifier = ActionClassifier(small_model(data), 3, **QUICK.head())
    extra = nn.Linear(2, 2)
    optimizer = build_optimizer(classifier, QUICK, list(extra.parameters()))
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert scales[0] == pytest.approx(0.8**3)
    assert scales[-1] == 1
    assert optimizer.param_groups[-1]["params"] == list(extra.parameters())
    assert len({id(group["lr"]) for group in optimizer.param_groups}) == len(scales)


def test_a_batch_of_one_body_has_drop_path_too(make_data: Any) -> None:
    one_body = make_data(clips=24, bodies=(1,), lengths=(5, 9))
    recipe = dataclasses.replace(QUICK, batch_size=1, hidden=0, drop_path=0.5, epochs=1)
    one = fit(one_body, recipe)
    plain = PlainFit(
        copy.deepcopy(one.model.classifier),
        ClipBatches(one_body, 8),
        one.order.clips,
        one_body.labels,
        recipe,
        3,
    )
    assert losses(one) == pytest.approx([plain().item() for _ in range(one.total)], rel=1e-2)


@pytest.mark.parametrize("free", [1 << 40, 1 << 10])
def test_the_memory_that_is_needed_is_said_before(
    free: int, data: PackedSkeletons, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastamr.finetuning.fitting.fit.free_memory", lambda device: free)
    said: list[str] = []
    halves = labelled_split(data, "official")
    kept = copy.deepcopy(torch.get_rng_state())
    finetune(small_model(data), data, halves, dataclasses.replace(QUICK, epochs=1), progress=said.append)
    assert said[0].startswith("memory: ")
    assert "model with moments" in said[0]
    assert ", an update " in said[0]
    warned = [line for line in said if line.startswith("warning: the run is likely to run out of memory")]
    assert len(warned) == (free < 1 << 20)
    assert all("smaller --recipe.batch-size, --precision bfloat16" in line for line in warned)
    # Asking changes nothing: the run without a listener ends the same.
    torch.set_rng_state(kept)
    quiet = finetune(small_model(data), data, halves, dataclasses.replace(QUICK, epochs=1))
    torch.set_rng_state(kept)
    told = finetune(
        small_model(data), data, halves, dataclasses.replace(QUICK, epochs=1), progress=said.append
    )
    assert quiet.train_loss == told.train_loss
