from __future__ import annotations

import math

import pytest
import torch

from fastamr.evaluation import knn_accuracy, knn_predict


def _unit(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def test_one_neighbour_is_by_angle_and_not_by_distance():
    train = torch.tensor([[1.0, 0.0], [30.0, 40.0]])
    # (3, 4) points along the second vector and lies closer to the first.
    assert knn_predict(train, torch.tensor([0, 1]), torch.tensor([[3.0, 4.0]])).tolist() == [1]


def test_weighted_vote_by_hand():
    train, labels = _unit(0, 40, 44), torch.tensor([0, 1, 1])
    query = _unit(10)
    near, far = math.cos(math.radians(10)), math.cos(math.radians(30))
    third = math.cos(math.radians(34))
    for temperature in (0.02, 5.0):
        votes = [
            math.exp(near / temperature),
            math.exp(far / temperature) + math.exp(third / temperature),
        ]
        expected = votes.index(max(votes))
        assert knn_predict(train, labels, query, k=3, temperature=temperature).tolist() == [expected]
    # The two temperatures decide differently, so the weights are seen to matter.
    assert knn_predict(train, labels, query, k=3, temperature=0.02).tolist() == [0]
    assert knn_predict(train, labels, query, k=3, temperature=5.0).tolist() == [1]


def test_low_temperature_does_not_overflow():
    train, labels = _unit(0, 90), torch.tensor([0, 1])
    assert knn_predict(train, labels, _unit(80), k=2, temperature=1e-3).tolist() == [1]


def test_equal_votes_go_to_the_lower_class():
    train = _unit(-20, 20)
    assert knn_predict(train, torch.tensor([1, 0]), _unit(0), k=2).tolist() == [0]
    assert knn_predict(train, torch.tensor([0, 1]), _unit(0), k=2).tolist() == [0]


def test_more_neighbours_than_training_clips_means_all():
    train, labels = _unit(0, 5, 90), torch.tensor([2, 2, 7])
    assert knn_predict(train, labels, _unit(1, 89), k=20).tolist() == [2, 7]


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("k", [1, 5])
def test_chunks_do_not_matter_and_a_loop_agrees(chunk, k):
    generator = torch.Generator().manual_seed(1)
    train, test = torch.randn(23, 6, generator=generator), torch.randn(7, 6, generator=generator)
    labels = torch.randint(4, (23,), generator=generator)
    expected = []
    for query in test.double():
        similarity = [float(query @ x / query.norm() / x.norm()) for x in train.double()]
        votes = [0.0] * 4
        for index in sorted(range(23), key=lambda place: -similarity[place])[:k]:
            votes[int(labels[index])] += math.exp(similarity[index] / 0.07)
        expected.append(votes.index(max(votes)))
    assert knn_predict(train, labels, test, k=k, chunk=chunk).tolist() == expected


def test_a_class_without_training_clips_counts_as_wrong():
    train, labels = _unit(0, 90), torch.tensor([0, 1])
    accuracy = knn_accuracy(train, labels, _unit(1, 91, 45, 44), torch.tensor([0, 1, 5, 5]))
    assert accuracy == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_x": torch.zeros(0, 2), "train_y": torch.zeros(0, dtype=torch.int64)},
            "train_x holds no clip",
        ),
        ({"test_x": torch.zeros(0, 2), "test_y": torch.zeros(0, dtype=torch.int64)}, "test_y holds no clip"),
        ({"test_x": torch.zeros(1, 3)}, r"test_x has shape \(1, 3\)"),
        ({"train_x": torch.zeros(2)}, r"train_x has shape \(2,\)"),
        ({"train_y": torch.tensor([0])}, r"train_y has shape \(1,\), expected \(2,\)"),
        ({"test_y": torch.tensor([-1])}, "test_y holds -1"),
        ({"test_y": torch.tensor([0.5])}, "expected class indices"),
        ({"train_x": torch.tensor([[0.0, 1], [math.nan, 0]])}, "train_x is not finite in row 1"),
        ({"k": 0}, "k=0"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_errors_name_the_argument(change, message):
    given = {
        "train_x": _unit(0, 90),
        "train_y": torch.tensor([0, 1]),
        "test_x": _unit(3),
        "test_y": torch.tensor([0]),
    }
    with pytest.raises(ValueError, match=message):
        knn_accuracy(**(given | change))
