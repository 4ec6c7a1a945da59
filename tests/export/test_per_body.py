"""What each person of a clip does."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from fastamr.cli import main
from fastamr.data import PackedSkeletons, preprocess, split_bodies
from fastamr.export import Predictor, load_predictor, predict_stream
from fastamr.models import ActionClassifier

from .conftest import CLASSES, LAYOUT, moving


def two_people(first: int = 1, second: int = 2, frames: int = 14, late: int = 0) -> np.ndarray:
    """One waves and one reaches, by default; the second comes ``late`` frames after the first."""
    clip = np.concatenate([moving(first, frames, 1), moving(second, frames, 2)], axis=1)
    clip[:, 1, :, 0] += 2.0
    clip[:late, 1] = 0
    return clip


def packed(*clips: np.ndarray, names: list[str] | None = None, **more) -> PackedSkeletons:
    data = PackedSkeletons.from_clips(clips, **({"layout": LAYOUT, "fps": 10} | more))
    return dataclasses.replace(data, body_names=names or [])


@pytest.fixture(params=["folder", "onnx_file"])
def source(request):
    return request.getfixturevalue(request.param)


class TestClips:
    def test_each_person_is_named(self, source) -> None:
        data = packed(two_people(), moving(0, 12), two_people(0, 1, late=3), names=["7", "9", "1", "2", "3"])
        answers = list(load_predictor(source).predict(data, per_body=True))
        found = [
            (answer.clip, answer.body, answer.top[0].name, answer.first, answer.end) for answer in answers
        ]
        assert found == [
            ("clip0", "7", "wave", 0, 14),
            ("clip0", "9", "reach", 0, 14),
            ("clip1", "1", "still", 0, 12),
            ("clip2", "2", "still", 0, 14),
            ("clip2", "3", "wave", 3, 14),
        ]
        assert (answers[4].start_time, answers[4].end_time) == (0.3, 1.4)
        assert str(answers[1]).startswith("clip0  body 9  0.00-1.40 s  reach ")
        assert answers[1].to_dict()["body"] == "9"

    def test_a_person_is_named_as_a_clip_of_its_own(self, classifier) -> None:
        predictor = Predictor(classifier)
        alone = [
            next(predictor.predict(packed(moving(1, 14, 1)))).top,
            next(predictor.predict(packed(moving(2, 14, 2)))).top,
        ]
        together = [answer.top for answer in predictor.predict(packed(two_people()), per_body=True)]
        for one, other in zip(together, alone, strict=True):
            assert [choice.label for choice in one] == [choice.label for choice in other]
            assert one[0].probability == pytest.approx(other[0].probability, abs=1e-4)

    @pytest.mark.parametrize("done", [False, True])
    def test_steps_of_the_whole_clip_act_on_each_person(self, classifier, done) -> None:
        """A classifier of single people, centred per clip, gets each person centred, whatever was done before."""
        step = {"name": "center", "joint": "root", "frame": "first", "per": "clip"}
        model = ActionClassifier(
            classifier.encoder, 3, pooling="mean", hidden=0, steps=[step], class_names=CLASSES
        )
        model.head.load_state_dict(classifier.head.state_dict())
        data = packed(two_people())
        data = preprocess(data, ["center:per=clip"]) if done else data
        answers = list(Predictor(model).predict(data, per_body=True))
        assert [answer.top[0].name for answer in answers] == ["wave", "reach"]

    def test_the_average_is_said_once(self, classifier, capsys) -> None:
        predictor = Predictor(classifier)
        for _ in range(2):
            answers = list(predictor.predict(packed(two_people(), moving(0, 12))))
        assert [answer.body for answer in answers] == [None, None]
        assert "body" not in answers[0].to_dict()
        said = capsys.readouterr().err
        assert said.count("note:") == 1
        assert "1 of 2 clips show several people, whose features are averaged" in said
        assert "--per-body" in said
        list(Predictor(classifier).predict(packed(moving(0, 12))))
        list(Predictor(classifier).predict(packed(two_people()), per_body=True))
        assert capsys.readouterr().err == ""


def test_windows_of_a_file_and_of_a_stream(classifier) -> None:
    clip = np.concatenate([two_people(1, 2, 20), two_people(0, 1, 20)])
    clip[20:, 0] = 0  # The first person has left.
    clip = np.concatenate([clip, np.zeros_like(clip[:10])])
    predictor = Predictor(classifier)
    expected = [
        *[(first, body, name) for first in (0, 10) for body, name in (("anna", "wave"), ("bert", "reach"))],
        *[(first, "bert", "wave") for first in (20, 30)],
        (40, None, None),
    ]

    def facts(answers) -> list:
        return [(a.first, a.body, a.top[0].name if a.top else None) for a in answers]

    data = packed(clip, names=["anna", "bert"])
    assert facts(predictor.predict(data, window=10, stride=10, per_body=True)) == expected
    lines = []
    for frame in clip:
        bodies = {
            name: body.tolist() for name, body in zip(("anna", "bert"), frame, strict=True) if body.any()
        }
        lines.append(json.dumps({"bodies": bodies}))
    assert facts(predict_stream(predictor, lines, window=10, stride=10, per_body=True)) == expected


def test_numbers_of_people_are_those_in_the_clip(classifier) -> None:
    """Also in a window that shows the second one alone."""
    clip = two_people(1, 2, 20)
    clip[10:, 0] = 0
    answers = list(Predictor(classifier).predict(packed(clip), window=10, stride=10, per_body=True))
    assert [(answer.first, answer.body) for answer in answers] == [(0, "0"), (0, "1"), (10, "1")]


def test_command(folder, tmp_path, capsys, monkeypatch) -> None:
    packed(two_people(), names=["7", "9"]).save(tmp_path / "two.safetensors")
    command = ["predict", str(tmp_path / "two.safetensors"), "--model", str(folder), "--top", "1"]
    assert main([*command, "--per-body"]) == 0
    text = capsys.readouterr()
    assert [line.split("  ")[1] for line in text.out.splitlines()] == ["body 7", "body 9"]
    assert ("wave" in text.out.splitlines()[0], text.err) == (True, "")
    assert main([*command, "--per-body", "--json"]) == 0
    assert [json.loads(line)["body"] for line in capsys.readouterr().out.splitlines()] == ["7", "9"]
    assert main(command) == 0
    assert "averaged into one answer: --per-body" in capsys.readouterr().err
    lines = [json.dumps(frame.tolist()) for frame in two_people()]
    for options, bodies, notes in ((["--per-body"], ["0", "1"], 0), ([], [None], 1)):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
        assert main(["predict", "-", "--model", str(folder), "--json", "--window", "14", *options]) == 0
        text = capsys.readouterr()
        assert [json.loads(line).get("body") for line in text.out.splitlines()] == bodies
        assert text.err.count("frames of the stream show several people") == notes


def test_a_classifier_of_labels_for_each_person_tells_them_apart() -> None:
    """The clips show two people who do different things: averages tell nothing, people do."""
    pytest.importorskip("sklearn")
    from fastamr.finetuning.linear_head import linear_classifier
    from fastamr.models import build_model

    torch.manual_seed(0)
    encoder = build_model(
        "amr", layout=LAYOUT, frames=16, width=32, depth=1, heads=2, decoder_width=8, decoder_depth=1,
        decoder_heads=2, target_patches=1,
    )  # fmt: skip
    pairs = [(1, 2), (2, 1), (0, 1), (2, 0)] * 10
    clips = [
        np.concatenate([moving(one, 14, 2 * place), moving(other, 14, 2 * place + 1)], axis=1)
        for place, (one, other) in enumerate(pairs)
    ]
    labels = [label for pair in pairs for label in pair]
    people = split_bodies(packed(*clips), labels=labels, label_names=CLASSES)
    people = preprocess(people, ["center:per=clip"])
    classifier = linear_classifier(encoder, people, torch.ones(people.num_clips, dtype=torch.bool))
    found = [
        answer.top[0].name for answer in Predictor(classifier).predict(packed(two_people()), per_body=True)
    ]
    assert found == ["wave", "reach"]
