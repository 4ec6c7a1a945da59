from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch

from fastamr.cli import main
from fastamr.data import Split
from fastamr.evaluation import FinetuneConfig, compare_supervised, finetune, format_table, labelled_split
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.features.clip_batches import ClipBatches
from fastamr.features.extract import extract_features
from fastamr.models import ActionClassifier, build_model

QUICK = FinetuneConfig(
    epochs=30, batch_size=16, lr=5e-3, hidden=32, dropout=0.0, drop_path=0.1, min_frames=4, max_angle=0.1
)


@pytest.fixture
def data(make_data):
    return make_data(clips=90, lengths=(5, 9, 12))


@pytest.fixture
def model(data):
    torch.manual_seed(0)
    return build_model(
        "amr",
        layout=data.layout,
        frames=8,
        width=16,
        depth=2,
        heads=2,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=2,
        target_patches=1,
    )


class TestClipBatches:
    def test_bodies_and_their_owners(self, make_data) -> None:
        batches = ClipBatches(make_data(clips=4, bodies=(1, 2)), frames=8)
        ids, owner = batches.bodies(torch.tensor([3, 0, 1]))
        # Clips 0 to 3 have the bodies 0; 1 and 2; 3; 4 and 5.
        assert ids.tolist() == [4, 5, 0, 1, 2]
        assert owner.tolist() == [0, 0, 1, 2, 2]

    @pytest.mark.parametrize("bodies", ["existing", "field"])
    def test_averages_as_the_frozen_features(self, model, make_data, bodies) -> None:
        data = make_data(clips=6)
        batch = ClipBatches(data, model.frames, bodies).test(torch.arange(6))
        classifier = ActionClassifier(model, 3, pooling="mean").eval()
        found = classifier.features(batch.clips, valid=batch.valid, owner=batch.owner)
        torch.testing.assert_close(found, extract_features(model, data, bodies=bodies))

    def test_missing_joints_are_told(self, model, make_data) -> None:
        data = make_data(clips=6)
        generator = torch.Generator().manual_seed(0)
        valid = torch.rand(data.coords.shape[:2], generator=generator) > 0.2
        data = dataclasses.replace(data, valid=valid)
        batch = ClipBatches(data, model.frames, "field").test(torch.arange(6))
        assert batch.valid is not None
        assert batch.valid.shape == batch.clips.shape[:3]
        classifier = ActionClassifier(model, 3, pooling="mean").eval()
        found = classifier.features(batch.clips, valid=batch.valid, owner=batch.owner)
        torch.testing.assert_close(found, extract_features(model, data, bodies="field"))


def test_learns(model, data) -> None:
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    halves = labelled_split(data, "official")
    result = finetune(model, data, halves, QUICK, seed=0)
    assert result.accuracy > 90  # of three classes
    labels = data.labels[halves[1]]
    share = 100 * (torch.tensor(result.predicted) == labels).double().mean().item()
    assert result.accuracy == pytest.approx(share)
    # The caller's model and random state are as they were.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not result.classifier.training


def test_seed_decides(model, data) -> None:
    halves = labelled_split(data, "official")
    recipe = dataclasses.replace(QUICK, epochs=1, dropout=0.3, mixup=0.8)
    losses = [finetune(model, data, halves, recipe, seed=seed).train_loss for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_bar_and_lines(model, data, capsys) -> None:
    lines: list[str] = []
    recipe = dataclasses.replace(QUICK, epochs=3, batch_size=23)
    halves = labelled_split(data, "official")
    finetune(model, data, halves, recipe)
    assert capsys.readouterr() == ("", "")
    loss = finetune(model, data, halves, recipe, progress=lines.append, bar="tuning").train_loss
    shown = capsys.readouterr().err
    assert "tuning: 100%" in shown
    assert "6/6" in shown
    assert "epoch 3 of 3" in shown
    assert lines.pop(0).startswith("memory: ")
    assert [line.split(",")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert lines[-1].endswith(f"loss {loss:.3f}")


def test_a_last_batch_of_one_clip_does_not_break_batch_norm(model, data) -> None:
    train = torch.zeros(90, dtype=torch.bool)
    train[:9] = True
    halves = train, ~train
    for size in (2, 4, 8):
        recipe = FinetuneConfig(epochs=1, batch_size=size, hidden=4)
        assert finetune(model, data, halves, recipe).train_loss > 0


def test_report_holds_all_settings_and_both_rows(tmp_path, model, data, capsys) -> None:
    model.save_pretrained(tmp_path)
    settings = {"epochs": 1, "hidden": 8, "batch_size": 16}
    config = EvaluateConfig(
        checkpoint=str(tmp_path),
        data=["unused"],
        protocol="finetune",
        seeds=[0, 1],
        device="cpu",
        finetune=settings,
    )
    report = evaluate(config, data=data)
    written = json.loads((tmp_path / "evaluation-unused-official-finetune.json").read_text())
    assert written == json.loads(json.dumps(report))
    recipe = written["recipes"]["encoder"]
    assert recipe == json.loads(json.dumps(vars(FinetuneConfig(**settings))))
    assert (recipe["layer_decay"], recipe["lr"], recipe["mixup"]) == (0.8, 5e-4, 0.0)
    assert written["recipes"]["random"] == recipe | {"layer_decay": 1.0}
    assert set(written["results"]) == {"random", "encoder"}
    score = written["results"]["encoder"]["finetune"]
    assert score["accuracy"] == pytest.approx(sum(score["per_seed"]) / 2)
    assert score["train_clips"] == [45, 45]
    printed = capsys.readouterr().out
    for word in ("random", "AMR", "fine-tune", "+-", "encoder, finetune, seed 1: epoch 1/1, loss"):
        assert word in printed


def test_command_line(tmp_path, model, data, capsys) -> None:
    model.save_pretrained(tmp_path)
    data.save(tmp_path / "data.safetensors")
    arguments = ["evaluate", "--checkpoint", str(tmp_path), "--data", str(tmp_path / "data.safetensors")]
    arguments += ["--protocol", "semi", "--shares", "0.2", "--device", "cpu"]
    arguments += ["--finetune.epochs", "1", "--finetune.hidden", "0", "--finetune.layer-decay", "0.7"]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "evaluation-data-official-semi.json").read_text())
    assert report["recipes"]["encoder"]["layer_decay"] == 0.7
    assert report["results"]["encoder"]["semi_20"]["train_clips"] == [9]
    assert "20 % labels" in capsys.readouterr().out
    assert main([*arguments, "--finetune.epoch", "3"]) == 2
    assert "did you mean --finetune.epochs" in capsys.readouterr().err


def test_table_shows_shares_in_their_order() -> None:
    score = {"accuracy": 50.0, "per_seed": [50.0]}
    lines = format_table({"random": {"semi_1": score, "semi_10": score}}).splitlines()
    assert lines[0].split("  ")[1:] == ["1 % labels", "10 % labels"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be positive"),
        ({"mixup": -1.0}, "mixup=-1.0 must be zero or more"),
        ({"min_lr": 1.0}, r"min_lr=1.0 must be a number from 0 to lr=0.0005"),
        ({"layer_decay": 0.0}, "layer_decay=0.0 must be above 0"),
        ({"warmup_epochs": 100}, "warmup_epochs=100 must be at least 0 and below epochs=100"),
        ({"crop": (0.9, 0.5)}, "crop=.* must be two shares"),
        ({"drop_path": 1.0}, "drop_path=1.0 must be"),
        ({"epoch": 3}, "unknown option of finetune 'epoch'.*did you mean 'epochs'"),
    ],
)
def test_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(checkpoint="run", data=["x"], finetune=settings)


def test_other_errors(model, data, make_data) -> None:
    with pytest.raises(ValueError, match=r"shares=.* at most 1"):
        EvaluateConfig(checkpoint="run", data=["x"], shares=[2.0])
    with pytest.raises(ValueError, match="unknown protocol 'knn'"):
        compare_supervised(model, data, protocol="knn")
    with pytest.raises(ValueError, match="seeds is empty"):
        compare_supervised(model, data, seeds=[])
    one = torch.zeros(90, dtype=torch.bool)
    one[0] = True
    with pytest.raises(ValueError, match=r"1 training clips.*BatchNorm needs two.*hidden=0"):
        finetune(model, data, (one, ~one))
    with pytest.raises(ValueError, match="no labelled training clip"):
        compare_supervised(model, make_data(splits={"official": Split(one[:24] & False, ~one[:24])}))
