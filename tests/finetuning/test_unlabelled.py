"""Clips without a label in a distillation: which, when, and what they teach."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.data.to_body import as_body, source_layout
from fastamr.features.clip_batches import ClipBatches
from fastamr.finetuning import distill as distill_module
from fastamr.finetuning.distill import distill
from fastamr.finetuning.distill_config import DistillConfig, StudentConfig, StudentRecipe
from fastamr.finetuning.distill_loss import DistillationLoss, Teaching, feature_loss, reading, soft_label_loss
from fastamr.finetuning.fitting.classifier_step import Fit, FitSettings
from fastamr.finetuning.fitting.labelled_clips import LabelledClips, LabelOrder
from fastamr.finetuning.fitting.unlabelled import MixedOrder, Unlabelled
from fastamr.finetuning.gathering import gather_data, labelled_halves, taught_clips
from fastamr.models import ActionClassifier, build_model
from fastamr.training.update.step import PretrainStep

from ..models.body.sets import pack
from ..training.update.graphs import ReplayedCalls

pytest.importorskip("sklearn")
RECIPE = {"epochs": 3, "batch_size": 4, "lr": 5e-3, "min_frames": 4, "max_angle": 0.1, "label_smoothing": 0.0}
SIZES = {"width": 8, "depth": 1, "heads": 2}
SMALL = SIZES | {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "target_patches": 1}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder of an encoder of layout ``body``."""
    torch.manual_seed(0)
    build_model("amr", layout="body", frames=8, **SMALL).save_pretrained(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file of another layout, without the split."""
    data = dataclasses.replace(pack("sbu15", seed=4, clips=7), splits={})
    data.save(tmp_path / "other.safetensors")
    return tmp_path / "other.safetensors"


def asked(run: Path, out: Path, *, recipe: dict[str, Any] | None = None, **more: Any) -> DistillConfig:
    return DistillConfig(
        teacher=str(run), data=["x"], out=str(out), student=SIZES, recipe=RECIPE | (recipe or {}), device="cpu",
        latency=False, checkpoint_every=1, **more,
    )  # fmt: skip


def fit_of(
    run: Path, data: PackedSkeletons, settings: FitSettings, other: Path, **more: Any
) -> tuple[Fit, Any]:
    """A student that learns beside its teacher, with unlabelled clips of another layout."""
    config = asked(
        run, run / "out", unlabelled_data=[str(other)], unlabelled_rest=True, label_share=0.6, **more
    )
    torch.manual_seed(3)
    encoder = build_model("amr", layout="body", frames=8, **SMALL)
    gathered = gather_data(encoder, config, [], data)
    teacher = ActionClassifier(
        encoder, 2, pooling="mean", hidden=0, source=source_layout(gathered.data)
    ).eval()
    taught = taught_clips(teacher, config, [], gathered, labelled_halves(config, gathered))
    recipe = StudentRecipe(**RECIPE)
    student = ActionClassifier(
        StudentConfig(**SIZES).build(encoder), 2, **recipe.head(), source=source_layout(gathered.data)
    )
    objective = Teaching(student, teacher, unlabelled=True, temperature=2.0, soft=0.5, feature=0.2)
    fit = Fit(
        student, ClipBatches(taught.data, 8), taught.train, taught.labels, recipe, 3, objective, settings,
        taught.unlabelled,
    )  # fmt: skip
    return fit, reading(taught.data, student, teacher)


class TestOrder:
    def test_labelled_clips_are_those_without_and_each_pass_holds_each_other_once(self) -> None:
        labelled, others = torch.arange(11), torch.arange(100, 117)
        recipe = StudentRecipe(batch_size=4)
        plain = LabelOrder(labelled, recipe, seed=5)
        mixed = MixedOrder(labelled, recipe, 5, Unlabelled(others, 0.6))
        assert mixed.each == 6  # beside 4 labelled ones
        assert mixed.per_epoch == plain.per_epoch
        seen = []
        for update in range(40):
            batch = mixed.batch(update)
            assert torch.equal(batch[: -mixed.each], plain.batch(update))
            assert len(batch) == mixed.sizes[update % mixed.per_epoch]
            seen += batch[-mixed.each :].tolist()
        passes = [seen[first : first + 17] for first in range(0, len(seen) - 16, 17)]
        assert len(passes) == 14
        assert all(sorted(one) == others.tolist() for one in passes)
        assert len({tuple(one) for one in passes}) == len(passes)

    def test_follows_from_seed_and_update_alone(self) -> None:
        made = [MixedOrder(torch.arange(9), StudentRecipe(batch_size=4), seed, Unlabelled(torch.arange(9, 40), 0.5))
                for seed in (1, 1, 2)]  # fmt: skip
        for update in (30, 2, 17, 3):
            assert torch.equal(made[0].batch(update), made[1].batch(update))
            made[1].batch(25)
        assert any(not torch.equal(made[0].batch(u)[-4:], made[2].batch(u)[-4:]) for u in range(3))

    @pytest.mark.parametrize(
        ("share", "count", "expected"), [(0.5, 40, 8), (0.75, 40, 24), (0.01, 40, 1), (0.9, 5, 5)]
    )
    def test_share_of_a_batch(self, share: float, count: int, expected: int) -> None:
        assert Unlabelled(torch.arange(count), share).beside(8) == expected

    def test_processes_share_the_batch(self) -> None:
        data = pack("ntu25", clips=20)
        order = MixedOrder(torch.arange(7), StudentRecipe(**RECIPE), 0, Unlabelled(torch.arange(7, 20), 0.5))
        labels = torch.where(torch.arange(20) < 7, data.labels, -1)
        batches, recipe = ClipBatches(data, 8), StudentRecipe(**RECIPE)
        parts = [
            LabelledClips(batches, order, labels, recipe, static=True, rank=rank, processes=2)
            for rank in range(2)
        ]
        for update in range(4):
            for part in parts:
                part.advance(update)
            bodies = torch.cat([part.bodies(update) for part in parts])
            assert torch.equal(bodies, order.batch(update))  # one body a clip
            drawn = parts[1].draw(torch.tensor(update), torch.tensor([0, update]))
            assert torch.equal(drawn.labels[: len(bodies)], labels[order.batch(update)])


class TestLoss:
    def test_unlabelled_clips_learn_from_the_teacher_alone(self) -> None:
        torch.manual_seed(0)
        loss = DistillationLoss(5, 6, temperature=3.0, soft=0.4, feature=0.3, label_smoothing=0.1)
        logits, features = torch.randn(6, 4), torch.randn(6, 5)
        teacher, wanted = torch.randn(6, 4), torch.randn(6, 6)
        labels = torch.tensor([1, 0, -1, 3, -1, 0])
        known = labels >= 0
        hard = torch.nn.functional.cross_entropy(logits[known], labels[known], label_smoothing=0.1)
        rest = 0.4 * soft_label_loss(logits, teacher, 3.0)
        rest = rest + 0.3 * feature_loss(loss.projection(features), wanted)  # type: ignore[misc]
        found = loss(logits, features, labels, teacher, wanted, labelled=known)
        torch.testing.assert_close(found, 0.6 * hard + rest)
        # Filled up to a fixed shape: the last clip counts nowhere.
        counted = torch.tensor([1.0, 1, 1, 1, 1, 0])
        short = loss(logits[:5], features[:5], labels[:5], teacher[:5], wanted[:5], labelled=known[:5])
        filled = loss(logits, features, labels, teacher, wanted, counted, known)
        torch.testing.assert_close(filled, short)

    def test_a_recorded_update_computes_the_same(
        self, run: Path, other: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Student and teacher mask the joints that a clip lacks: shapes are fixed, nothing is read back."""
        data = pack("ntu25", clips=18)
        found = []
        for recorder in (None, ReplayedCalls()):
            fit, taken = fit_of(run, data, FitSettings(recorder=recorder), other)
            if recorder is not None:
                recorder.parameters = tuple(fit.model.parameters())
            with taken, monkeypatch.context() as patch:
                patch.setattr(torch.Tensor, "unique", _reads_back)
                found.append([fit.step().item() for _ in range(fit.total)])
        assert found[1] == pytest.approx(found[0], rel=1e-2)
        assert fit.step.graph_reason is None

    def test_masks_are_the_joints_of_each_clip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With fixed shapes a sequence is encoded as among its like."""
        torch.manual_seed(1)
        model = build_model("skeleton_mae", layout="body", frames=8, width=16, depth=2, heads=2,
                            decoder_width=8, decoder_depth=1, decoder_heads=2).eval()  # fmt: skip
        sets = [as_body(pack(layout, clips=3)) for layout in ("ntu25", "sbu15")]
        clips = torch.cat([one.coords.view(3, 12, 39, 3)[:, :8] for one in sets]).float()
        valid = torch.cat([one.valid.view(3, 12, 39)[:, :8] for one in sets])  # type: ignore[union-attr]
        with torch.no_grad():
            grouped = model.encode(clips, valid=valid)
            model.fixed_shapes = True
            monkeypatch.setattr(torch.Tensor, "unique", _reads_back)
            torch.testing.assert_close(model.encode(clips, valid=valid), grouped, rtol=1e-4, atol=1e-5)
        assert (grouped[3:] == 0).all(2).sum() > (grouped[:3] == 0).all(2).sum()


class TestDistill:
    def test_few_labels_the_rest_and_another_file(
        self, run: Path, other: Path, tmp_path: Path, capsys: Any
    ) -> None:
        data = pack("ntu25", clips=18)
        data.labels[1] = -1
        more = {"label_share": 0.5, "label_seed": 3, "unlabelled_rest": True, "unlabelled_data": [str(other)]}
        report = distill(asked(run, tmp_path / "out", **more), data=data)
        # 12 training clips, 11 with a label; half of these, 3 of each class, count.
        assert report["clips"] == {"train": 6, "test": 6, "unlabelled": 6 + 7}
        printed = capsys.readouterr().out
        assert (
            "6 of 11 labelled training clips teach by their label, 13 clips without one (6 of the data, 7 of other "
            "files); 6 test clips"
        ) in printed
        assert "6 training and 6 test clips, 13 without a label" in printed
        assert "left out" not in printed
        student = ActionClassifier.from_pretrained(tmp_path / "out")
        assert student.training_data["clips"] == 6
        assert student.source is not None
        assert student.source.name == "ntu25"
        # The same labels alone: no unlabelled clip has touched the baseline.
        plain = distill(asked(run, tmp_path / "plain", label_share=0.5, label_seed=3), data=data, quiet=True)
        runs = [one["results"]["labels"]["runs"][0]["train_loss"] for one in (report, plain)]
        assert runs[0] == runs[1]
        distilled = [one["results"]["distilled"]["runs"][0]["train_loss"] for one in (report, plain)]
        assert distilled[0] != distilled[1]

    def test_labels_of_unlabelled_clips_and_test_clips_have_no_effect(
        self, run: Path, other: Path, tmp_path: Path
    ) -> None:
        """Other labels there, and other motion in the test half: the students are the same to the bit."""
        data, more = pack("ntu25", clips=18), {"label_share": 0.5, "unlabelled_rest": True}
        changed = copy.deepcopy(data)
        test = changed.splits["official"].test
        rows = test[changed.body_clip].repeat_interleave(changed.offsets.diff())
        changed.coords[rows] = changed.coords[rows] + 1.0
        half = torch.arange(7) < 4
        first = dataclasses.replace(pack("sbu15", seed=4, clips=7), splits={"official": Split(half, ~half)})
        second = copy.deepcopy(first)
        second.labels = 1 - second.labels
        second.coords[second.offsets[4] :] += 1.0
        losses = []
        for name, own, file in (("one", data, first), ("two", changed, second)):
            file.save(tmp_path / f"{name}.safetensors")
            config = asked(
                run, tmp_path / name, unlabelled_data=[str(tmp_path / f"{name}.safetensors")], **more
            )
            report = distill(config, data=own, quiet=True)
            assert report["clips"]["unlabelled"] == 6 + 4
            losses.append(
                [report["results"][kind]["runs"][0]["train_loss"] for kind in ("distilled", "labels")]
            )
        assert losses[0] == losses[1]

    def test_goes_on_to_the_bit(self, run: Path, other: Path, tmp_path: Path) -> None:
        data = pack("ntu25", clips=18)
        more = {"unlabelled_data": [str(other)], "unlabelled_share": 0.4}
        whole = distill(asked(run, tmp_path / "whole", **more), data=data, quiet=True)
        step = PretrainStep.__call__

        def until(self: PretrainStep, *inputs: Any) -> Any:
            if self.update == 5:
                raise RuntimeError("cut short")
            return step(self, *inputs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PretrainStep, "__call__", until)
            with pytest.raises(RuntimeError, match="cut short"):
                distill(asked(run, tmp_path / "cut", **more), data=data, quiet=True)
        assert (tmp_path / "cut" / "students" / "distilled-0" / "state.safetensors").exists()
        with pytest.raises(ValueError, match="cannot resume: unlabelled was"):
            distill(asked(run, tmp_path / "cut", resume=True), data=data, quiet=True)
        with pytest.raises(ValueError, match="cannot resume: labels was None and is now"):
            distill(asked(run, tmp_path / "cut", resume=True, label_share=0.5, **more), data=data, quiet=True)
        report = distill(asked(run, tmp_path / "cut", resume=True, **more), data=data, quiet=True)
        for kind in distill_module.KINDS:
            one, two = (each["results"][kind]["runs"][0] for each in (report, whole))
            assert (one["train_loss"], one["accuracy"]) == (two["train_loss"], two["accuracy"])

    def test_another_layout_is_refused_where_the_teacher_is_not_of_body(
        self, other: Path, tmp_path: Path
    ) -> None:
        data = pack("ntu25", clips=18)
        build_model("amr", layout="ntu25", frames=8, **SMALL).save_pretrained(tmp_path / "own")
        config = asked(tmp_path / "own", tmp_path / "out", unlabelled_data=[str(other)])
        with pytest.raises(
            ValueError,
            match=r"unlabelled_data other.safetensors has layout 'sbu15', the teacher reads 'ntu25'.*body",
        ):
            distill(config, data=data, quiet=True)
        pack("ntu25", seed=8, clips=5).save(tmp_path / "like.safetensors")
        config = asked(tmp_path / "own", tmp_path / "like", unlabelled_data=[str(tmp_path / "like.safetensors")],
                       recipe={"epochs": 1})  # fmt: skip
        assert distill(config, data=data, quiet=True)["clips"]["unlabelled"] == 3

    def test_key_points_of_images_teach_a_teacher_of_three_channels(self, run: Path, tmp_path: Path) -> None:
        flat = pack("coco17", seed=6, clips=5)
        flat = dataclasses.replace(flat, coords=flat.coords[..., :2].contiguous())
        config = asked(run, tmp_path / "out", unlabelled_data=["flat"], recipe={"epochs": 1})
        report = distill(config, data=pack("ntu25", clips=18), unlabelled=[flat], quiet=True)
        assert report["clips"]["unlabelled"] == 3
        assert any("flat: 2-D" in note for note in report["notes"])

    def test_clips_of_both_are_named(self, run: Path, tmp_path: Path, capsys: Any) -> None:
        data = pack("ntu25", clips=18)
        turned = dataclasses.replace(data, splits={"official": Split(*reversed(_halves(data)))})
        turned.save(tmp_path / "again.safetensors")
        config = asked(
            run, tmp_path / "out", unlabelled_data=[str(tmp_path / "again.safetensors")], recipe={"epochs": 1}
        )
        warnings = distill(config, data=data)["warnings"]
        assert any("test clips may be trained on" in line for line in warnings)
        assert "test clips may be trained on" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"unlabelled_share": 1.0}, "unlabelled_share=1.0 must be above 0 and below 1"),
            ({"label_share": 0.0}, "label_share=0.0 must be above 0 and at most 1"),
            ({"label_seed": -1}, "label_seed=-1 must be zero or more"),
        ],
    )
    def test_wrong_settings(self, tmp_path: Path, more: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            asked(tmp_path, tmp_path, **more)

    def test_no_rest_is_refused(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(
            ValueError, match=r"all 12 training clips have a label that counts: lower label_share"
        ):
            distill(
                asked(run, tmp_path / "out", unlabelled_rest=True), data=pack("ntu25", clips=18), quiet=True
            )


def _reads_back(*_: Any, **__: Any) -> Any:
    raise AssertionError("shapes that depend on the clips")


def _halves(data: PackedSkeletons) -> tuple[torch.Tensor, torch.Tensor]:
    split = data.splits["official"]
    return split.train, split.test
