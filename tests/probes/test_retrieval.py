from __future__ import annotations

import json

import pytest
import torch

from fastamr.evaluation import average_precision, compare, mean_average_precision
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.models import build_model


def at(*degrees: float) -> torch.Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_by_hand() -> None:
    # From the query at 0 degrees the gallery ranks 1, 0, 1, 0, 1.
    gallery, classes = at(10, 20, 30, 40, 50), torch.tensor([1, 0, 1, 0, 1])
    queries, labels = at(0, 0, 90), torch.tensor([1, 0, 1])
    expected = [
        (1 / 1 + 2 / 3 + 3 / 5) / 3,
        (1 / 2 + 2 / 4) / 2,
        (1 / 1 + 2 / 3 + 3 / 5) / 3,  # from the other end the ranks are the same
    ]
    found = average_precision(gallery, classes, queries, labels)
    assert found.tolist() == pytest.approx(expected)
    assert mean_average_precision(gallery, classes, queries, labels) == pytest.approx(100 * sum(expected) / 3)


def test_length_does_not_matter_but_direction_does() -> None:
    gallery = at(0, 60) * torch.tensor([[0.1], [100.0]])
    assert average_precision(gallery, torch.tensor([0, 1]), at(20), torch.tensor([0])).tolist() == [1.0]


def test_a_class_without_training_clips_is_wrong() -> None:
    found = average_precision(at(0, 10), torch.tensor([0, 1]), at(0, 0), torch.tensor([2, 0]))
    assert found.tolist() == [0.0, 1.0]


def test_equally_similar_clips_rank_in_their_order() -> None:
    gallery = at(0).expand(3, 2)
    found = average_precision(gallery, torch.tensor([0, 1, 1]), at(0), torch.tensor([1]))
    assert found.tolist() == pytest.approx([(1 / 2 + 2 / 3) / 2])


def test_chunks_change_nothing() -> None:
    torch.manual_seed(0)
    sets = torch.randn(40, 5), torch.randint(4, (40,)), torch.randn(11, 5), torch.randint(4, (11,))
    torch.testing.assert_close(average_precision(*sets, chunk=3), average_precision(*sets))


def test_errors() -> None:
    sets = at(0), torch.tensor([0]), at(0), torch.tensor([0])
    with pytest.raises(ValueError, match="chunk=0 must be at least 1"):
        average_precision(*sets, chunk=0)
    with pytest.raises(ValueError, match=r"train_y has shape \(2,\)"):
        average_precision(at(0), torch.tensor([0, 1]), *sets[2:])


def test_all_rows_get_the_three_columns(encoder, make_data) -> None:
    results = compare(encoder, make_data(), protocol="retrieval", seeds=[0, 1])
    assert set(results) == {"raw", "input", "random", "encoder"}
    assert all(set(scores) == {"knn_1", "knn_20", "map"} for scores in results.values())
    assert len(results["random"]["map"]["per_seed"]) == 2


def test_the_command_writes_a_file_of_its_own(tmp_path, make_data, capsys) -> None:
    model = build_model(
        "mamp",
        layout=make_data(clips=1).layout,
        frames=8,
        width=8,
        depth=1,
        heads=2,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=2,
    )
    model.save_pretrained(tmp_path)
    config = EvaluateConfig(
        checkpoint=str(tmp_path), data=["unused"], protocol="retrieval", seeds=[0, 1], device="cpu"
    )
    report = evaluate(config, data=make_data())
    written = json.loads((tmp_path / "evaluation-unused-official-retrieval.json").read_text())
    assert written == json.loads(json.dumps(report))
    assert written["config"]["protocol"] == "retrieval"
    assert "recipes" not in written
    printed = capsys.readouterr().out
    assert "mAP" in printed
    assert "raw coordinates" in printed
    assert "+-" in printed
