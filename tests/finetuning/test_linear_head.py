from __future__ import annotations

import pytest
import torch

from fastamr.evaluation import extract_features, logistic_regression
from fastamr.finetuning.classifier import accuracy_of
from fastamr.finetuning.linear_head import fit_linear_head, linear_classifier
from fastamr.models import build_model
from fastamr.probes.checks import percent_equal

pytest.importorskip("sklearn")


def blobs(classes: int = 3, count: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(count) % classes
    centres = 3 * torch.randn(classes, 5)
    # Dimensions of very different scale and offset, one of them constant.
    x = (centres[labels] + torch.randn(count, 5)) * torch.tensor([1.0, 100.0, 0.01, 1.0, 0.0])
    return x + torch.tensor([0.0, 1e4, 0.0, -3.0, 7.0]), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_is_the_logistic_regression_as_one_layer(classes) -> None:
    x, y = blobs(classes)
    weight, bias = fit_linear_head(x[:60], y[:60], classes)
    predicted = torch.nn.functional.linear(x[60:].double(), weight.double(), bias.double()).argmax(1)
    expected = logistic_regression(x[:60], y[:60], x[60:], y[60:])
    assert expected > 80
    assert percent_equal(predicted, y[60:]) == pytest.approx(expected)
    from sklearn.linear_model import LogisticRegression

    mean, scale = x[:60].double().mean(0), x[:60].double().std(0, correction=0)
    scaled = torch.where(scale > 1e-4, (x.double() - mean) / scale, 0.0).numpy()
    fitted = LogisticRegression(max_iter=1000).fit(scaled[:60], y[:60].numpy())
    found = torch.nn.functional.linear(x.double(), weight.double(), bias.double()).softmax(1)
    torch.testing.assert_close(found, torch.from_numpy(fitted.predict_proba(scaled)), atol=2e-3, rtol=0)


def test_a_class_without_clips_is_never_predicted() -> None:
    x, y = blobs(3)
    weight, bias = fit_linear_head(x, y * 2, 6)
    logits = torch.nn.functional.linear(x, weight, bias)
    assert set(logits.argmax(1).tolist()) <= {0, 2, 4}
    assert float(logits.softmax(1)[:, [1, 3, 5]].max()) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 2}, r"class 2, expected 0 to 1"),
        ({"train_y": torch.zeros(90, dtype=torch.int64)}, r"only class 0"),
        ({"C": 0.0}, r"C=0.0 must be positive"),
    ],
)
def test_wrong_arguments(change, message) -> None:
    x, y = blobs(3)
    arguments = {"train_x": x, "train_y": y, "classes": 3} | change
    with pytest.raises(ValueError, match=message):
        fit_linear_head(**arguments)


def test_a_classifier_of_frozen_features(make_data) -> None:
    data = make_data(clips=60, label_names=("a", "b", "c", "unused"))
    model = build_model(
        "amr", layout=data.layout, frames=8, width=16, depth=1, heads=2, decoder_width=8, decoder_depth=1,
        decoder_heads=2, target_patches=1,
    )  # fmt: skip
    train, test = data.split("official").train, data.split("official").test
    classifier = linear_classifier(model, data, train)
    x = extract_features(model, data)
    expected = logistic_regression(x[train], data.labels[train], x[test], data.labels[test])
    assert accuracy_of(classifier, data, test) == pytest.approx(expected)
    assert expected > 90
    assert classifier.class_names == ("a", "b", "c")
    assert all(p.requires_grad for p in model.parameters())
    assert classifier.encoder is not model
