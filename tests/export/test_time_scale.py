"""Windows that last as long as the clips of the training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastamr.cli import main
from fastamr.data import PackedSkeletons
from fastamr.export import Predictor, load_predictor, predict_stream
from fastamr.export.time_scale import TimeScale
from fastamr.models import ActionClassifier

from .conftest import LAYOUT, moving

# Of the classifier of this folder: clips of 10 to 18 frames at 10 a second.
SECONDS, FRAMES, MODEL_FRAMES = 1.4, 14, 16


def without(classifier: ActionClassifier, *unknown: str) -> ActionClassifier:
    """The classifier as it would be where its training clips did not tell something."""
    model = ActionClassifier(
        classifier.encoder, 3, pooling="mean", hidden=0, steps=classifier.steps,
        training_data={key: value for key, value in classifier.training_data.items() if key not in unknown},
    )  # fmt: skip
    model.head.load_state_dict(classifier.head.state_dict())
    return model


def test_a_classifier_and_its_files_know_their_time_scale(classifier, folder, onnx_file) -> None:
    assert classifier.training_data["fps"] == 10
    for model in (folder, onnx_file):
        assert load_predictor(model).time_scale == TimeScale(SECONDS, FRAMES, MODEL_FRAMES)


class TestWindow:
    @pytest.mark.parametrize(("rate", "frames"), [(10, 14), (30, 42), (7.5, 10), (0.1, 1)])
    def test_spans_the_same_time_at_any_rate(self, rate, frames) -> None:
        assert TimeScale(SECONDS, FRAMES, MODEL_FRAMES).window(rate) == (frames, None)

    @pytest.mark.parametrize("rate", [None, float("nan")])
    def test_of_data_without_a_rate(self, rate) -> None:
        frames, text = TimeScale(SECONDS, FRAMES, MODEL_FRAMES).window(rate)
        assert frames == FRAMES
        assert "frame rate of the input is unknown" in text
        assert "--fps" in text

    @pytest.mark.parametrize("rate", [None, 30])
    def test_of_a_classifier_without_a_rate(self, rate) -> None:
        frames, text = TimeScale(None, FRAMES, MODEL_FRAMES).window(rate)
        assert frames == FRAMES
        assert "frame rate of the training data is unknown" in text

    def test_of_a_classifier_that_an_earlier_version_saved(self) -> None:
        scale = TimeScale.of({"frames": MODEL_FRAMES})
        frames, text = scale.window(30)
        assert frames == MODEL_FRAMES
        assert "does not say how long its training clips were" in text


@pytest.mark.parametrize("rate", [10, 20, 35])
def test_windows_of_a_file_span_the_time_of_the_training_clips(classifier, rate, capsys) -> None:
    """The model resizes each to its frames, so that a faster camera changes nothing."""
    times = np.arange(0, 8.4, 1 / rate)
    slow = np.concatenate([moving(0, 42), moving(2, 42)])
    clip = slow[(times * 10 + 1e-6).astype(int)]
    data = PackedSkeletons.from_clips([clip], layout=LAYOUT, fps=rate)
    answers = list(Predictor(classifier).predict(data, window="auto", stride=round(SECONDS * rate)))
    assert [answer.end_time - answer.start_time for answer in answers] == pytest.approx(
        [1.4] * len(answers), abs=0.5 / rate
    )
    assert [answer.top[0].name for answer in answers[:6]] == ["still"] * 3 + ["reach"] * 3
    assert "note" not in capsys.readouterr().err


class TestStream:
    def lines(self, rate: float | None = None, count: int = 90, pause: float = 0.0) -> list[str]:
        times = [None if rate is None else place / rate + pause * (place > 0) for place in range(count)]
        return [
            json.dumps({"bodies": body[0].tolist()} | ({} if time is None else {"time": time}))
            for time, body in zip(times, moving(2, count), strict=True)
        ]

    def test_of_a_rate_that_is_given(self, classifier, capsys) -> None:
        answers = list(predict_stream(Predictor(classifier), self.lines(), fps=25))
        assert answers[0].end == 35
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("pause", [0.0, 10.0])
    def test_of_lines_with_times(self, classifier, pause, capsys) -> None:
        answers = list(predict_stream(Predictor(classifier), self.lines(25, pause=pause)))
        assert [answer.end for answer in answers[:3]] == [35, 43, 51]
        assert {answer.end - answer.first for answer in answers} == {35}
        assert capsys.readouterr().err == ""

    def test_of_a_slow_or_short_stream_with_times(self, classifier) -> None:
        slow = list(predict_stream(Predictor(classifier), self.lines(2, count=12)))
        assert {answer.end - answer.first for answer in slow} == {3}
        (short,) = predict_stream(Predictor(classifier), self.lines(25, count=5))
        assert (short.first, short.end) == (0, 5)

    def test_what_is_unknown_is_said_once(self, classifier, capsys) -> None:
        for model, options, count, text in (
            (classifier, {}, FRAMES, "frame rate of the input is unknown"),
            (
                without(classifier, "median_seconds"),
                {"fps": 10},
                FRAMES,
                "rate of the training data is unknown",
            ),
            (
                without(classifier, "median_seconds", "median_frames"),
                {},
                MODEL_FRAMES,
                "does not say how long",
            ),
        ):
            answers = list(predict_stream(Predictor(model), self.lines(), **options))
            assert answers[0].end == count
            said = capsys.readouterr().err
            assert (said.count("note:"), text in said) == (1, True)


def test_a_clip_far_longer_than_those_of_the_training_is_pointed_out(classifier, capsys) -> None:
    for frames, fps, said in (
        (100, 10, "10.0 s, the training clips 1.4 s"),
        (100, None, "100 frames, the training clips 14"),
        (30, 10, ""),
    ):
        list(
            Predictor(classifier).predict(
                PackedSkeletons.from_clips([moving(0, frames)], layout=LAYOUT, fps=fps)
            )
        )
        text = capsys.readouterr().err
        assert said in text
        assert ("--window auto" in text) == bool(said)


def test_command(folder, tmp_path, capsys) -> None:
    PackedSkeletons.from_clips([moving(0, 60)], layout=LAYOUT, fps=20).save(tmp_path / "long.safetensors")
    command = ["predict", str(tmp_path / "long.safetensors"), "--model", str(folder), "--json", "--window"]
    assert main([*command, "auto"]) == 0
    spans = [
        (line["first_frame"], line["end_frame"])
        for line in map(json.loads, capsys.readouterr().out.splitlines())
    ]
    assert spans == [(0, 28), (14, 42), (28, 56), (32, 60)]
    assert main([*command, "long"]) == 2
    assert "'long' is neither a number of frames nor auto" in capsys.readouterr().err
