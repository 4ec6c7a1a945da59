from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.evaluation.protocols.detection import (
    DetectionConfig,
    Stream,
    compare_detection,
    detect_segments,
    detection_scores,
    find_streams,
    label_stream,
    window_features,
)
from fastamr.evaluation.protocols.detection_metrics import Segment, segment_map
from fastamr.features.windows import cut_windows, frame_scores, stream_labels, window_label, window_starts
from fastamr.probes.linear_probe import fit_linear

from ...mean_encoder import LAYOUT, MeanEncoder

SHORT = DetectionConfig(window=8, stride=4, min_frames=4)


def make_streams(count: int = 8, seed: int = 0, **more: object) -> PackedSkeletons:
    """Streams of 60 to 100 frames; the class, or none, shows in where the chest leans to."""
    rng = np.random.default_rng(seed)
    clips, labels = [], []
    for _ in range(count):
        classes = np.concatenate([np.repeat([-1, c], rng.integers(10, 17, 2)) for c in rng.permutation(3)])
        pose = np.array([[0, 1, 3], [0, 1.5, 3], [0.2, 1, 3], [-0.2, 1, 3]])
        clip = np.tile(pose, (len(classes), 1, 1)) + 0.005 * rng.standard_normal((len(classes), 4, 3))
        acting = np.flatnonzero(classes >= 0)
        clip[acting, 1, classes[acting]] += 0.4
        clips.append(clip[:, None])
        labels.append(classes)
    train = torch.arange(count) % 2 == 0
    fields = {"splits": {"official": Split(train, ~train)}, "frame_labels": labels} | more
    return PackedSkeletons.from_clips(clips, layout=LAYOUT, **fields)  # type: ignore[arg-type]


class TestWindows:
    @pytest.mark.parametrize(
        ("frames", "starts"), [(10, [0, 3, 6]), (11, [0, 3, 6, 7]), (4, [0]), (3, [0]), (1, [0]), (5, [0, 1])]
    )
    def test_starts_reach_to_the_end(self, frames, starts):
        assert window_starts(frames, 4, 3).tolist() == starts

    def test_labels_by_majority(self):
        cases = [
            ([1, 1, -1], 1),
            ([-1, -1, 1], -1),
            ([1, -1], 1),
            ([2, 1], 1),
            ([-2, -2, 3, -1, 3], 3),
            ([-2], -2),
        ]
        for labels, expected in cases:
            assert window_label(torch.tensor(labels)) == expected

    def test_frames_average_their_windows(self):
        scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        found = frame_scores(scores, torch.tensor([0, 2]), 4, 6)
        expected = [[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5], [0, 1], [0, 1]]
        assert found.tolist() == expected
        # A window that is longer than the stream, and frames without a window.
        assert frame_scores(scores[:1], torch.tensor([0]), 4, 2).tolist() == [[1, 0]] * 2
        assert frame_scores(scores[:1], torch.tensor([1]), 2, 4).tolist() == [[0, 0], [1, 0], [1, 0], [0, 0]]

    def test_averages_agree_with_a_plain_loop(self):
        generator = torch.Generator().manual_seed(0)
        starts = window_starts(1001, 60, 7)
        scores = torch.rand(len(starts), 5, generator=generator).softmax(1)
        found = frame_scores(scores, starts, 60, 1001)
        for frame in (0, 6, 7, 500, 941, 942, 1000):
            inside = (starts <= frame) & (frame < starts + 60)
            torch.testing.assert_close(found[frame], scores[inside].mean(0))

    def test_a_window_has_the_bodies_that_it_shows(self):
        path = np.arange(1.0, 11)[:, None, None] * np.ones((10, 4, 3))
        clip = np.stack([path, -path], 1)
        clip[:6, 1] = 0  # the second body comes after frame 6
        data = PackedSkeletons.from_clips(
            [clip[:3, :1], clip], layout=LAYOUT, fps=[10.0, 30.0], names=["a", "b"]
        )
        windows = cut_windows(data, 1, torch.tensor([0, 4, 6]), 4)
        assert windows.names == ["b@0", "b@4", "b@6"]
        assert windows.body_clip.tolist() == [0, 1, 1, 2, 2]
        assert windows.coords[:, 0, 0].tolist() == [
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            0,
            0,
            -7,
            -8,
            7,
            8,
            9,
            10,
            -7,
            -8,
            -9,
            -10,
        ]
        assert windows.columns["window"].tolist() == [0, 1, 2]
        assert windows.fps.tolist() == [30.0] * 3
        # Tracked from frame 6 on only: the body begins within the window.
        late = dataclasses.replace(data.select([1]), body_start=torch.tensor([0, 6]))
        windows = cut_windows(late, 0, torch.tensor([0, 4, 12]), 4)
        assert windows.body_clip.tolist() == [0, 1, 2]
        assert windows.body_start.tolist() == [0, 0, 0]
        late = dataclasses.replace(late, body_start=torch.tensor([0, 1]))
        late.coords[10:] = 5
        assert cut_windows(late, 0, torch.tensor([0]), 4).body_start.tolist() == [0, 1]

    def test_windows_without_a_body_are_left_out(self):
        clip = np.zeros((12, 1, 4, 3))
        clip[8:] = 1
        data = PackedSkeletons.from_clips([clip], layout=LAYOUT)
        assert cut_windows(data, 0, torch.tensor([0, 4, 8]), 4).columns["window"].tolist() == [2]
        assert cut_windows(data, 0, torch.tensor([0, 4]), 4) is None

    def test_labels_of_a_stream_and_frames_nobody_tracked(self):
        data = make_streams(1)
        assert torch.equal(stream_labels(data, 0), data.frame_labels.long())
        shifted = dataclasses.replace(data, body_start=torch.tensor([2]))
        assert stream_labels(shifted, 0)[:3].tolist() == [-2, -2, -1]
        with pytest.raises(ValueError, match="no frame labels: detection needs untrimmed streams"):
            stream_labels(dataclasses.replace(data, frame_labels=None), 0)


class TestDetectors:
    """The scores of detectors whose quality is known."""

    def streams(self) -> list[Stream]:
        data = make_streams()
        return find_streams(data, "official", SHORT)[1]

    def test_a_perfect_one(self):
        streams = self.streams()
        scores = [torch.nn.functional.one_hot(stream.labels % 4, 4).double() for stream in streams]
        found = detection_scores(scores, streams, SHORT)
        assert found == pytest.approx(dict.fromkeys(("frame_map", "map_a", "map_v", "frame_accuracy"), 100.0))

    def test_a_random_one(self):
        streams = self.streams()
        generator = torch.Generator().manual_seed(0)
        scores = [torch.rand(stream.frames, 4, generator=generator).softmax(1) for stream in streams]
        found = detection_scores(scores, streams, SHORT)
        assert 10 < found["frame_map"] < 25  # about a sixth of the frames show a class
        assert 20 < found["frame_accuracy"] < 30
        assert found["map_a"] < 5

    def test_one_that_always_says_background(self):
        streams = self.streams()
        scores = [torch.tensor([[0.1, 0.1, 0.1, 0.7]]).expand(stream.frames, 4) for stream in streams]
        found = detection_scores(scores, streams, SHORT)
        share = [
            sum(int((stream.labels == label).sum()) for stream in streams)
            / sum(stream.frames for stream in streams)
            for label in (0, 1, 2, -1)
        ]
        assert found["frame_map"] == pytest.approx(100 * sum(share[:3]) / 3)  # all frames tie: chance
        assert found["frame_accuracy"] == pytest.approx(100 * share[3])
        assert (found["map_a"], found["map_v"]) == (0, 0)

    def test_unknown_frames_do_not_count(self):
        streams = self.streams()
        scores = [torch.nn.functional.one_hot(stream.labels % 4, 4).double() for stream in streams]
        hidden = streams[0].labels.clone()
        hidden[:5] = -2
        scores[0][:5] = torch.tensor([1.0, 0, 0, 0]).double()
        found = detection_scores(scores, [streams[0]._replace(labels=hidden), *streams[1:]], SHORT)
        assert found == pytest.approx(dict.fromkeys(found, 100.0))

    def test_segments_are_runs_of_the_best_class(self):
        scores = torch.tensor(
            [[0.9, 0.1, 0.0]] * 4 + [[0.1, 0.2, 0.7]] * 2 + [[0.2, 0.6, 0.2]] * 3 + [[0.8, 0, 0.2]]
        )
        config = DetectionConfig(window=4, stride=2, min_frames=3)
        found = detect_segments(scores, 5, config)
        assert [segment[:4] for segment in found] == [(5, 0, 0, 4), (5, 1, 6, 9)]
        assert [segment.score for segment in found] == pytest.approx([0.9, 0.6])

    def test_windows_without_a_body_are_background(self):
        stream = Stream(0, 8, torch.tensor([0, 4]), torch.full((8,), -1), torch.tensor([-1, -1]))
        config = DetectionConfig(window=4, stride=4)
        found = label_stream(torch.tensor([[0.25, 0.75]]), torch.tensor([1]), stream, config, 2)
        assert found.tolist() == [[0, 0, 1]] * 4 + [[0.25, 0.75, 0]] * 4


class TestProtocol:
    def test_finds_what_shows_in_the_pose(self):
        torch.manual_seed(0)
        results = compare_detection(
            MeanEncoder(width=8), make_streams(), seeds=[0, 1], config=SHORT, standardize=True
        )
        assert set(results) == {"raw", "input", "random", "encoder"}
        assert results["encoder"]["frame_map"]["accuracy"] > 85
        assert results["encoder"]["map_a"]["accuracy"] > 60
        assert results["raw"]["frame_map"]["accuracy"] > 85
        assert all(len(one["per_seed"]) == 2 for scores in results.values() for one in scores.values())

    def test_the_least_number_of_updates_reaches_every_row(self, monkeypatch):
        seen = []

        def fit(*sets, min_updates, **settings):
            seen.append(min_updates)
            return fit_linear(*sets, min_updates=min_updates, **settings)

        monkeypatch.setattr("fastamr.evaluation.protocols.detection.fit_linear", fit)
        results = compare_detection(MeanEncoder(width=8), make_streams(), config=SHORT, min_updates=120)
        assert seen == [120] * len(results)

    def test_labels_that_have_nothing_to_do_with_the_motion_are_not_found(self):
        data = make_streams(12)
        generator = torch.Generator().manual_seed(0)
        turned = data.frame_labels.clone()
        for clip in range(12):  # other classes in every stream, in the same places
            rows = slice(int(data.offsets[clip]), int(data.offsets[clip + 1]))
            order = torch.randperm(3, generator=generator).to(torch.int16)
            turned[rows] = torch.where(turned[rows] >= 0, order[turned[rows].long().clamp(min=0)], -1)
        data = dataclasses.replace(data, frame_labels=turned)
        results = compare_detection(MeanEncoder(width=8), data, config=SHORT, standardize=True)
        assert results["encoder"]["frame_map"]["accuracy"] < 60

    def test_every_window_is_pre_processed_for_itself(self):
        data = make_streams(2)
        moved = dataclasses.replace(
            data, coords=data.coords + torch.arange(data.num_frames)[:, None, None] * 0.1
        )
        streams = find_streams(moved, "official", SHORT)[0]
        seen: list[PackedSkeletons] = []

        def extract(windows: PackedSkeletons) -> torch.Tensor:
            seen.append(windows)
            return torch.zeros(windows.num_clips, 1)

        # The streams have been centred as streams; what was scaled stays scaled.
        done = dataclasses.replace(moved, steps=({"name": "center"}, {"name": "scale", "factor": 0.5}))
        wanted = [{"name": "scale", "factor": 0.5, "unit": None, "per": "body"}, "center"]
        done = dataclasses.replace(moved, steps=({"name": "center"}, wanted[0]))
        window_features(done, streams, 8, wanted, extract)
        starts = seen[0].coords[seen[0].offsets[:-1], 0]
        assert starts.abs().max() == 0
        assert [step["name"] for step in seen[0].steps] == ["scale", "center"]
        size = (seen[0].coords[:, 2] - seen[0].coords[:, 3]).norm(dim=-1).mean()
        assert float(size) == pytest.approx(0.4, abs=0.01)

    def test_trimmed_clips_in_the_same_file_are_no_streams(self):
        data = make_streams(4, labels=[-1, -1, 0, -1])
        train, test = find_streams(data, "official", SHORT)
        assert ([stream.clip for stream in train], [stream.clip for stream in test]) == ([0], [1, 3])

    def test_errors(self):
        data = make_streams(4)
        with pytest.raises(ValueError, match=r"unknown split 'xsub'.*'official'"):
            find_streams(data, "xsub", SHORT)
        with pytest.raises(ValueError, match="no frame labels"):
            find_streams(dataclasses.replace(data, frame_labels=None), "official", SHORT)
        idle = data.frame_labels.clone()
        idle[int(data.offsets[1]) : int(data.offsets[2])] = -1
        idle[int(data.offsets[3]) :] = -1
        with pytest.raises(ValueError, match="no test stream with an action"):
            find_streams(dataclasses.replace(data, frame_labels=idle), "official", SHORT)
        with pytest.raises(ValueError, match="seeds is empty"):
            compare_detection(MeanEncoder(), data, seeds=[])
        every_third = torch.where(torch.arange(data.num_frames) % 3 == 0, 1, -1).to(torch.int16)
        sparse = dataclasses.replace(data, frame_labels=every_third)
        with pytest.raises(ValueError, match=r"no training window of 400 frames .* shorten the window"):
            compare_detection(MeanEncoder(), sparse, config=DetectionConfig(window=400, stride=400))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"window": 0}, "window=0 must be at least 1"),
            ({"stride": 61}, "stride=61 must be at most window=60"),
            ({"iou": 0.0}, "iou=0.0 must be above 0"),
            ({"min_frames": 0}, "min_frames=0"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            DetectionConfig(**settings)


def test_from_streams_of_generated_motion_to_the_file(tmp_path, capsys):
    """All of it through the command line, with a model that was not trained."""
    from fastamr.cli import main
    from fastamr.models import build_model

    from .streams import synthetic_streams

    model = build_model("amr", frames=24, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1,
                        decoder_heads=2, target_patches=1)  # fmt: skip
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("steps: [center, align_body]")
    data = synthetic_streams(6, 3)
    data.save(tmp_path / "streams.safetensors")
    command = [
        "evaluate",
        "--checkpoint",
        str(tmp_path / "run"),
        "--data",
        str(tmp_path / "streams.safetensors"),
    ]
    command += ["--protocol", "detection", "--detection.window", "30", "--seeds", "0", "1", "--standardize"]
    assert main(command) == 0
    report = json.loads((tmp_path / "run" / "evaluation-streams-official-detection.json").read_text())
    assert report["detection"]["window"] == 30
    assert report["detection"]["steps_of_each_window"] == ["center", "align_body"]
    assert (report["split"]["train_streams"], report["split"]["test_streams"]) == (3, 3)
    raw = report["results"]["raw"]
    assert raw["frame_map"]["accuracy"] > 30  # chance: a fifth
    assert len(report["results"]["encoder"]["map_v"]["per_seed"]) == 2
    printed = capsys.readouterr().out
    for word in ("3 training and 3 test streams", "frame mAP", "mAP_a", "mAP_v", "raw coordinates", "AMR"):
        assert word in printed


def test_the_segments_of_generated_streams_are_those_they_were_made_of():
    from fastamr.evaluation.protocols.detection_metrics import segments_of

    from .streams import synthetic_streams

    data = synthetic_streams(2, 3)
    truth = segments_of(stream_labels(data, 1), 1)
    assert len(truth) == 3
    assert all(isinstance(segment, Segment) and 50 <= segment.end - segment.start <= 60 for segment in truth)
    assert segment_map(truth, truth) == (100.0, 100.0)


def test_from_the_files_of_pku_mmd(tmp_path):
    """Raw text files, prepared as streams, are labelled from the first file to the last number."""
    from fastamr.data import load
    from fastamr.data.prepare.prepare import prepare
    from fastamr.evaluation.protocols.detection_metrics import segments_of
    from fastamr.models import build_model

    from ...data.readers.writers import pku_label_text, pku_split_text, pku_text
    from .streams import synthetic_streams
    from .test_transfer import TINY

    made = synthetic_streams(4, 3)
    folder = tmp_path / "raw"
    folder.mkdir()
    names = [f"000{place}-M" for place in range(4)]
    for place, name in enumerate(names):
        rows = slice(int(made.offsets[place]), int(made.offsets[place + 1]))
        stream = np.zeros((rows.stop - rows.start, 2, 25, 3), np.float32)
        stream[:, 0] = made.coords[rows].numpy()
        (folder / f"{name}.txt").write_bytes(pku_text(stream))
        labels = [
            (one.label + 1, one.start, one.end, 1) for one in segments_of(stream_labels(made, place), 0)
        ]
        (folder / "label").mkdir(exist_ok=True)
        (folder / "label" / f"{name}.txt").write_bytes(pku_label_text(labels))
    (folder / "cross-subject.txt").write_bytes(pku_split_text(names[:2], names[2:]))
    prepare("pku1", folder, tmp_path / "streams.safetensors", options={"keep": "streams"})
    data = load(tmp_path / "streams.safetensors")
    for place in range(4):
        assert torch.equal(stream_labels(data, place), stream_labels(made, place))
    train, test = find_streams(data, "xsub", DetectionConfig())
    assert ([stream.clip for stream in train], [stream.clip for stream in test]) == ([0, 1], [2, 3])
    config = DetectionConfig(window=30)
    model = build_model("amr", **TINY)
    results = compare_detection(model, data, "xsub", steps=["center"], config=config, standardize=True)
    assert results["raw"]["frame_map"]["accuracy"] > 25
