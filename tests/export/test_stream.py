from __future__ import annotations

import io
import json

import numpy as np
import pytest

from fastamr.cli import main
from fastamr.data import PackedSkeletons
from fastamr.export import Predictor, StreamReader, load_predictor, predict_stream

from .conftest import LAYOUT, moving

SEGMENTS = [(0, 40), (2, 30), (1, 50)]


def frames(segments=SEGMENTS, bodies: int = 1) -> np.ndarray:
    return np.concatenate([moving(label, count, label, bodies) for label, count in segments])


def as_lines(clip: np.ndarray) -> list[str]:
    """One body as it is, several as a list."""
    return [json.dumps(frame[0].tolist() if len(frame) == 1 else frame.tolist()) for frame in clip]


def read(*lines: str) -> list:
    return list(StreamReader(LAYOUT, 3).read(lines))


@pytest.fixture
def predictor(classifier) -> Predictor:
    return Predictor(classifier)


class TestSegments:
    @pytest.mark.parametrize("bodies", [1, 2])
    @pytest.mark.parametrize("source", ["folder", "onnx_file"])
    def test_are_found_with_their_times(self, request, source, bodies) -> None:
        predictor = load_predictor(request.getfixturevalue(source))
        answers = list(
            predict_stream(predictor, as_lines(frames(bodies=bodies)), window=10, stride=10, fps=20)
        )
        assert [answer.top[0].label for answer in answers] == [0] * 4 + [2] * 3 + [1] * 5
        assert [(answer.first, answer.end) for answer in answers] == [(s, s + 10) for s in range(0, 120, 10)]
        assert (answers[4].start_time, answers[4].end_time) == (2.0, 2.5)

    def test_equal_the_windows_of_a_file(self, predictor) -> None:
        clip = frames(bodies=2)
        data = PackedSkeletons.from_clips([clip], layout=LAYOUT, fps=20)
        from_file = list(predictor.predict(data, window=16, stride=7))
        found = list(predict_stream(predictor, as_lines(clip), window=16, stride=7, fps=20))
        assert len(found) == len(from_file)
        for one, other in zip(found, from_file, strict=True):
            assert (one.first, one.end, one.start_time) == (
                other.first,
                other.end,
                pytest.approx(other.start_time),
            )
            assert [choice.label for choice in one.top] == [choice.label for choice in other.top]
            assert one.top[0].probability == pytest.approx(other.top[0].probability, abs=1e-5)

    def test_answers_come_with_the_last_frame_of_their_window(self, predictor) -> None:
        given = 0

        def lines():
            nonlocal given
            for line in as_lines(frames()):
                given += 1
                yield line

        for answer in predict_stream(predictor, lines(), window=10, stride=5):
            assert given == answer.end

    def test_times_of_the_lines(self, predictor) -> None:
        lines = [
            json.dumps({"time": 100 + 0.5 * place, "bodies": body[0].tolist()})
            for place, body in enumerate(frames([(2, 12)]))
        ]
        (answer,) = predict_stream(predictor, lines, window=12)
        assert (answer.start_time, answer.end_time) == (100.0, pytest.approx(106.0))

    def test_defaults_and_the_end_of_a_stream(self, predictor) -> None:
        """The window is the training clips' median of 14, the stride a quarter of it; the last ends with the stream."""
        spans = [(a.first, a.end) for a in predict_stream(predictor, as_lines(frames([(0, 22)])))]
        assert spans == [(0, 14), (3, 17), (6, 20), (8, 22)]
        (short,) = predict_stream(predictor, as_lines(frames([(2, 5)])))
        assert (short.first, short.end, short.start_time) == (0, 5, None)
        assert short.top[0].name == "reach"

    def test_nobody_and_bodies_that_come_and_go(self, predictor) -> None:
        still, reach = frames([(0, 20)])[:, 0].tolist(), frames([(2, 20)])[:, 0].tolist()
        lines = ["[]"] * 10
        lines += [json.dumps({"bodies": {"anna": body}}) for body in reach[:10]]
        lines += [json.dumps({"bodies": {"bert": body}}) for body in still[:10]]
        answers = list(predict_stream(predictor, lines, window=10, stride=10))
        assert answers[0].top == ()
        assert [answer.top[0].name for answer in answers[1:]] == ["reach", "still"]

    def test_joints_that_were_not_seen(self, predictor) -> None:
        lines = []
        for body in frames([(2, 10)])[:, 0].tolist():
            body[2] = None
            lines.append(json.dumps(body))
        (answer,) = predict_stream(predictor, lines, window=10)
        clip = frames([(2, 10)])
        seen = np.ones(clip.shape[:3], dtype=bool)
        seen[:, :, 2] = False
        data = PackedSkeletons.from_clips([clip], layout=LAYOUT, valid=[seen])
        expected = next(predictor.predict(data))
        assert answer.top[0].probability == pytest.approx(expected.top[0].probability, abs=1e-6)


class TestReader:
    def test_forms_of_a_line(self) -> None:
        body = [[1, 2, 3.5]] * 4
        text = json.dumps(body)
        assert [list(frame.bodies) for frame in read(text, f"[{text}, {text}]", "[]", "null", "", "  ")] == [
            ["0"],
            ["0", "1"],
            [],
            [],
        ]
        (frame,) = read(json.dumps({"time": 3, "bodies": {"7": [None, *body[1:]]}}))
        assert frame.time == 3.0
        assert np.isnan(frame.bodies["7"][0]).all()
        assert frame.bodies["7"][1].tolist() == [1, 2, 3.5]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("3", "int instead of bodies"),
            ('{"time": 1}', "an object without 'bodies'"),
            ('{"time": "now", "bodies": []}', "time is 'now', expected seconds"),
            ('{"time": NaN, "bodies": []}', "time is nan, expected seconds"),
            (f'{{"time": 1{"0" * 400}, "bodies": []}}', "expected seconds"),
            ("[[1, 2, 3]]", r"the body has 1 joints, layout 'chain4' has 4 joints"),
            (
                "[[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2]]",
                r"joint 3 of the body is \[1, 2\], expected 3 numbers",
            ),
            ("[[[1, 2, 3]]]", "body 0 has 1 joints"),
            ('[null, null, null, "x"]', "joint 3 of the body is 'x'"),
            ("[[1, 2, NaN], [1, 2, 3], [1, 2, 3], [1, 2, 3]]", "joint 0 of the body.*write null"),
            ("[[1, 2, 1e400], [1, 2, 3], [1, 2, 3], [1, 2, 3]]", "joint 0 of the body.*write null"),
            ("[[1, 2, true], [1, 2, 3], [1, 2, 3], [1, 2, 3]]", "joint 0 of the body"),
            ('{"bodies": {"a": 3}}', "body 'a' has int"),
        ],
    )
    def test_wrong_lines(self, line, message) -> None:
        with pytest.raises(ValueError, match=f"line 2 of the stream: .*{message}"):
            read("[]" if "time" not in line else '{"time": 0, "bodies": []}', line)

    def test_times_that_go_back_or_come_and_go(self) -> None:
        with pytest.raises(ValueError, match="line 2 of the stream: time is 1 after 2"):
            read('{"time": 2, "bodies": []}', '{"time": 1, "bodies": []}')
        with pytest.raises(ValueError, match="line 2 of the stream: every line has a time, or none has"):
            read('{"time": 2, "bodies": []}', "[]")


class TestCommand:
    def test_reads_standard_input(self, folder, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(as_lines(frames())) + "\n"))
        options = ["--window", "20", "--stride", "20", "--fps", "20", "--top", "1", "--json"]
        assert main(["predict", "--model", str(folder), "-", *options]) == 0
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [answer["top"][0]["class"] for answer in answers][:2] == ["still", "still"]
        assert answers[-1]["top"][0]["class"] == "wave"
        assert answers[-1]["end"] == 6.0

    @pytest.mark.parametrize(
        ("text", "options", "message"),
        [
            ("", [], "the stream holds no frame"),
            ("\n\n", [], "the stream holds no frame"),
            ("[[NaN, 0, 0], null, null, null]\n", [], "line 1 of the stream"),
            ("[]\n", ["--fps", "0"], "fps=0.0 must be a positive number"),
            ("[]\n", ["--stride", "0"], "stride=0 must be at least 1"),
        ],
    )
    def test_errors(self, folder, text, options, message, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert main(["predict", "--model", str(folder), "-", *options]) == 1
        assert message in capsys.readouterr().err
