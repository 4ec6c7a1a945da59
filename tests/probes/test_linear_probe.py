from __future__ import annotations

import builtins
import math

import pytest
import torch
from torch.nn import functional

from fastamr.evaluation import logistic_regression, standardize_features
from fastamr.probes import linear_probe
from fastamr.probes.linear_probe import NTU_UPDATES


def _blobs(clips: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(clips) % 3
    centres = torch.tensor([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]])
    return centres[labels] + torch.randn(clips, 4, generator=generator), labels


def test_separable_classes_are_learned_by_both_probes():
    train_x, train_y = _blobs(300)
    test_x, test_y = _blobs(90, seed=1)
    # The Bayes rule of these blobs: the largest of the first three coordinates.
    best = 100 * float((test_x[:, :3].argmax(1) == test_y).double().mean())
    result = linear_probe(train_x, train_y, test_x, test_y)
    assert result.accuracy == pytest.approx(best, abs=2.0)
    assert result.best_accuracy >= result.accuracy
    assert 1 <= result.best_epoch <= 100
    pytest.importorskip("sklearn")
    assert logistic_regression(train_x, train_y, test_x, test_y) == pytest.approx(best, abs=2.0)


def test_updates_follow_sgd_with_momentum_and_cosine():
    train_x, train_y = _blobs(6)
    epochs, lr = 3, 0.2
    result = linear_probe(train_x, train_y, train_x, train_y, epochs=epochs, batch_size=6, lr=lr, seed=3)
    generator = torch.Generator().manual_seed(3)
    weight = 0.01 * torch.randn(3, 4, generator=generator)
    bias, speed_w, speed_b = torch.zeros(3), torch.zeros(3, 4), torch.zeros(3)
    for epoch in range(epochs):
        logits = train_x @ weight.T + bias
        loss = functional.cross_entropy(logits, train_y)
        error = (logits.softmax(1) - functional.one_hot(train_y, 3)) / 6
        speed_w = 0.9 * speed_w + error.T @ train_x
        speed_b = 0.9 * speed_b + error.sum(0)
        rate = lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
        weight, bias = weight - rate * speed_w, bias - rate * speed_b
    assert result.train_loss == pytest.approx(float(loss), rel=1e-5)
    expected = ((train_x @ weight.T + bias).argmax(1) == train_y).double().mean()
    assert result.accuracy == pytest.approx(100 * float(expected))


def test_seed_alone_decides():
    train_x, train_y = _blobs(40)
    results = []
    for seed in (0, 0, 1):
        torch.randn(7)
        results.append(linear_probe(train_x, train_y, train_x, train_y, epochs=2, batch_size=16, seed=seed))
    assert results[0] == results[1]
    assert results[0].train_loss != results[2].train_loss


def test_reports_the_last_epoch_and_not_the_best():
    # Labels without any relation to the features: the accuracy wanders while the layer learns.
    train_x, train_y = _blobs(30)
    test_x = _blobs(50, seed=5)[0]
    test_y = torch.randint(3, (50,), generator=torch.Generator().manual_seed(2))
    results = [linear_probe(train_x, train_y, test_x, test_y, epochs=20, lr=0.002, seed=s) for s in range(6)]
    assert any(result.best_accuracy > result.accuracy and result.best_epoch < 20 for result in results)


def test_scaling_lets_tiny_features_be_learned():
    train_x, train_y = _blobs(90)
    test_x, test_y = _blobs(90, seed=1)
    tiny, offset = 1e-4, 3.0
    sets = (train_x * tiny + offset, train_y, test_x * tiny + offset, test_y)
    plain = linear_probe(*sets, epochs=20)
    scaled = linear_probe(*sets, epochs=20, standardize=True)
    assert plain.accuracy < 60
    assert scaled.accuracy > 90


def test_standardize_uses_training_statistics_only():
    train = torch.tensor([[1.0, 5, 0], [3.0, 5, 0]])
    test = torch.tensor([[5.0, 7, 9]])
    first, second = standardize_features(train, test)
    torch.testing.assert_close(first, torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]))
    # A dimension that is constant in training carries nothing.
    torch.testing.assert_close(second, torch.tensor([[3.0, 0, 0]]))


def test_standardize_with_nothing_but_constants_is_zero():
    (only,) = standardize_features(torch.full((4, 2), 7.0))
    assert only.tolist() == [[0.0, 0.0]] * 4


def test_inference_tensors_are_accepted():
    with torch.inference_mode():
        train_x, train_y = _blobs(30)
        train_x, train_y = train_x.clone(), train_y.clone()
    assert linear_probe(train_x, train_y, train_x, train_y, epochs=1).train_loss > 0


def test_a_class_without_training_clips_counts_as_wrong():
    train_x, train_y = _blobs(60)
    test_x, test_y = _blobs(30, seed=1)
    result = linear_probe(train_x, train_y, test_x, torch.where(test_y == 2, 9, test_y))
    assert result.accuracy <= 100 * 20 / 30


def test_a_least_number_of_updates_lengthens_the_run_in_whole_epochs():
    train_x, train_y = _blobs(40)
    test_x, test_y = _blobs(30, seed=1)
    sets, three = (train_x, train_y, test_x, test_y), {"batch_size": 16, "seed": 4}  # 3 updates an epoch
    assert linear_probe(*sets, epochs=2, min_updates=6, **three) == linear_probe(*sets, epochs=2, **three)
    assert linear_probe(*sets, epochs=2, min_updates=7, **three) == linear_probe(*sets, epochs=3, **three)
    assert linear_probe(*sets, epochs=9, min_updates=7, **three) == linear_probe(*sets, epochs=9, **three)
    assert (
        linear_probe(*sets, epochs=2, **three).train_loss != linear_probe(*sets, epochs=3, **three).train_loss
    )


def test_the_recipe_has_this_many_updates_on_ntu_60():
    # Labelled clips of NTU-60 xsub without the 302 that lack a skeleton.
    assert 100 * math.ceil(40_091 / 256) == NTU_UPDATES


def test_the_least_number_of_updates_is_checked():
    x, y = _blobs(6)
    with pytest.raises(ValueError, match="min_updates=-1 must be 0"):
        linear_probe(x, y, x, y, min_updates=-1)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "lr"])
def test_settings_must_be_positive(name):
    x, y = _blobs(6)
    with pytest.raises(ValueError, match=f"{name}=0 must be positive"):
        linear_probe(x, y, x, y, **{name: 0})


def test_logistic_regression_errors():
    x, y = _blobs(6)
    with pytest.raises(ValueError, match="only class 0"):
        logistic_regression(x, torch.zeros_like(y), x, y)
    with pytest.raises(ValueError, match="C=0"):
        logistic_regression(x, y, x, y, C=0)


def test_logistic_regression_without_scikit_learn_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError("No module named 'sklearn'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    x, y = _blobs(6)
    with pytest.raises(ImportError, match=r"pip install 'fastamr\[eval\]'"):
        logistic_regression(x, y, x, y)
