from __future__ import annotations

import pytest
import torch

from fastamr.evaluation.protocols.detection_metrics import (
    Segment,
    frame_average_precision,
    frame_map,
    overlap,
    segment_average_precision,
    segment_map,
    segments_of,
)


class TestFrames:
    def test_by_hand(self):
        # Ranks: right, wrong, right, wrong, right. Precisions at the right ones: 1, 2/3, 3/5.
        scores = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3])
        positive = torch.tensor([True, True, True, False, False])
        assert frame_average_precision(scores, positive) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)

    def test_equal_scores_are_one_step(self):
        # 0.9 right: 1 of 1. The three at 0.5, two of them right: 3 of 4, for both. 0.1 wrong.
        scores = torch.tensor([0.5, 0.5, 0.9, 0.5, 0.1])
        positive = torch.tensor([True, False, True, True, False])
        expected = (1 + 2 * 3 / 4) / 3
        assert frame_average_precision(scores, positive) == pytest.approx(expected)
        turned = torch.tensor([4, 3, 2, 1, 0])
        assert frame_average_precision(scores[turned], positive[turned]) == pytest.approx(expected)

    def test_agrees_with_scikit_learn(self):
        metrics = pytest.importorskip("sklearn.metrics")
        generator = torch.Generator().manual_seed(0)
        scores = torch.randint(0, 30, (500,), generator=generator) / 30
        positive = torch.rand(500, generator=generator) < 0.2
        expected = metrics.average_precision_score(positive.numpy(), scores.numpy())
        assert frame_average_precision(scores, positive) == pytest.approx(expected)

    def test_mean_over_the_classes_that_occur(self):
        # Class 0: right, wrong, right -> (1 + 2/3)/2. Class 2: its one frame comes second -> 1/2. Class 1: never shown.
        scores = torch.tensor([[0.9, 0.2, 0.0], [0.5, 0.9, 0.8], [0.4, 0.1, 0.7], [0.0, 0.3, 0.1], [9, 9, 9]])
        labels = torch.tensor([0, -1, 2, -1, -2])
        assert frame_map(scores, labels) == pytest.approx(100 * (1 + 1 / 2) / 2)
        labels[3] = 0
        assert frame_map(scores, labels) == pytest.approx(100 * ((1 + 2 / 4) / 2 + 1 / 2) / 2)

    def test_a_class_without_a_score_counts_as_chance(self):
        labels = torch.tensor([0, 0, 1, -1])
        assert frame_map(torch.tensor([[0.9], [0.8], [0.1], [0.0]]), labels) == pytest.approx(
            100 * (1 + 1 / 4) / 2
        )

    def test_perfect_and_random(self):
        generator = torch.Generator().manual_seed(1)
        labels = torch.randint(-1, 4, (20000,), generator=generator)
        perfect = torch.nn.functional.one_hot(labels + 1, 5)[:, 1:].float()
        assert frame_map(perfect, labels) == pytest.approx(100)
        chance = frame_map(torch.rand(20000, 4, generator=generator), labels)
        assert chance == pytest.approx(20, abs=1.5)  # a class has a fifth of the frames

    def test_errors(self):
        with pytest.raises(ValueError, match="no action in any frame"):
            frame_map(torch.ones(2, 1), torch.tensor([-1, -2]))
        with pytest.raises(ValueError, match="marks no frame"):
            frame_average_precision(torch.ones(2), torch.zeros(2, dtype=torch.bool))
        with pytest.raises(ValueError, match="one score and one bool a frame"):
            frame_average_precision(torch.ones(2), torch.ones(3, dtype=torch.bool))


class TestSegments:
    def test_runs_of_a_label(self):
        labels = torch.tensor([2, 2, -1, -1, 0, 2, -2, 2])
        scores = torch.tensor([0.5, 1.0, 0, 0, 0.25, 0.75, 0, 1])
        assert segments_of(labels, 7, scores) == [
            Segment(7, 2, 0, 2, 0.75),
            Segment(7, 0, 4, 5, 0.25),
            Segment(7, 2, 5, 6, 0.75),
            Segment(7, 2, 7, 8, 1.0),
        ]
        assert segments_of(torch.tensor([1]), 0) == [Segment(0, 1, 0, 1)]
        assert segments_of(torch.tensor([-1, -1]), 0) == []

    def test_overlap(self):
        assert overlap(Segment(0, 1, 0, 10), Segment(0, 1, 5, 15)) == pytest.approx(5 / 15)
        assert overlap(Segment(0, 1, 0, 10), Segment(0, 1, 0, 10)) == 1
        assert overlap(Segment(0, 1, 0, 10), Segment(0, 1, 10, 15)) == 0
        assert overlap(Segment(0, 1, 0, 10), Segment(0, 2, 0, 10)) == 0
        assert overlap(Segment(0, 1, 0, 10), Segment(1, 1, 0, 10)) == 0

    def test_average_precision_by_hand(self):
        truth = [Segment(0, 0, 0, 10), Segment(0, 0, 20, 30), Segment(1, 0, 0, 10)]
        detected = [
            Segment(0, 0, 1, 10, 0.9),  # right, 9/10
            Segment(0, 0, 0, 9, 0.8),  # the same segment again: wrong
            Segment(1, 0, 4, 10, 0.7),  # right, 6/10
            Segment(0, 0, 26, 40, 0.6),  # 4 of 20: wrong
        ]
        # Precisions 1, 1/2, 2/3, 1/2; recalls 1/3, 1/3, 2/3, 2/3; the third segment is never found.
        assert segment_average_precision(detected, truth) == pytest.approx((1 + 2 / 3) / 3)
        assert segment_average_precision(detected, truth, iou=0.7) == pytest.approx(1 / 3)
        assert segment_average_precision(reversed(detected), truth) == pytest.approx((1 + 2 / 3) / 3)
        assert segment_average_precision([], truth) == 0

    def test_precision_is_interpolated(self):
        # Wrong, right, right: precisions 0, 1/2, 2/3; at the first recall the later, better one holds.
        truth = [Segment(0, 0, 0, 10), Segment(0, 0, 20, 30)]
        detected = [Segment(0, 0, 12, 18, 0.9), Segment(0, 0, 0, 10, 0.8), Segment(0, 0, 20, 30, 0.7)]
        assert segment_average_precision(detected, truth) == pytest.approx(2 / 3)

    def test_exactly_the_threshold_is_enough(self):
        assert segment_average_precision([Segment(0, 0, 0, 5)], [Segment(0, 0, 0, 10)]) == 1

    def test_means_over_actions_and_over_streams(self):
        truth = [Segment(0, 0, 0, 10), Segment(0, 1, 20, 30), Segment(1, 0, 0, 10)]
        detected = [Segment(0, 0, 0, 10, 0.9), Segment(0, 5, 40, 50, 0.95), Segment(1, 1, 0, 10, 0.5)]
        # Action 0: one of two found, first -> 1/2; action 1: 0; action 5 is nobody's.
        # Stream 0: wrong, right -> 1/2 of one of two; stream 1: 0.
        by_action, by_stream = segment_map(detected, truth)
        assert by_action == pytest.approx(100 * (1 / 2 + 0) / 2)
        assert by_stream == pytest.approx(100 * (1 / 2 / 2 + 0) / 2)
        assert segment_map(truth, truth) == (100, 100)

    def test_no_truth(self):
        with pytest.raises(ValueError, match="no segment"):
            segment_average_precision([], [])
        with pytest.raises(ValueError, match="no stream of the test half shows an action"):
            segment_map([], [])
