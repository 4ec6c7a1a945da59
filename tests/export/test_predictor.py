from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastamr.cli import main
from fastamr.data import PackedSkeletons, apply_missing, preprocess
from fastamr.export import Predictor, load_predictor
from fastamr.export.predictor import in_slots
from fastamr.features.clip_batches import ClipBatch, ClipBatches
from fastamr.finetuning.finetune import predict as evaluated_classes
from fastamr.models import ActionClassifier, build_model
from fastamr.skeleton import SkeletonLayout

from .conftest import CLASSES, LAYOUT, moving

LABELS = (0, 1, 2, 1, 0, 2, 1)


@pytest.fixture(params=["folder", "onnx_file"])
def source(request):
    """A classifier's folder, and the same as ONNX."""
    return request.getfixturevalue(request.param)


class TestClips:
    def test_names_the_actions_with_times(self, source, make_data) -> None:
        answers = list(load_predictor(source).predict(make_data(), top=2))
        assert [answer.top[0].name for answer in answers] == [CLASSES[label] for label in LABELS]
        assert [answer.clip for answer in answers] == [f"clip{place}" for place in range(7)]
        for place, answer in enumerate(answers):
            frames = 9 + 2 * place
            assert (answer.first, answer.end) == (0, frames)
            assert (answer.start_time, answer.end_time) == (0.0, pytest.approx(frames / 10))
            assert len(answer.top) == 2
            assert answer.top[0].probability >= answer.top[1].probability

    def test_probabilities_are_those_of_the_evaluation(self, classifier, source, make_data) -> None:
        """Raw clips go through the steps that the classifier was trained with; then as in the evaluation."""
        predictor, data = load_predictor(source, batch_size=3), make_data()
        prepared = preprocess(data, ["center"])
        batch = ClipBatches(prepared, 16).test(torch.arange(7))
        with torch.no_grad():
            expected = classifier(batch.clips, owner=batch.owner).softmax(1)
        for given in (data, prepared):
            found = predictor.probabilities(predictor.prepare(given))
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
        classes = evaluated_classes(classifier, ClipBatches(prepared, 16), torch.arange(7), 2)
        assert classes.tolist() == found.argmax(1).tolist()
        raw = ClipBatches(data, 16).test(torch.arange(7))
        with torch.no_grad():
            assert not torch.allclose(classifier(raw.clips, owner=raw.owner).softmax(1), expected, atol=1e-2)

    def test_joints_that_were_not_seen(self, classifier, source, make_data) -> None:
        data = make_data()
        valid = torch.ones(data.coords.shape[:2], dtype=torch.bool)
        valid[: data.num_frames // 2, 2] = False
        data = dataclasses.replace(data, valid=valid, coords=data.coords * valid[..., None])
        batch = ClipBatches(apply_missing(data, ["center"]), 16).test(torch.arange(7))
        with torch.no_grad():
            expected = classifier(batch.clips, valid=batch.valid, owner=batch.owner).softmax(1)
        predictor = load_predictor(source)
        torch.testing.assert_close(
            predictor.probabilities(predictor.prepare(data)), expected, atol=2e-5, rtol=0
        )

    def test_without_rate_or_names(self, make_data, classifier, tmp_path) -> None:
        plain = ActionClassifier(classifier.encoder, 3, pooling="mean", hidden=0, steps=classifier.steps)
        plain.save_pretrained(tmp_path)
        answer = next(load_predictor(tmp_path).predict(make_data(fps=None), top=9))
        assert (answer.start_time, answer.end_time) == (None, None)
        assert sorted(name for _, name, _ in answer.top) == ["class 0", "class 1", "class 2"]
        assert str(answer).startswith("clip0  frames 0-8  class ")

    def test_a_clip_that_loses_its_bodies_shows_nobody(self, classifier, make_data, tmp_path) -> None:
        steps = [{"name": "drop_empty_bodies"}, *classifier.steps]
        model = ActionClassifier(classifier.encoder, 3, pooling="mean", hidden=0, steps=steps)
        data = make_data(drop_empty_bodies=False)
        data.coords[int(data.offsets[0]) : int(data.offsets[1])] = 0  # the only body of the first clip
        answers = list(Predictor(model).predict(data))
        assert answers[0].top == ()
        assert "no body" in str(answers[0])
        assert all(answer.top for answer in answers[1:])


class TestWindows:
    def test_slide_over_a_clip_of_known_segments(self, source) -> None:
        segments = [(0, 40), (1, 30), (2, 50)]
        clip = torch.cat(
            [torch.from_numpy(moving(label, frames, label)) for label, frames in segments]
        ).numpy()
        data = PackedSkeletons.from_clips([clip], layout=LAYOUT, fps=20)
        answers = list(load_predictor(source).predict(data, window=10, stride=10, top=1))
        assert [answer.top[0].label for answer in answers] == [0] * 4 + [1] * 3 + [2] * 5
        assert [(answer.first, answer.end) for answer in answers] == [(s, s + 10) for s in range(0, 120, 10)]
        assert (answers[3].start_time, answers[3].end_time) == (1.5, 2.0)

    def test_each_window_is_prepared_as_a_clip(self, classifier, make_data) -> None:
        """Also of data that was centred as a whole: a body that has walked away is brought back."""
        clip = moving(1, 60)
        clip[..., 2] += 0.1 * torch.arange(60)[:, None, None].numpy()
        data = PackedSkeletons.from_clips([clip], layout=LAYOUT)
        predictor = Predictor(classifier)
        found = [
            [answer.top for answer in predictor.predict(given, window=20, stride=20)]
            for given in (data, preprocess(data, ["center"]))
        ]
        alone = PackedSkeletons.from_clips([clip[40:]], layout=LAYOUT)
        last = next(predictor.predict(alone)).top
        for tops in found:
            assert [choice.label for choice in tops[2]] == [choice.label for choice in last]
            assert tops[2][0].probability == pytest.approx(last[0].probability, abs=1e-4)

    def test_the_last_window_ends_with_the_clip_and_a_short_clip_is_one(self, classifier, make_data) -> None:
        answers = list(Predictor(classifier).predict(make_data(labels=(0, 1)), window=10, stride=4))
        assert [(a.clip, a.first, a.end) for a in answers] == [
            ("clip0", 0, 9),
            ("clip1", 0, 10),
            ("clip1", 1, 11),
        ]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"top": 0}, "top=0 must be at least 1"),
            ({"window": 0}, "window=0"),
            ({"stride": 5}, "stride=5 was given without window"),
        ],
    )
    def test_wrong_options(self, classifier, make_data, options, message) -> None:
        with pytest.raises(ValueError, match=message):
            list(Predictor(classifier).predict(make_data(), **options))


class TestRefusals:
    def test_another_layout_or_dimension(self, classifier, make_data) -> None:
        predictor = Predictor(classifier)
        other = SkeletonLayout("other", ("root", "neck", "head", "foot"), LAYOUT.parents)
        with pytest.raises(
            ValueError, match=r"layout 'other' \(4 joints\), the model knows 'chain4'.*fastamr convert"
        ):
            list(predictor.predict(make_data(layout=other)))
        flat = PackedSkeletons.from_clips([moving(0, 9)[..., :2]], layout=LAYOUT)
        with pytest.raises(ValueError, match="2 channels, the model knows 3"):
            list(predictor.predict(flat))

    def test_coordinates_that_are_not_finite(self, classifier, make_data) -> None:
        data = make_data()
        data.coords[12, 1, 0] = float("nan")
        with pytest.raises(ValueError, match="not finite"):
            list(Predictor(classifier).predict(data))

    def test_models_that_are_none(self, tmp_path, classifier) -> None:
        with pytest.raises(FileNotFoundError, match=r"config.json"):
            load_predictor(tmp_path)
        (tmp_path / "model.bin").write_text("x")
        with pytest.raises(
            ValueError, match=r"model.bin is not a model: expected the folder of a classifier"
        ):
            load_predictor(tmp_path / "model.bin")
        classifier.encoder.save_pretrained(tmp_path / "run")
        with pytest.raises(
            ValueError, match=r"an encoder without classes: train a classifier.*fastamr finetune"
        ):
            load_predictor(tmp_path / "run")
        with pytest.raises(ValueError, match="batch_size=0"):
            Predictor(classifier, batch_size=0)

    def test_a_step_that_this_version_does_not_know(self, classifier) -> None:
        model = ActionClassifier(
            classifier.encoder, 3, hidden=0, steps=[{"name": "concatenate", "steps": []}]
        )
        with pytest.raises(ValueError, match="unknown pre-processing step 'concatenate'"):
            Predictor(model)


def test_converted_data_is_left_alone_and_other_data_is_converted(make_data) -> None:
    encoder = build_model(
        "skeleton_mae", layout="coco17", frames=8, width=8, depth=1, heads=1, decoder_width=8, decoder_depth=1,
        decoder_heads=1,
    )  # fmt: skip
    convert = {"name": "convert", "layout": "coco17", "missing": "interpolate"}
    predictor = Predictor(ActionClassifier(encoder, 3, steps=[convert]))
    clip = torch.randn(9, 1, 17, 3).numpy()
    done = PackedSkeletons.from_clips([clip], layout="coco17")
    assert torch.equal(predictor.prepare(done).coords, done.coords)
    raw = PackedSkeletons.from_clips([torch.randn(9, 1, 25, 3).numpy()], layout="ntu25")
    assert predictor.prepare(raw).layout.name == "coco17"


def test_slots_by_hand() -> None:
    clips = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 4, 3)
    valid = torch.tensor([True, False, True]).view(3, 1, 1).expand(3, 2, 4)
    # Owners in any order: the second body of clip 0 comes last.
    slots = in_slots(ClipBatch(clips[[0, 2, 1]], valid[[0, 2, 1]], torch.tensor([0, 0, 1])))
    assert slots["clips"].shape == (2, 2, 2, 4, 3)
    assert slots["clips"][:, :, 0, 0, 0].tolist() == [[0.0, 2.0], [1.0, 0.0]]
    assert slots["present"].tolist() == [[True, True], [True, False]]
    assert slots["valid"][:, :, 0, 0].tolist() == [[True, True], [False, True]]


class TestCommand:
    def test_text_json_and_file(self, source, make_data, tmp_path, capsys) -> None:
        make_data().save(tmp_path / "data.safetensors")
        common = ["predict", "--model", str(source), str(tmp_path / "data.safetensors")]
        assert main([*common, "--top", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 7
        assert lines[1].startswith("clip1  0.00-1.10 s  wave ")
        assert (
            main([*common, "--json", "--window", "8", "--stride", "8", "--out", str(tmp_path / "out.jsonl")])
            == 0
        )
        assert capsys.readouterr().out == ""
        answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert answers[1]["clip"] == "clip0"
        assert (answers[1]["first_frame"], answers[1]["end_frame"]) == (1, 9)
        assert (answers[1]["start"], answers[1]["end"]) == (0.1, 0.9)
        assert {choice["class"] for choice in answers[1]["top"]} == set(CLASSES)

    def test_foreign_files(self, folder, tmp_path, capsys) -> None:
        rows = ["frame,body,joint,x,y,z"]
        for frame, joints in enumerate(moving(2, 12)[:, 0].tolist()):
            rows += [
                f"{frame},0,{name},{x},{y},{z}" for name, (x, y, z) in zip(LAYOUT.joints, joints, strict=True)
            ]
        (tmp_path / "clip.csv").write_text("\n".join(rows) + "\n")
        # Its layout is guessed from the names; another tree than the model's is refused, not mistaken for it.
        assert main(["predict", "--model", str(folder), str(tmp_path / "clip.csv")]) == 1
        assert capsys.readouterr().err.startswith("error: ")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.safetensors", b"", "empty.safetensors"),
            ("empty.json", b"", "empty.json"),
            ("nothing.npz", b"PK", "nothing.npz"),
            ("empty.skeleton", b"", "empty.skeleton"),
            ("odd.xyz", b"1", "ends in '.xyz'"),
        ],
    )
    def test_hostile_files(self, folder, tmp_path, name, content, message, capsys) -> None:
        (tmp_path / name).write_bytes(content)
        assert main(["predict", "--model", str(folder), str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error

    def test_options_that_would_have_no_effect(self, folder, make_data, tmp_path, capsys) -> None:
        make_data().save(tmp_path / "data.safetensors")
        common = ["predict", "--model", str(folder), str(tmp_path / "data.safetensors")]
        assert main([*common, "--min-confidence", "0.3"]) == 1
        assert "omit --min-confidence" in capsys.readouterr().err
        assert main([*common, "--fps", "-1"]) == 1
        assert "fps=-1.0 must be a positive number" in capsys.readouterr().err

    def test_makes_missing_folders(self, folder, make_data, tmp_path, capsys) -> None:
        make_data().save(tmp_path / "data.safetensors")
        out = tmp_path / "new" / "er" / "answers.txt"
        asked = ["predict", "--model", str(folder), str(tmp_path / "data.safetensors")]
        assert main([*asked, "--out", str(out)]) == 0
        assert capsys.readouterr().out == ""
        assert main(asked) == 0
        assert out.read_text() == capsys.readouterr().out

    def test_missing_things(self, folder, tmp_path, capsys) -> None:
        out = tmp_path / "new" / "er" / "x"
        assert main(["predict", "--model", str(folder), str(tmp_path / "none.npz"), "--out", str(out)]) == 1
        assert not out.parent.parent.exists()
        (tmp_path / "file").write_text("")
        assert main(["predict", "--model", str(folder), "-", "--out", str(tmp_path / "file" / "x")]) == 1
        assert "is a file: name another folder" in capsys.readouterr().err
        assert main(["predict", "--model", str(tmp_path / "none"), "-"]) == 1
        assert main(["predict", "x"]) == 2

    def test_an_ntu_file(self, tmp_path, capsys) -> None:
        from ..data.readers.writers import frames_of, skeleton_text, standing

        encoder = build_model("skeleton_mae", frames=8, width=8, depth=1, heads=1, decoder_width=8, decoder_depth=1,
                              decoder_heads=1)  # fmt: skip
        ActionClassifier(encoder, 3, hidden=0).save_pretrained(tmp_path / "model")
        (tmp_path / "anything.skeleton").write_bytes(skeleton_text(frames_of((72, 0, standing(30)))))
        assert main(["predict", "--model", str(tmp_path / "model"), str(tmp_path / "anything.skeleton")]) == 0
        assert capsys.readouterr().out.startswith("anything  0.00-1.00 s  class ")

    def test_needs_no_training_code(self, folder, make_data, tmp_path) -> None:
        """Neither the training nor what it needs is loaded; with the files alone, it is not even there."""
        make_data().save(tmp_path / "data.safetensors")
        code = (
            "import sys\n"
            "for name in ('fastamr.training', 'tensorboard', 'sklearn', 'triton', 'matplotlib'):\n"
            "    sys.modules[name] = None\n"
            "from fastamr.cli import main\n"
            f"code = main(['predict', '--model', {str(folder)!r}, {str(tmp_path / 'data.safetensors')!r}])\n"
            "assert not any(n.startswith('fastamr.training') and m for n, m in sys.modules.items())\n"
            "raise SystemExit(code)\n"
        )
        root = Path(__file__).resolve().parents[2]
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": str(root)},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert len(run.stdout.splitlines()) == 7


EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "onnx_without_torch.py"


def run_example(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['fastamr'] = None\n"
        f"sys.argv = ['example', *{arguments!r}]\n"
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_example_needs_neither_torch_nor_this_library(onnx_file, make_data, tmp_path) -> None:
    plain = make_data()
    unseen = torch.zeros(plain.coords.shape[:2], dtype=torch.bool)
    unseen[:, 3] = True  # no hand at all
    unseen[plain.offsets[:-1], 0] = True  # a root that is seen late
    unseen[plain.offsets[:-1] + 4, 1] = True
    partly = dataclasses.replace(plain, coords=plain.coords.masked_fill(unseen[..., None], 0), valid=~unseen)
    for data, clip in ((plain, 0), (plain, 3), (partly, 1), (partly, 4)):
        expected = list(load_predictor(onnx_file).predict(data, top=3))[clip].top
        coords = data.coords
        if data.valid is not None:
            coords = coords.masked_fill(~data.valid[..., None], torch.nan)
        bodies = [
            coords[data.offsets[body] : data.offsets[body + 1]]
            for body in (data.body_clip == clip).nonzero()[:, 0].tolist()
        ]
        np.save(tmp_path / "clip.npy", torch.stack(bodies, dim=1).numpy())
        run = run_example(tmp_path, str(onnx_file), "clip.npy")
        found = [line.split(": ") for line in run.stdout.splitlines()]
        assert [name for name, _ in found] == [choice.name for choice in expected], run.stderr
        for (_, value), choice in zip(found, expected, strict=True):
            assert float(value) == pytest.approx(choice.probability, abs=2e-4)


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0), (("a", "b", "c"), 2)])
def test_the_example_tells_its_use(tmp_path, arguments, code) -> None:
    run = run_example(tmp_path, *arguments)
    assert run.returncode == code
    assert "usage: " in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
