from __future__ import annotations

import dataclasses
import json
import sys

import pytest
import torch
import yaml

from fastamr import files
from fastamr.data import Split
from fastamr.evaluation import compare, extract_features, format_table, knn_accuracy, random_encoder
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.evaluation.protocols import frozen as protocols
from fastamr.evaluation.report.comparison import find_reports
from fastamr.folders import FolderLock, written
from fastamr.models import build_model
from fastamr.probes import linear_probe


@pytest.fixture
def run(tmp_path, make_data):
    """A folder with a small model for the stand-in's skeleton."""
    model = build_model(
        "amr",
        layout=make_data(clips=1).layout,
        frames=8,
        width=16,
        depth=1,
        heads=2,
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=2,
        target_patches=1,
    )
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run", model


def _config(folder, **more) -> EvaluateConfig:
    return EvaluateConfig(checkpoint=str(folder), data=["unused"], device="cpu", **more)


def test_writes_all_numbers_and_prints_the_baselines(run, make_data, capsys):
    folder, model = run
    data = make_data()
    report = evaluate(_config(folder, seeds=[5]), data=data)
    written = json.loads((folder / "evaluation-unused-official-all.json").read_text())
    assert written == json.loads(json.dumps(report))
    assert set(report["results"]) == {"raw", "input", "random", "encoder"}
    for scores in report["results"].values():
        assert set(scores) == {"knn_1", "knn_20", "linear", "logistic"}
    assert report["data"]["fingerprint"] == data.fingerprint()
    assert (report["split"]["train"], report["split"]["test"], report["split"]["classes"]) == (12, 12, 3)
    assert report["model"]["name"] == "amr"
    assert report["versions"]["torch"] == torch.__version__
    # The numbers are those of the parts, put together here by hand.
    split, labels = data.split("official"), data.labels
    for name, encoder in (("encoder", model), ("random", random_encoder(model, 5))):
        x = extract_features(encoder, data)
        expected = knn_accuracy(x[split.train], labels[split.train], x[split.test], labels[split.test])
        assert report["results"][name]["knn_1"]["accuracy"] == pytest.approx(expected)
    printed = capsys.readouterr().out
    for word in ("raw coordinates", "random", "AMR", "1-NN", "20-NN", "linear", "logistic", "12 training"):
        assert word in printed


def test_features_are_cached_in_the_folder(run, make_data, monkeypatch):
    folder, model = run
    first = evaluate(_config(folder, protocol="knn", seeds=[5]), data=make_data(), quiet=True)
    assert len(list((folder / "features").iterdir())) == 2  # the encoder and its random twin
    monkeypatch.setattr(type(model), "features", lambda *_, **__: pytest.fail("encoded again"))
    again = evaluate(_config(folder, protocol="knn", seeds=[5]), data=make_data(), quiet=True)
    assert again["results"] == first["results"]


def test_cache_can_be_off_and_the_output_elsewhere(run, make_data, tmp_path):
    folder, _ = run
    out = tmp_path / "new" / "result.json"
    evaluate(_config(folder, protocol="knn", cache=False, out=str(out)), data=make_data(), quiet=True)
    assert out.is_file()
    assert not (folder / "features").exists()


@pytest.mark.parametrize(
    ("protocol", "probes"), [("knn", {"knn_1", "knn_20"}), ("linear", {"linear", "logistic"})]
)
def test_protocol_chooses_the_probes(run, make_data, protocol, probes):
    report = evaluate(_config(run[0], protocol=protocol), data=make_data(), quiet=True)
    assert all(set(scores) == probes for scores in report["results"].values())


def test_seeds_make_new_random_encoders(run, make_data):
    report = evaluate(_config(run[0], protocol="all", seeds=[0, 1, 2]), data=make_data(), quiet=True)
    results = report["results"]
    assert len(results["random"]["knn_1"]["per_seed"]) == 3
    assert len(results["encoder"]["knn_1"]["per_seed"]) == 1
    assert len(results["encoder"]["linear"]["per_seed"]) == 3
    linear = results["encoder"]["linear"]
    assert linear["accuracy"] == pytest.approx(sum(linear["per_seed"]) / 3)


def test_the_least_number_of_updates_reaches_every_row(run, make_data, monkeypatch):
    seen = []

    def probe(*sets, **settings):
        seen.append(settings["min_updates"])
        return linear_probe(*sets, **settings)

    monkeypatch.setattr("fastamr.evaluation.protocols.frozen.linear_probe", probe)
    report = evaluate(_config(run[0], protocol="linear", min_updates=150), data=make_data(), quiet=True)
    assert seen == [150] * len(report["results"])
    assert report["config"]["min_updates"] == 150


def test_an_evaluation_of_before_there_was_that_setting_is_replaced(run, make_data):
    config = EvaluateConfig(str(run[0]), ["a/ucla.st"], "knn", device="cpu")
    evaluate(config, data=make_data(), quiet=True)
    (path,) = find_reports([run[0]])
    report = json.loads(path.read_text())
    del report["config"]["min_updates"]
    path.write_text(json.dumps(report))
    evaluate(config, data=make_data(), quiet=True)
    assert find_reports([run[0]]) == [path]
    assert "min_updates" in json.loads(path.read_text())["config"]
    evaluate(dataclasses.replace(config, min_updates=9), data=make_data(), quiet=True)
    assert len(find_reports([run[0]])) == 2


class TestPreprocessing:
    def _steps_seen(self, run, data, steps):
        folder, _ = run
        (folder / "config.yaml").write_text(yaml.safe_dump({"steps": steps}))
        report = evaluate(_config(folder, protocol="knn"), data=data, quiet=True)
        return [step["name"] for step in report["data"]["steps"]], report

    def test_missing_steps_of_the_run_are_applied(self, run, make_data):
        assert self._steps_seen(run, make_data(), ["center", "align_body"])[0] == ["center", "align_body"]

    def test_present_steps_are_not_applied_twice(self, run, make_data):
        from fastamr.data import preprocess

        centred = preprocess(make_data(), ["center:frame=every"])
        assert self._steps_seen(run, centred, ["center"])[0] == ["center"]

    def test_other_parameters_are_applied(self, run, make_data):
        from fastamr.data import preprocess

        centred = preprocess(make_data(), ["center"])
        assert self._steps_seen(run, centred, ["center:frame=every"])[0] == ["center", "center"]

    def test_the_raw_baseline_starts_from_the_given_data(self, run, make_data):
        data = make_data()
        plain = evaluate(_config(run[0], protocol="knn"), data=data, quiet=True)
        _, processed = self._steps_seen(run, data, ["center", "align_body"])
        assert processed["results"]["raw"] == plain["results"]["raw"]

    def test_the_name_of_before_means_the_same(self, run, make_data):
        steps, report = self._steps_seen(run, make_data(), ["center", "align_body"])
        (run[0] / "config.yaml").write_text(yaml.safe_dump({"preprocess": ["center", "align_body"]}))
        again = evaluate(_config(run[0], protocol="knn"), data=make_data(), quiet=True)
        assert [step["name"] for step in again["data"]["steps"]] == steps
        assert again["results"] == report["results"]

    def test_damaged_configuration(self, run, make_data):
        (run[0] / "config.yaml").write_text("steps: [")
        with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
            evaluate(_config(run[0]), data=make_data())


def test_results_of_other_seeds_and_data_are_kept(run, make_data):
    for data, seeds in (
        (["a/ucla.st"], [0]),
        (["a/ucla.st"], [0, 1]),
        (["b/sbu.st"], [0]),
        (["a/ucla.st"], [0]),
    ):
        config = EvaluateConfig(str(run[0]), data, "knn", seeds=seeds, device="cpu")
        evaluate(config, data=make_data(), quiet=True)
    found = find_reports([run[0]])
    names = ["sbu-official-knn", "ucla-official-knn-2", "ucla-official-knn"]
    assert [path.stem for path in found] == [f"evaluation-{name}" for name in names]
    assert [json.loads(path.read_text())["config"]["seeds"] for path in found] == [[0], [0, 1], [0]]


class TestTheRunsSplit:
    """Where none is asked for, the split of the run is evaluated, else ``official``; the output says so."""

    def _data(self, make_data):
        data = make_data()
        data.splits["xview"] = Split(~data.splits["official"].train, data.splits["official"].train)
        return data

    def test_is_taken(self, run, make_data, capsys):
        (run[0] / "config.yaml").write_text(yaml.safe_dump({"split": "xview", "train_on": "train"}))
        report = evaluate(_config(run[0], protocol="knn"), data=self._data(make_data))
        assert (report["split"]["name"], report["config"]["split"]) == ("xview", "xview")
        assert report["warnings"] == []
        shown = capsys.readouterr().out
        assert shown.startswith(f"split 'xview': the run {run[0]} names it; --split takes another\n")
        assert "--split xview" in report["command"]
        assert (run[0] / "evaluation-unused-xview-knn.json").is_file()

    def test_gives_way_to_the_one_that_is_asked_for(self, run, make_data, capsys):
        (run[0] / "config.yaml").write_text(yaml.safe_dump({"split": "xview"}))
        report = evaluate(_config(run[0], protocol="knn", split="official"), data=self._data(make_data))
        assert report["split"]["name"] == "official"
        assert "names it" not in capsys.readouterr().out

    @pytest.mark.parametrize("settings", [None, {"split": None}, {"model": "amr"}])
    def test_is_official_where_the_run_names_none(self, run, make_data, capsys, settings):
        if settings is not None:
            (run[0] / "config.yaml").write_text(yaml.safe_dump(settings))
        report = evaluate(_config(run[0], protocol="knn"), data=self._data(make_data))
        assert report["split"]["name"] == "official"
        assert "split 'official': no other is named; --split takes another" in capsys.readouterr().out

    def test_is_of_no_use_for_other_data(self, run, make_data):
        (run[0] / "config.yaml").write_text(yaml.safe_dump({"split": "nowhere"}))
        report = evaluate(_config(run[0], protocol="transfer"), data=make_data(), quiet=True)
        assert report["split"]["name"] == "official"
        with pytest.raises(ValueError, match="nowhere"):
            evaluate(_config(run[0], protocol="knn"), data=make_data(), quiet=True)


class TestAnotherSplit:
    """The run was pre-trained on half of one split, and is evaluated on another one."""

    def _data(self, make_data, shared):
        data = make_data()
        test = data.splits["official"].train.clone()
        test[test.nonzero()[shared:, 0]] = False
        data.splits["xview"] = Split(~test, test)
        return data

    def _evaluate(self, run, data, settings, **more):
        (run[0] / "config.yaml").write_text(yaml.safe_dump(settings))
        return evaluate(_config(run[0], protocol="knn", **more), data=data)["warnings"]

    def test_is_said_and_written(self, run, make_data, capsys):
        data = self._data(make_data, 6)
        settings = {"split": "official", "train_on": "train"}
        (warning,) = self._evaluate(run, data, settings, split="xview")
        expected = (
            f"{run[0]} was pre-trained on the training clips of split 'official', not of 'xview': where it was "
            "pre-trained on this data, 6 of 6 test clips were among them"
        )
        assert warning == expected
        assert f"\nwarning: {expected}\n" in capsys.readouterr().out
        written = json.loads((run[0] / "evaluation-unused-xview-knn.json").read_text())
        assert written["warnings"] == [expected]

    def test_the_count_is_that_of_the_shared_clips(self, run, make_data):
        data = self._data(make_data, 6)
        chosen = data.splits["official"].test.nonzero()[:2, 0]
        data.splits["xview"].test[chosen] = True
        data.splits["xview"].train[chosen] = False
        settings = {"split": "official", "train_on": "train"}
        assert "6 of 8 test clips" in self._evaluate(run, data, settings, split="xview")[0]
        del data.splits["official"]
        assert "some test clips" in self._evaluate(run, data, settings, split="xview")[0]

    def test_nothing_is_said_without_need(self, run, make_data):
        data = self._data(make_data, 6)
        half = {"split": "official", "train_on": "train"}
        assert self._evaluate(run, data, half) == []
        assert self._evaluate(run, data, {"split": None, "train_on": "train"}, split="xview") == []
        assert self._evaluate(run, data, {"split": "official", "train_on": "all"}, split="xview") == []
        data.splits["dedup"] = Split(data.splits["official"].train, data.splits["official"].test)
        assert self._evaluate(run, data, half, split="dedup") == []


class TestTarget:
    """Whether the JSON can be written is found out before anything is computed."""

    @pytest.mark.parametrize(
        ("out", "error", "message"),
        [
            ("folder", IsADirectoryError, "is a folder: name a file"),
            ("file/a.json", NotADirectoryError, r"file is a file: name another folder"),
            ("file/new/a.json", NotADirectoryError, "is a file: name another folder"),
        ],
    )
    def test_is_checked_first(self, run, make_data, tmp_path, monkeypatch, out, error, message):
        monkeypatch.setattr(type(run[1]), "features", lambda *_, **__: pytest.fail("computed"))
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("mine")
        with pytest.raises(error, match=message):
            evaluate(_config(run[0], out=str(tmp_path / out)), data=make_data())

    def test_without_permission(self, run, make_data, tmp_path, monkeypatch):
        monkeypatch.setattr(files.os, "access", lambda path, mode: path != tmp_path)
        with pytest.raises(PermissionError, match="cannot be written into"):
            evaluate(_config(run[0], out=str(tmp_path / "new" / "a.json")), data=make_data())
        assert not (tmp_path / "new").exists()

    def test_the_table_is_printed_even_if_writing_fails(self, run, make_data, monkeypatch, capsys):
        def full(*_):
            raise OSError("No space left on device")

        monkeypatch.setattr(sys.modules[evaluate.__module__], "write_text", full)
        with pytest.raises(OSError, match="No space"):
            evaluate(_config(run[0], protocol="knn"), data=make_data())
        printed = capsys.readouterr().out
        assert "raw coordinates" in printed
        assert "written to" not in printed


class TestErrors:
    def test_unknown_protocol_and_bodies(self):
        with pytest.raises(ValueError, match=r"unknown protocol 'knnn'.*did you mean 'knn'"):
            EvaluateConfig(checkpoint="run", data=["x"], protocol="knnn")
        with pytest.raises(ValueError, match=r"unknown bodies 'fields'.*did you mean 'field'"):
            EvaluateConfig(checkpoint="run", data=["x"], bodies="fields")

    @pytest.mark.parametrize(
        ("setting", "message"),
        [({"batch_size": 0}, "batch_size=0"), ({"seeds": []}, "seeds="), ({"seeds": [-1]}, "seeds=")],
    )
    def test_numbers(self, setting, message):
        with pytest.raises(ValueError, match=message):
            EvaluateConfig(checkpoint="run", data=["x"], **setting)

    def test_unknown_split(self, run, make_data):
        with pytest.raises(ValueError, match=r"unknown split 'oficial'.*did you mean 'official'"):
            evaluate(_config(run[0], split="oficial"), data=make_data())

    def test_no_model(self, tmp_path, make_data):
        with pytest.raises(FileNotFoundError, match=r"config\.json"):
            evaluate(_config(tmp_path), data=make_data())

    def test_no_data(self, run, tmp_path):
        with pytest.raises(ValueError, match="data is missing"):
            evaluate(EvaluateConfig(checkpoint=str(run[0]), data=[]))
        with pytest.raises(FileNotFoundError, match="nowhere"):
            evaluate(EvaluateConfig(checkpoint=str(run[0]), data=[str(tmp_path / "nowhere.safetensors")]))

    def test_another_layout(self, run, make_data):
        import numpy as np

        from fastamr.data import PackedSkeletons

        half = torch.tensor([True])
        other = PackedSkeletons.from_clips(
            [np.ones((3, 1, 25, 3), np.float32)], layout="ntu25", splits={"official": Split(half, ~half)}
        )
        with pytest.raises(ValueError, match=r"layout 'cross4'.*the data has 'ntu25'"):
            evaluate(_config(run[0]), data=other)

    def test_no_labels(self, run, make_data):
        with pytest.raises(ValueError, match="none of the 24 clips has a label"):
            evaluate(_config(run[0]), data=make_data(labels=None))

    def test_empty_half(self, run, make_data):
        every = torch.ones(24, dtype=torch.bool)
        with pytest.raises(ValueError, match="no labelled test clip"):
            evaluate(_config(run[0]), data=make_data(splits={"official": Split(every, ~every)}))

    def test_device(self, run, make_data):
        with pytest.raises(ValueError, match="device 'gpu' cannot be used"):
            evaluate(
                EvaluateConfig(checkpoint=str(run[0]), data=["x"], device="gpu"), data=make_data(), quiet=True
            )


def test_unlabelled_clips_are_left_out(run, make_data, capsys):
    labels = [place % 3 if place > 3 else -1 for place in range(24)]
    report = evaluate(_config(run[0], protocol="knn"), data=make_data(labels=labels))
    assert (report["split"]["train"], report["split"]["test"], report["split"]["unlabelled"]) == (10, 10, 4)
    assert "4 clips of the split without a label" in capsys.readouterr().out


def test_several_files_are_evaluated_together(run, make_data, tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for path in paths:
        make_data().save(path)
    config = EvaluateConfig(checkpoint=str(run[0]), data=paths, protocol="knn", device="cpu")
    assert evaluate(config, quiet=True)["split"]["test"] == 24
    single = EvaluateConfig(checkpoint=str(run[0]), data=str(paths[0]), protocol="knn", device="cpu")
    assert evaluate(single, quiet=True)["split"]["test"] == 12


def test_without_scikit_learn_the_rest_is_reported(run, make_data, monkeypatch, capsys):
    def absent(*_):
        raise ImportError

    monkeypatch.setattr(protocols, "logistic_regression", absent)
    report = evaluate(_config(run[0], protocol="linear"), data=make_data())
    assert report["results"]["encoder"]["logistic"] is None
    assert "pip install 'fastamr[eval]'" in capsys.readouterr().out


def test_compare_needs_seeds(encoder, make_data):
    with pytest.raises(ValueError, match="seeds is empty"):
        compare(encoder, make_data(), seeds=[])


def test_raw_baseline_tells_classes_that_show_in_the_pose(encoder, make_data):
    results = compare(encoder, make_data(clips=60, bodies=(1,), lengths=(8,)), protocol="knn")
    assert (
        results["raw"]["knn_1"]["accuracy"] > 80
    )  # of three classes; the joints that only jitter count as much


def test_table_is_aligned_and_shows_deviations():
    rows = {
        "raw": {"knn_1": {"accuracy": 69.44, "per_seed": [69.44]}, "logistic": None},
        "random": {"knn_1": {"accuracy": 40.0, "per_seed": [39.0, 41.0]}},
    }
    assert format_table(rows).splitlines() == [
        "encoder         1-NN  logistic",
        "raw             69.4         -",
        "random   40.0 +- 1.4         -",
    ]


class TestFolder:
    def test_what_is_written_is_noted(self, run, make_data):
        folder, _ = run
        (folder / "features").mkdir()
        (folder / "features" / "mine.safetensors").write_text("mine")
        evaluate(_config(folder, protocol="knn"), data=make_data(), quiet=True)
        noted = written(folder)
        (report,) = folder.glob("evaluation*.json")
        assert report.name in noted
        features = {path.relative_to(folder).as_posix() for path in (folder / "features").iterdir()}
        assert {name for name in noted if name.startswith("features/")} == features - {
            "features/mine.safetensors"
        }
        assert len(features) > 1
        assert not (folder / ".lock").exists()

    def test_a_run_that_writes_into_the_folder_keeps_it_out(self, run, make_data, tmp_path):
        folder, _ = run
        with FolderLock(folder, "fastamr pretrain"):
            with pytest.raises(BlockingIOError, match="in use by fastamr pretrain"):
                evaluate(_config(folder, protocol="knn"), data=make_data(), quiet=True)
            elsewhere = _config(folder, protocol="knn", out=str(tmp_path / "a.json"), cache=False)
            evaluate(elsewhere, data=make_data(), quiet=True)
        with FolderLock(folder, "fastamr evaluate", shared=True):
            evaluate(_config(folder, protocol="knn"), data=make_data(), quiet=True)

    def test_another_evaluation_that_took_the_name_meanwhile_stays(self, run, make_data, monkeypatch):
        folder, _ = run
        module = sys.modules[evaluate.__module__]
        compare_frozen = module.compare

        def slow(*given, **options):
            if not list(folder.glob("evaluation*.json")):
                monkeypatch.setattr(module, "compare", compare_frozen)
                evaluate(_config(folder, protocol="knn", bodies="field"), data=make_data(), quiet=True)
            return compare_frozen(*given, **options)

        monkeypatch.setattr(module, "compare", slow)
        evaluate(_config(folder, protocol="knn"), data=make_data(), quiet=True)
        found = [json.loads(path.read_text())["config"]["bodies"] for path in folder.glob("evaluation*.json")]
        assert sorted(found) == ["existing", "field"]

    def test_the_model_is_no_output(self, run, make_data):
        folder, _ = run
        with pytest.raises(FileExistsError, match="one of the files that are read"):
            evaluate(_config(folder, out=str(folder / "model.safetensors")), data=make_data(), quiet=True)
