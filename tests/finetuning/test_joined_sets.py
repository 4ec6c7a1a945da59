"""Fine-tuning and distilling on several sets, on all clips, and on bodies of another size."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from fastamr.finetuning.classifier import ClassifierConfig, prepare_data, train_classifier
from fastamr.finetuning.distill import distill
from fastamr.finetuning.distill_config import DistillConfig
from fastamr.folders import FolderLock, written
from fastamr.models import ActionClassifier, build_model, load_pretrained

pytest.importorskip("sklearn")
QUICK = {"epochs": 1, "batch_size": 16, "min_frames": 4, "hidden": 0}
NAMES = ("a", "b", "c")


@pytest.fixture
def run(tmp_path, make_data):
    """A folder of a small encoder."""
    model = build_model(
        "amr", layout=make_data(clips=1).layout, frames=8, width=16, depth=1, heads=2, decoder_width=8,
        decoder_depth=1, decoder_heads=2, target_patches=1,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def sources(folder, *sets) -> list[str]:
    paths = []
    for place, data in enumerate(sets):
        names = [f"{place}_{clip}" for clip in range(data.num_clips)]
        paths.append(str(folder / f"{place}.safetensors"))
        dataclasses.replace(data, names=names).save(paths[-1])
    return paths


def finetuned(run, out, data, **more: Any) -> dict[str, Any]:
    return train_classifier(
        ClassifierConfig(
            checkpoint=run, data=data, out=out, device="cpu", overwrite=True, frozen=True, **more
        )
    )


class TestFinetune:
    def test_a_set_without_the_split_trains_whole(self, run, make_data, tmp_path, capsys) -> None:
        labels = [-1, *(place % 3 for place in range(23))]
        paths = sources(tmp_path, make_data(), make_data(labels=labels, splits={}))
        report = finetuned(run, tmp_path / "out", paths)
        assert report["clips"] == {"train": 12 + 23, "test": 12}
        (note,) = report["notes"]
        assert "all its 24 clips are training clips" in note
        assert "1 of them have no label" in note
        printed = capsys.readouterr()
        assert note in printed.out
        assert (
            "35 training and 12 test clips with a label, 3 classes; 1 without a label are left out"
            in printed.out
        )
        assert report["warnings"] == []

    def test_numbers_beside_names(self, run, make_data, tmp_path) -> None:
        paths = sources(tmp_path, make_data(label_names=NAMES), make_data())
        with pytest.raises(ValueError, match=r"1.safetensors labels 24 of its 24 clips by number"):
            finetuned(run, tmp_path / "out", paths)
        report = finetuned(run, tmp_path / "out", paths, label_numbers=True, split="Official")
        assert report["clips"] == {"train": 24, "test": 24}
        assert "--label-numbers" in report["command"]

    @pytest.mark.parametrize("more", [{}, {"frozen": False, "recipe": QUICK}])
    def test_on_every_clip_nothing_is_tested(self, run, make_data, tmp_path, capsys, more) -> None:
        paths = sources(tmp_path, make_data(splits={}))
        settings = {
            "checkpoint": run,
            "data": paths,
            "out": tmp_path / "out",
            "device": "cpu",
            "train_on": "all",
        }
        report = train_classifier(ClassifierConfig(**({"frozen": True} | settings | more)))
        assert report["clips"] == {"train": 24, "test": 0}
        assert report["accuracy"] is None
        json.dumps(report, allow_nan=False)
        assert "nothing was tested" in capsys.readouterr().out
        ActionClassifier.from_pretrained(tmp_path / "out")

    def test_data_without_a_split_names_the_way_on(self, run, make_data, tmp_path) -> None:
        with pytest.raises(ValueError, match="fastamr split DATA --by random"):
            finetuned(run, tmp_path / "out", sources(tmp_path, make_data(splits={})))

    def test_a_class_that_only_tests(self, run, make_data, tmp_path, capsys) -> None:
        labels = [place % 2 if place % 2 == 0 or place > 3 else 2 for place in range(24)]
        labels[0] = 1
        report = finetuned(run, tmp_path / "out", sources(tmp_path, make_data(labels=labels)))
        (text,) = report["warnings"]
        assert "class 2 (2 clips: 0_1, 0_3)" in text
        assert f"warning: {text}" in capsys.readouterr().err

    def test_sizes_are_kept_and_compared(self, run, make_data, tmp_path, capsys) -> None:
        data = make_data()
        finetuned(run, tmp_path / "out", sources(tmp_path, data))
        classifier = ActionClassifier.from_pretrained(tmp_path / "out")
        assert classifier.body_size == pytest.approx(0.5, rel=0.3)
        large = dataclasses.replace(data, coords=1000 * data.coords)
        report = finetuned(run, tmp_path / "out", sources(tmp_path, large))
        assert "scale:factor=0.001" in report["warnings"][0]
        assert "scale:factor=0.001" in capsys.readouterr().err
        assert ActionClassifier.from_pretrained(tmp_path / "out").body_size > 100

    def test_the_joints_take_the_models_order(self, run, make_data, tmp_path) -> None:
        data, order = make_data(), [2, 0, 3, 1]
        layout = dataclasses.replace(
            data.layout,
            joints=tuple(data.layout.joints[joint] for joint in order),
            parents=(1, -1, 1, 1),
            pairs=((0, 2),),
            hips=(0, 2),
            spine=(1, 3),
        )
        other = dataclasses.replace(data, layout=layout, coords=data.coords[:, order])
        model = load_pretrained(run)
        assert torch.equal(prepare_data(model, [], [], other).coords, data.coords)


class TestDistill:
    def test_all_of_both_sets_and_the_same_lines(self, run, make_data, tmp_path, capsys) -> None:
        labels = [place % 3 for place in range(24)]
        paths = sources(tmp_path, make_data(), make_data(labels=labels, splits={}))
        config = DistillConfig(
            teacher=run, data=paths, out=tmp_path / "out", device="cpu", latency=False, split="OFFICIAL",
            student={"width": 8, "depth": 1, "heads": 2}, recipe=QUICK,
        )  # fmt: skip
        report = distill(config)
        assert report["clips"] == {"train": 36, "test": 12}
        assert "all its 24 clips are training clips" in report["notes"][0]
        assert "36 training and 12 test clips with a label" in capsys.readouterr().out
        student = ActionClassifier.from_pretrained(tmp_path / "out")
        assert student.body_size == ActionClassifier.from_pretrained(tmp_path / "out" / "teacher").body_size

    def test_numbers_beside_names(self, run, make_data, tmp_path) -> None:
        paths = sources(tmp_path, make_data(label_names=NAMES), make_data())
        settings = {"teacher": run, "data": paths, "out": tmp_path / "out", "device": "cpu", "latency": False}
        with pytest.raises(ValueError, match="--label-numbers"):
            distill(DistillConfig(**settings))


class TestFolder:
    def test_the_checkpoint_is_no_output(self, run, make_data, tmp_path) -> None:
        before = (run / "model.safetensors").read_bytes()
        with pytest.raises(FileExistsError, match="one of the files that are read"):
            finetuned(run, run, sources(tmp_path, make_data()))
        assert (run / "model.safetensors").read_bytes() == before

    def test_one_writer_at_a_time_and_a_list_of_what_it_wrote(self, run, make_data, tmp_path) -> None:
        out, paths = tmp_path / "out", sources(tmp_path, make_data())
        with (
            FolderLock(out, "fastamr distill"),
            pytest.raises(BlockingIOError, match="in use by fastamr distill"),
        ):
            finetuned(run, out, paths)
        finetuned(run, out, paths)
        files = {"classifier.json", "config.json", "model.safetensors", "complete.json"}
        assert files <= set(written(out))
        assert sorted(path.name for path in out.iterdir()) == sorted([*written(out), "manifest.jsonl"])

    def test_training_clips_of_zeros_are_refused(self, run, make_data, tmp_path) -> None:
        data = make_data()
        data.coords.zero_()
        with pytest.raises(ValueError, match="body sequences to train on are 0"):
            finetuned(run, tmp_path / "out", sources(tmp_path, data))
