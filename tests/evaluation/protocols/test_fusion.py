from __future__ import annotations

import json

import pytest
import torch

from fastamr.data import preprocess
from fastamr.evaluation import extract_features, knn_accuracy, random_encoder
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.evaluation.protocols.fusion import EncodedStream, compare_streams, fuse_scores
from fastamr.models import build_model
from fastamr.probes import linear_probe
from fastamr.probes.knn import knn_predict, knn_scores
from fastamr.probes.linear_probe import fit_linear, logistic_regression, logistic_scores

from ...mean_encoder import MeanEncoder
from .test_transfer import TINY


class TestScores:
    def test_weighted_sums_by_hand(self):
        joint = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
        bone = torch.tensor([[0.3, 0.7], [0.8, 0.2]])
        torch.testing.assert_close(
            fuse_scores([joint, bone]), torch.tensor([[0.9, 1.1], [0.9, 1.1]]).double()
        )
        fused = fuse_scores([joint, bone], [1.0, 0.25])
        torch.testing.assert_close(fused, torch.tensor([[0.675, 0.575], [0.3, 0.95]]).double())

    def test_what_does_not_fit(self):
        with pytest.raises(ValueError, match="weights has 1 entries for 2 streams"):
            fuse_scores([torch.ones(2, 2)] * 2, [1.0])
        with pytest.raises(ValueError, match=r"shapes \[\(2, 2\), \(3, 2\)\]"):
            fuse_scores([torch.ones(2, 2), torch.ones(3, 2)])

    def test_neighbours_share_their_votes(self):
        train = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        # Similarities 0.8, 0.8 and 0.6; class 1 is nobody's.
        scores = knn_scores(train, torch.tensor([0, 2, 0]), torch.tensor([[4.0, 3.0]]), k=3, temperature=0.2)
        third = torch.tensor(-0.2 / 0.2).exp()
        expected = torch.tensor([1 + third, 0, 1]) / (2 + third)
        torch.testing.assert_close(scores[0], expected)
        assert knn_predict(train, torch.tensor([0, 2, 0]), torch.tensor([[4.0, 3.0]]), k=3).item() == 0

    def test_probabilities_decide_as_the_probes_do(self):
        generator = torch.Generator().manual_seed(0)
        y = torch.arange(60) % 3
        x = torch.randn(60, 4, generator=generator) + torch.nn.functional.one_hot(y, 4)
        sets = x[:40], y[:40], x[40:]
        fit = fit_linear(*sets[:2], epochs=5, seed=3)
        assert fit.scores(sets[2]).sum(1).sub(1).abs().max() < 1e-6
        probe = linear_probe(*sets, y[40:], epochs=5, seed=3)
        assert tuple(fit.scores(sets[2]).argmax(1).tolist()) == probe.predicted
        assert fit.train_loss == probe.train_loss
        pytest.importorskip("sklearn")
        scores = logistic_scores(x[:40], torch.where(y[:40] == 1, 5, y[:40]), x[40:])
        assert scores.shape == (20, 6)
        assert scores[:, [1, 3, 4]].max() == 0
        assert scores.sum(1).sub(1).abs().max() < 1e-9
        share = (logistic_scores(*sets).argmax(1) == y[40:]).double().mean()
        assert logistic_regression(*sets, y[40:]) == pytest.approx(100 * float(share))


class TestStreams:
    def encoded(self, make_data) -> list[EncodedStream]:
        torch.manual_seed(0)
        data = make_data()
        return [
            EncodedStream("joint", MeanEncoder(), preprocess(data, ["center"])),
            EncodedStream("bone", MeanEncoder(), preprocess(data, ["bone"])),
        ]

    def test_fused_accuracy_by_hand(self, make_data):
        streams = self.encoded(make_data)
        results, own = compare_streams(streams, protocol="all", seeds=[0, 4], weights=[1.0, 0.5])
        assert list(own) == ["joint", "bone"]
        assert set(results) == {"raw", "input", "random", "encoder"}
        split, y = streams[0].data.split("official"), streams[0].data.labels
        neighbours, layers = [], []
        for stream in streams:
            x = extract_features(stream.model, stream.data)
            neighbours.append(knn_scores(x[split.train], y[split.train], x[split.test], k=20))
            fit = fit_linear(x[split.train], y[split.train], seed=4)
            layers.append(fit.scores(x[split.test]))
            expected = knn_accuracy(x[split.train], y[split.train], x[split.test], y[split.test], k=20)
            assert own[stream.name]["encoder"]["knn_20"]["accuracy"] == pytest.approx(expected)
        for probe, (joint, bone), seed in (("knn_20", neighbours, 0), ("linear", layers, 1)):
            share = ((joint + 0.5 * bone).argmax(1) == y[split.test]).double().mean()
            assert results["encoder"][probe]["per_seed"][seed] == pytest.approx(100 * float(share))
        assert len(results["random"]["knn_20"]["per_seed"]) == 2
        assert len(results["encoder"]["knn_20"]["per_seed"]) == 1

    def test_the_least_number_of_updates_reaches_every_layer(self, make_data, monkeypatch):
        seen = []

        def fit(*sets, min_updates, **settings):
            seen.append(min_updates)
            return fit_linear(*sets, min_updates=min_updates, **settings)

        monkeypatch.setattr("fastamr.evaluation.protocols.fusion.fit_linear", fit)
        compare_streams(self.encoded(make_data), protocol="linear", seeds=[0, 1], min_updates=120)
        assert seen == [120] * 2 * (2 * 3 + 1)  # seeds, streams, their rows, and raw coordinates

    def test_each_seed_has_its_own_random_encoders(self, make_data):
        labels = torch.randint(0, 3, (120,), generator=torch.Generator().manual_seed(1)).tolist()
        data = make_data(clips=120, labels=labels)
        streams = [
            EncodedStream(step, MeanEncoder(), preprocess(data, [step])) for step in ("center", "bone")
        ]
        results, _ = compare_streams(streams, protocol="knn", seeds=[0, 1, 2, 3])
        split, y = data.split("official"), data.labels
        for place, found in enumerate(results["random"]["knn_20"]["per_seed"]):
            scores = []
            for stream in streams:
                x = extract_features(random_encoder(stream.model, place), stream.data)
                scores.append(knn_scores(x[split.train], y[split.train], x[split.test], k=20))
            share = (sum(scores).argmax(1) == y[split.test]).double().mean()
            assert found == pytest.approx(100 * float(share))
        assert len(set(results["random"]["knn_20"]["per_seed"])) > 1

    def test_a_stream_without_weight_does_not_count(self, make_data):
        streams = self.encoded(make_data)
        results, own = compare_streams(streams, protocol="linear", weights=[0.0, 2.0])
        assert results["encoder"] == own["bone"]["encoder"]
        assert results["input"] == own["bone"]["input"]

    def test_two_of_a_kind_have_two_names(self, make_data):
        streams = self.encoded(make_data)
        _, own = compare_streams([*streams, streams[1]], protocol="knn")
        assert list(own) == ["joint", "bone", "bone 2"]
        assert own["bone"] == own["bone 2"]


def test_from_runs_of_three_streams_to_the_file(make_data, tmp_path, capsys):
    steps = {"joint": "[center]", "bone": "[center, bone]", "motion": "[center, 'motion:stride=2']"}
    for name, text in steps.items():
        model = build_model("amr", layout=make_data(clips=1).layout, **TINY)
        model.save_pretrained(tmp_path / name)
        (tmp_path / name / "config.yaml").write_text(f"steps: {text}\n")
    runs = [str(tmp_path / name) for name in steps]
    config = EvaluateConfig(
        checkpoint=runs[0], fuse=runs[1:], data=["x"], weights=[0.6, 0.6, 0.4], seeds=[0, 1], device="cpu"
    )
    report = evaluate(config, data=make_data())
    written = json.loads((tmp_path / "joint" / "evaluation-x-official-all-fused.json").read_text())
    assert written == json.loads(json.dumps(report))
    assert [one["stream"] for one in report["streams"]] == ["joint", "bone", "motion"]
    assert [one["weight"] for one in report["streams"]] == [0.6, 0.6, 0.4]
    assert report["streams"][2]["steps"][-1] == {"name": "motion", "stride": 2}
    assert set(report["pretraining"]) == set(runs)
    assert set(report["streams"][1]["results"]) == {"input", "random", "encoder"}
    printed = capsys.readouterr().out
    for word in ("AMR, fused", "AMR, bone", "AMR, motion", "random, fused", "raw coordinates"):
        assert word in printed

    recipe = {"epochs": 1, "hidden": 0, "min_frames": 2}
    config = EvaluateConfig(
        checkpoint=runs[0], fuse=runs[1:2], data=["x"], protocol="finetune", finetune=recipe, device="cpu"
    )
    report = evaluate(config, data=make_data(), quiet=True)
    assert set(report["results"]) == {"random", "encoder"}
    assert report["recipes"]["encoder"]["epochs"] == 1
    assert (tmp_path / "joint" / "evaluation-x-official-finetune-fused.json").is_file()


def test_streams_of_other_clips_are_refused(make_data, tmp_path):
    for name, text in {"joint": "[]", "gaps": "[drop_empty_bodies]"}.items():
        build_model("amr", layout=make_data(clips=1).layout, **TINY).save_pretrained(tmp_path / name)
        (tmp_path / name / "config.yaml").write_text(f"steps: {text}\n")
    data = make_data(lengths=(8,), bodies=(1,))
    data.coords[:8] = 0
    config = EvaluateConfig(
        checkpoint=str(tmp_path / "joint"), fuse=[str(tmp_path / "gaps")], data=["x"], device="cpu"
    )
    with pytest.raises(
        ValueError, match=r"leave 23 clips, those of .* 24: scores can be fused for the same clips"
    ):
        evaluate(config, data=data, quiet=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fuse": ["b"], "protocol": "semi"}, "scores are fused for all, knn, linear, finetune only"),
        ({"weights": [1.0]}, "weigh the runs of fuse, which is empty"),
        ({"fuse": ["b"], "weights": [1.0]}, "must be 2 numbers"),
        ({"fuse": ["b"], "weights": [1.0, -1.0]}, "none below 0"),
        ({"fuse": ["b"], "weights": [0.0, 0.0]}, "not all 0"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(checkpoint="a", data=["x"], **settings)
