from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fastamr.cli import main
from fastamr.commands.models import finetune as finetune_command
from fastamr.data import PackedSkeletons, Split
from fastamr.evaluation import FinetuneConfig, labelled_split
from fastamr.finetuning import classifier as classifier_module
from fastamr.finetuning import distill as distill_module
from fastamr.finetuning.classifier import ClassifierConfig, accuracy_of, prepare_data, train_classifier
from fastamr.finetuning.command import shell_command
from fastamr.finetuning.distill import distill
from fastamr.finetuning.distill_config import DistillConfig, StudentConfig, StudentRecipe
from fastamr.finetuning.distill_report import format_report
from fastamr.finetuning.model_cost import cpu_latency
from fastamr.models import ActionClassifier, build_model
from fastamr.skeleton import SkeletonLayout
from fastamr.training import interrupt

pytest.importorskip("sklearn")

LAYOUT = SkeletonLayout("chain3", ("root", "neck", "head"), (-1, 0, 1), ())
STUDENT = {"width": 8, "depth": 1, "heads": 2}
QUICK = {
    "epochs": 30,
    "batch_size": 16,
    "lr": 1e-2,
    "min_frames": 4,
    "label_smoothing": 0.0,
    "max_angle": 0.1,
}


def make_data(clips: int = 48) -> PackedSkeletons:
    """Three classes by where the head is; one or two bodies a clip."""
    generator = np.random.default_rng(0)
    arrays = []
    for place in range(clips):
        pose = np.array([[0, 0, 0], [0, 0.5, 0], [0.4 * (place % 3), 1, 0]])
        shape = (8 + place % 5, 1 + place % 2, 3, 3)
        arrays.append((pose + 0.02 * generator.standard_normal(shape)).astype(np.float32))
    train = torch.arange(clips) % 4 != 0
    return PackedSkeletons.from_clips(
        arrays,
        layout=LAYOUT,
        labels=[place % 3 for place in range(clips)],
        label_names=("left", "middle", "right"),
        splits={"official": Split(train, ~train)},
    )


@pytest.fixture
def run(tmp_path):
    """A folder of an encoder whose clips are centred."""
    model = build_model(
        "amr", layout=LAYOUT, frames=8, width=16, depth=2, heads=2, decoder_width=8, decoder_depth=1,
        decoder_heads=2, target_patches=1,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"steps": ["center"]}))
    return tmp_path / "run"


def settings(teacher, out, **more) -> DistillConfig:
    recipe = QUICK | more.pop("recipe", {})
    options = {"student": STUDENT, "recipe": recipe, "device": "cpu", "latency": False} | more
    return DistillConfig(teacher=teacher, data=["unused"], out=out, **options)


class TestDistill:
    def test_end_to_end(self, run, tmp_path, capsys) -> None:
        out, data = tmp_path / "out", make_data()
        report = distill(settings(run, out, seeds=[3, 4], latency=True), data=data)
        assert json.loads((out / "distill.json").read_text()) == json.loads(json.dumps(report))
        results = report["results"]
        assert set(results) == {"teacher", "distilled", "labels"}
        assert results["teacher"]["accuracy"] > 90
        for kind in ("distilled", "labels"):
            assert [entry["seed"] for entry in results[kind]["runs"]] == [3, 4]
            assert results[kind]["accuracy"] == pytest.approx(sum(results[kind]["per_seed"]) / 2)
        assert results["distilled"]["accuracy"] > 80
        kept = report["kept"]
        assert kept["points_lost"] == pytest.approx(
            results["teacher"]["accuracy"] - results["distilled"]["accuracy"]
        )
        assert kept["points_over_labels"] == pytest.approx(
            results["distilled"]["accuracy"] - results["labels"]["accuracy"]
        )
        # The saved student is that of the first seed, and predicts what was reported.
        student = ActionClassifier.from_pretrained(out)
        prepared = prepare_data(student, [], student.steps, data)
        test = labelled_split(prepared, "official")[1]
        assert accuracy_of(student, prepared, test) == pytest.approx(results["distilled"]["per_seed"][0])
        assert student.class_names == ("left", "middle", "right")
        assert [step["name"] for step in student.steps] == ["center"]
        cost = report["cost"]
        assert cost["parameters"]["student"] == student.num_parameters()
        assert cost["bytes"]["student"] == (out / "model.safetensors").stat().st_size
        assert cost["bytes"]["teacher"] == (out / "teacher" / "model.safetensors").stat().st_size
        for size in ("1", "32"):
            entry = report["latency"]["batches"][size]
            times = entry["milliseconds"]
            assert entry["speed_up"] == pytest.approx(times["teacher"] / times["student"])
            assert entry["rounds"] >= 3
        printed = capsys.readouterr().out
        for word in (
            "teacher",
            "student, distilled",
            "student, labels only",
            "+-",
            "MB",
            "32 clips",
            "points lost",
        ):
            assert word in printed

    def test_the_student_believes_its_teacher_more_than_the_labels(self, run, tmp_path) -> None:
        """A teacher that confuses two classes: with soft = 1 the student learns them as it does."""
        data = make_data()
        train_classifier(
            ClassifierConfig(
                checkpoint=run, data=["unused"], out=tmp_path / "teacher", frozen=True, device="cpu"
            ),
            data=data,
            quiet=True,
        )
        teacher = ActionClassifier.from_pretrained(tmp_path / "teacher")
        with torch.no_grad():
            for value in (teacher.head[0].weight, teacher.head[0].bias):
                value[:] = value[[1, 0, 2]]
        teacher.save_pretrained(tmp_path / "wrong")
        options = {"soft": 1.0, "feature": 0.0}
        report = distill(settings(tmp_path / "wrong", tmp_path / "out", **options), data=data, quiet=True)
        accuracy = {row: entry["accuracy"] for row, entry in report["results"].items()}
        assert accuracy["teacher"] < 50
        assert accuracy["distilled"] == pytest.approx(accuracy["teacher"], abs=10)
        assert accuracy["labels"] > 80

    def test_features_alone_teach_too(self, run, tmp_path) -> None:
        """Only the projection and the encoder learn: the head stays as it was drawn."""
        data = make_data()
        config = settings(
            run, tmp_path / "out", soft=1.0, feature=2.0, temperature=1e4, recipe={"epochs": 25}
        )
        report = distill(config, data=data, quiet=True)
        first = settings(
            run, tmp_path / "short", soft=1.0, feature=2.0, temperature=1e4, recipe={"epochs": 1}
        )
        losses = [
            one["results"]["distilled"]["runs"][0]["train_loss"]
            for one in (distill(first, data=data, quiet=True), report)
        ]
        assert losses[1] < 0.5 * losses[0]

    def test_results_of_somebody_else_are_neither_taken_nor_removed(self, run, tmp_path) -> None:
        mine = [tmp_path / "out" / "students" / name / "result.json" for name in ("distilled-0", "kept")]
        for path in mine:
            path.parent.mkdir(parents=True)
            path.write_text("{}")
        with pytest.raises(
            FileExistsError, match=r"distilled-0/result.json is a result without the plan.json"
        ):
            distill(settings(run, tmp_path / "out", overwrite=True), data=make_data(), quiet=True)
        assert [path.read_text() for path in mine] == ["{}", "{}"]

    def test_resume_trains_only_what_is_missing(self, run, tmp_path, monkeypatch) -> None:
        data, out = make_data(), tmp_path / "out"
        brief = {"seeds": [0, 1], "recipe": {"epochs": 3}}
        whole = distill(settings(run, tmp_path / "whole", **brief), data=data, quiet=True)
        train, calls = distill_module._train, []

        def until(limit: int):
            def one(*arguments):
                calls.append(arguments[1:3])
                if len(calls) > limit:
                    raise KeyboardInterrupt
                return train(*arguments)

            return one

        monkeypatch.setattr(distill_module, "_train", until(3))
        with pytest.raises(KeyboardInterrupt):
            distill(settings(run, out, **brief), data=data, quiet=True)
        assert not (out / "config.json").exists()
        assert calls == [("distilled", 0), ("labels", 0), ("distilled", 1), ("labels", 1)]
        with pytest.raises(FileExistsError, match=r"already holds a distillation.*--resume.*--overwrite"):
            distill(settings(run, out, **brief), data=data, quiet=True)
        calls.clear()
        monkeypatch.setattr(distill_module, "_train", until(99))
        report = distill(settings(run, out, **brief, resume=True), data=data, quiet=True)
        assert calls == [("labels", 1)]
        for kind in ("distilled", "labels"):
            assert report["results"][kind]["per_seed"] == whole["results"][kind]["per_seed"]
        saved = [load_file(folder / "model.safetensors") for folder in (out, tmp_path / "whole")]
        assert all(torch.equal(saved[0][name], value) for name, value in saved[1].items())

    def test_bars_name_the_student_and_quiet_prints_nothing(self, run, tmp_path, capsys) -> None:
        brief = {"recipe": {"epochs": 2}}
        distill(settings(run, tmp_path / "a", **brief), data=make_data(), quiet=True)
        assert capsys.readouterr() == ("", "")
        distill(settings(run, tmp_path / "b", **brief), data=make_data())
        printed = capsys.readouterr()
        for name in ("distilled, seed 0", "labels, seed 0"):
            assert f"{name}: 100%" in printed.err
            assert f"{name}: epoch 2/2, loss" in printed.out

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_at_once_and_says_what_is_kept(self, run, tmp_path, monkeypatch, number) -> None:
        monkeypatch.setattr(interrupt, "_GRACE", 600.0)  # the process of the tests goes on, whatever its load
        monkeypatch.setattr(distill_module, "_train", lambda *_: os.kill(os.getpid(), number))
        with pytest.raises(
            KeyboardInterrupt, match=r"finished students are kept in .*; continue with --resume"
        ):
            distill(settings(run, tmp_path / "out"), data=make_data(), quiet=True)
        monkeypatch.setattr(classifier_module, "finetune", lambda *_, **__: os.kill(os.getpid(), number))
        config = ClassifierConfig(checkpoint=run, data=["x"], out=tmp_path / "tuned", device="cpu")
        with pytest.raises(KeyboardInterrupt, match=r"nothing was written into .*tuned"):
            train_classifier(config, data=make_data(), quiet=True)
        assert list((tmp_path / "tuned").iterdir()) == []

    def test_resume_refuses_other_settings(self, run, tmp_path) -> None:
        data, out = make_data(), tmp_path / "out"
        distill(settings(run, out), data=data, quiet=True)
        with pytest.raises(ValueError, match=r"cannot resume: temperature was 2.0 and is now 3.0"):
            distill(settings(run, out, resume=True, temperature=3.0), data=data, quiet=True)
        with pytest.raises(ValueError, match=r"cannot resume: data was"):
            distill(settings(run, out, resume=True), data=make_data(45), quiet=True)
        before = (out / "distill.json").read_text()
        report = distill(
            settings(run, out, overwrite=True, temperature=3.0, recipe={"epochs": 1}), data=data, quiet=True
        )
        assert (out / "distill.json").read_text() != before
        assert report["config"]["temperature"] == 3.0

    def test_the_baseline_is_the_same_student_and_recipe(self, run, tmp_path, monkeypatch) -> None:
        """With nothing of the teacher in the loss both rows are one computation."""
        given = []
        fit = distill_module.fit_classifier

        def spy(classifier, batches, clips, labels, config, **options):
            weights = {name: value.clone() for name, value in classifier.state_dict().items()}
            given.append((weights, clips, config, options["seed"]))
            return fit(classifier, batches, clips, labels, config, **options)

        monkeypatch.setattr(distill_module, "fit_classifier", spy)
        distill(
            settings(run, tmp_path / "out", seeds=[5], recipe={"epochs": 1}), data=make_data(), quiet=True
        )
        (first, *rest), (second, *others) = given
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        assert torch.equal(rest[0], others[0])
        assert rest[1:] == others[1:]

    def test_teacher_of_other_classes(self, run, tmp_path) -> None:
        data = make_data()
        config = ClassifierConfig(
            checkpoint=run, data=["x"], out=tmp_path / "teacher", frozen=True, device="cpu"
        )
        train_classifier(config, data=data, quiet=True)
        data.label_names = ("left", "right", "middle")
        with pytest.raises(ValueError, match=r"class 1 is 'right' in the data and 'middle' for the teacher"):
            distill(settings(tmp_path / "teacher", tmp_path / "out"), data=data, quiet=True)
        data.labels[1], data.label_names = 3, ()
        with pytest.raises(ValueError, match=r"knows 3 classes, the data has class 3"):
            distill(settings(tmp_path / "teacher", tmp_path / "out2"), data=data, quiet=True)


class TestConfig:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"seeds": []}, r"seeds=\[\] must hold"),
            ({"seeds": [1, 1]}, "none twice"),
            ({"soft": 0.0, "feature": 0.0}, "give the teacher no effect"),
            ({"recipe": {"mixup": 0.5}}, "mixup=0.5 must be 0"),
            ({"recipe": {"epoch": 5}}, "unknown option of recipe 'epoch'.*'epochs'"),
            ({"student": {"with": 5}}, "unknown option of student 'with'.*'width'"),
            ({"resume": True, "overwrite": True}, "exclude each other"),
        ],
    )
    def test_wrong_settings(self, options, message) -> None:
        with pytest.raises(ValueError, match=message):
            settings("teacher", "out", **options)

    def test_defaults_are_a_tenth_of_the_paper_size(self) -> None:
        """Against the encoder with the smallest head there is; the public fine-tuning head is twice as large."""
        teacher = build_model("amr")
        big = ActionClassifier(teacher, 60, pooling="mean", hidden=0)
        recipe = StudentRecipe()
        small = ActionClassifier(
            StudentConfig().build(teacher), 60, pooling=recipe.pooling, hidden=recipe.hidden
        ).eval()
        assert (big.num_parameters(), small.num_parameters()) == (6_351_420, 486_012)  # docs/distillation.md
        assert small.num_parameters() <= 0.1 * big.num_parameters()
        assert small.encoder.config.patch_frames == 8
        found = cpu_latency({"teacher": big, "student": small}, batches=(1,), rounds=3)["batches"]["1"]
        assert found["fastest"]["teacher"] > 3 * found["fastest"]["student"]

    def test_patches_keep_to_the_frames(self) -> None:
        teacher = build_model("skeleton_mae", layout=LAYOUT, frames=12, patch_frames=4, width=8, depth=1, heads=1,
                              decoder_width=8, decoder_depth=1, decoder_heads=1)  # fmt: skip
        assert StudentConfig().build(teacher).config.patch_frames == 4
        assert StudentConfig(patch_frames=6).build(teacher).config.patch_frames == 6
        with pytest.raises(ValueError, match="patch_frames"):
            StudentConfig(patch_frames=5).build(teacher)


def test_the_command_in_a_classifier_s_report_is_the_whole_configuration(monkeypatch) -> None:
    asked: list[ClassifierConfig] = []
    monkeypatch.setattr(finetune_command.classifier, "train_classifier", asked.append)
    recipe = {"crop": (0.6, 0.9), "warmup_epochs": None, "pooling": "mean", "lr": 3e-4}
    for more in ({"recipe": recipe, "seed": 3}, {"frozen": True, "batch_size": 8, "overwrite": True}):
        config = ClassifierConfig("a folder", ["x", "y z"], "out", split="s", device="cpu", **more)
        words = shlex.split(shell_command("finetune", dataclasses.asdict(config)))
        assert main(words[1:]) == 0
        found = asked.pop()
        assert FinetuneConfig(**found.recipe) == FinetuneConfig(**config.recipe)
        assert dataclasses.replace(found, recipe={}) == dataclasses.replace(config, recipe={})


def test_commands_from_pretraining_to_the_student(run, tmp_path, capsys) -> None:
    """YAML, options and help are one dataclass, as in the other commands."""
    make_data().save(tmp_path / "data.safetensors")
    common = ["--data", str(tmp_path / "data.safetensors"), "--device", "cpu"]
    recipe = [f"--recipe.{name}={value}" for name, value in QUICK.items()]
    tuned = ["--checkpoint", str(run), "--out", str(tmp_path / "tuned"), "--recipe.hidden", "0", *recipe]
    tuned += ["--no-frozen"]
    assert main(["finetune", *common, *tuned]) == 0
    assert main(["finetune", *common, *tuned]) == 1
    assert "already holds a model; pass --overwrite" in capsys.readouterr().err
    report = json.loads((tmp_path / "tuned" / "classifier.json").read_text())
    assert report["accuracy"] > 80
    assert report["clips"] == {"train": 36, "test": 12}
    assert report["recipe"] == dataclasses.asdict(FinetuneConfig(**QUICK, hidden=0)) | {"crop": [0.5, 1.0]}
    assert report["versions"]["torch"] == str(torch.__version__)
    words = shlex.split(report["command"])
    assert words[:2] == ["fastamr", "finetune"]
    before = load_file(tmp_path / "tuned" / "model.safetensors")
    assert main([*words[1:], "--overwrite"]) == 0
    # The order of a header's texts is not fixed, so files may differ.
    after = load_file(tmp_path / "tuned" / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    file = tmp_path / "distill.yaml"
    file.write_text(yaml.safe_dump({"student": STUDENT, "recipe": QUICK | {"epochs": 1}, "latency": False}))
    student = [
        "--teacher",
        str(tmp_path / "tuned"),
        "--out",
        str(tmp_path / "student"),
        "--recipe.epochs",
        "2",
    ]
    assert main(["distill", "--config", str(file), *common, *student]) == 0
    report = json.loads((tmp_path / "student" / "distill.json").read_text())
    assert (report["recipe"]["epochs"], report["recipe"]["lr"], report["student"]["width"]) == (2, 1e-2, 8)
    assert report["latency"] is None
    assert "ms" not in format_report(report)
    assert main(["distill", "--help-all"]) == 0
    shown = capsys.readouterr().out
    assert "--student.patch-frames" in shown
    assert "--recipe.lr" in shown
    assert main(["finetune", *common, *tuned, "--frozen"]) == 2
    assert "has no effect with frozen" in capsys.readouterr().err


def test_a_frozen_classifier_keeps_the_encoder(run, tmp_path) -> None:
    config = ClassifierConfig(checkpoint=run, data=["x"], out=tmp_path / "out", frozen=True, device="cpu")
    train_classifier(config, data=make_data(), quiet=True)
    before = load_file(run / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    shared = [name for name in after if name.startswith("encoder.")]
    assert len(shared) > 10
    assert all(torch.equal(after[name], before[name.removeprefix("encoder.")]) for name in shared)
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["config"]["steps"][0]["name"] == "center"
    )


@pytest.mark.gpu
def test_on_a_gpu(run, tmp_path) -> None:
    """The teacher teaches there, latency is the CPU's, and the saved student predicts alike on both."""
    report = distill(
        settings(run, tmp_path / "out", device="cuda", latency=True), data=make_data(), quiet=True
    )
    assert report["results"]["distilled"]["accuracy"] > 60
    from fastamr.export import load_predictor

    found = []
    for device in ("cpu", "cuda"):
        predictor = load_predictor(tmp_path / "out", device=device)
        found.append(predictor.probabilities(predictor.prepare(make_data())))
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=0)
