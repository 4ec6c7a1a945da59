"""The run table: what runs there are, that it resumes, what a row holds, and the arithmetic of the tables."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fastamr.data import Split, synthetic_actions
from fastamr.models import MODELS
from fastamr.training import PretrainConfig
from fastamr.training.config import read_yaml

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def results() -> Iterator[ModuleType]:
    """The tool; the decoders that it registers are forgotten again."""
    spec = importlib.util.spec_from_file_location("results", ROOT / "experiments" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastamr.models.registry.MODELS", dict(MODELS))
        patch.setitem(sys.modules, "results", module)
        for name in ("results_decoders", "results_probes"):  # imported, and registered, anew
            patch.delitem(sys.modules, name, raising=False)
        spec.loader.exec_module(module)
        yield module
        del sys.modules["results_decoders"], sys.modules["results_probes"]


@pytest.fixture(scope="module")
def report(results: ModuleType) -> ModuleType:
    return sys.modules["results_report"]


@pytest.fixture
def tiny(tmp_path: Path, results: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments for a table of three updates on generated motion."""
    runs = tmp_path / "runs.yaml"
    runs.write_text(
        """
common: {batch_size: 8, updates: 3, min_frames: 8, checkpoint_every: 1000, tensorboard: false, progress: false,
         architecture: {frames: 16, width: 16, depth: 1, heads: 2}}
methods:
  amr: {architecture: {decoder_width: 16, decoder_depth: 1, decoder_heads: 2, target_patches: 2, guidance_windows: [4]}}
sets: {ablations: {steps: [center], split: official}}
variants: {ablations/amr: {"": {}, k 0.1: {architecture: {guidance_k: 0.1}}}}
"""
    )
    monkeypatch.setattr(results, "training_data", lambda chosen, folder: synthetic_actions(40))
    monkeypatch.setattr(results, "test_data", lambda chosen, folder: synthetic_actions(40))
    monkeypatch.setattr(sys.modules["results_probes"], "NTU_UPDATES", 120)
    return ["--runs", str(runs), "--out", str(tmp_path / "out.jsonl"), "--only", "ablations", "--seeds", "0"]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def test_every_run_of_the_real_table_is_a_valid_configuration(results: ModuleType) -> None:
    runs = read_yaml(ROOT / "experiments" / "runs.yaml")
    jobs = list(results.jobs((*results.SETS, *results.TRIALS), (0, 1, 2), runs))
    assert len({job.key for job in jobs}) == len(jobs)
    trained = [job for job in jobs if job.method not in results.UNTRAINED]
    layouts = {"sbu_interaction": "sbu15", "sbu_heldout": "sbu15"} | dict.fromkeys(results.GENERATED, "ntu25")
    for job in trained:
        config = PretrainConfig.from_dict(job.settings).model_config(layout=layouts.get(job.set, "kinect20"))
        assert config.visible >= 1
    for chosen in ("nw_ucla", "nw_ucla_dedup", "bandai_to_nw_ucla"):
        group = [job for job in trained if job.set == chosen and not job.variant]
        assert len(group) == 6 * 3
        assert len({job.settings["updates"] for job in group}) == 1
    assert len([job for job in trained if job.set == "sbu_interaction" and not job.variant]) == 6 * 5 * 3


def test_a_variant_in_a_table_of_results_adds_a_row_and_in_a_table_of_trials_stands_alone(
    results: ModuleType,
) -> None:
    runs = read_yaml(ROOT / "experiments" / "runs.yaml")

    def rows(chosen: str) -> list[tuple[str, str]]:
        found = results.jobs([chosen], (0,), runs)
        return [(job.method, job.variant) for job in found if job.method not in results.UNTRAINED]

    assert rows("nw_ucla") == [
        ("amr", ""), ("amr", "2400 updates"),
        ("skeleton_mae", ""), ("mamp", ""), ("gfp", ""), ("asma", ""), ("slim", ""),
    ]  # fmt: skip
    for trials in ("bandai_heldout", "sbu_heldout"):
        assert {method for method, _ in rows(trials)} == {"amr", "skeleton_mae"}
    assert {method for method, _ in rows("sbu_interaction")} == set(runs["methods"])


def test_seeds_come_one_after_the_other(results: ModuleType) -> None:
    runs = read_yaml(ROOT / "experiments" / "runs.yaml")
    seeds = [job.seed for job in results.jobs(["nw_ucla"], (0, 1, 2), runs)]
    assert seeds == sorted(seeds)


def test_a_set_overrules_the_method_and_a_variant_both(results: ModuleType) -> None:
    runs = read_yaml(ROOT / "experiments" / "runs.yaml")
    found = {
        job.variant: job.settings
        for job in results.jobs(["target_patches"], (0,), runs)
        if job.method == "amr"
    }
    assert {name: one["architecture"]["target_patches"] for name, one in found.items()} == {
        f"r={r}": r for r in (6, 1, 2, 3, 15, 30)
    }
    assert {one["architecture"]["frames"] for one in found.values()} == {120}
    assert {one["updates"] for one in found.values()} == {runs["sets"]["target_patches"]["updates"]}
    assert {one["architecture"]["width"] for one in found.values()} == {
        runs["common"]["architecture"]["width"]
    }


def test_transfer_trains_on_everything_and_names_no_split(results: ModuleType) -> None:
    runs = read_yaml(ROOT / "experiments" / "runs.yaml")
    job = next(job for job in results.jobs(["bandai_to_nw_ucla"], (0,), runs) if job.method == "amr")
    assert (job.split, job.settings["split"], job.settings["train_on"]) == (None, None, "all")


def test_a_table_grows_and_resumes(
    tiny: list[str], results: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(tiny[3])
    assert results.main([*tiny, "--methods", "raw", "random"]) == 0
    first = out.read_bytes()
    out.write_bytes(first + b'{"key": "cut sho')
    assert results.main([*tiny, "--methods", "raw", "random", "amr"]) == 0
    assert out.read_bytes().startswith(first)
    records = results.read_results(out)
    assert [(one["method"], one["variant"]) for one in records] == [
        ("raw", ""), ("random", ""), ("amr", ""), ("amr", "k 0.1"),
    ]  # fmt: skip
    trained = records[-1]
    assert trained["config"]["architecture"]["guidance_k"] == 0.1
    assert trained["config"]["architecture"]["layout"] == "ntu25"
    assert trained["updates"] == 3
    assert trained["machine"]["torch"] == str(torch.__version__)
    assert set(trained["results"]["official"]) == {"knn_1", "knn_20", "linear", "linear_ntu", "logistic"}
    capsys.readouterr()
    assert results.main([*tiny, "--list"]) == 0
    marks = [line[:4].strip() for line in capsys.readouterr().out.splitlines()]
    assert marks == ["done", "", "done", "done", "done"]


def without_the_long_probe(line: dict[str, Any]) -> dict[str, Any]:
    """A line as it was before there was ``linear_ntu``."""
    kept = {
        split: {name: one for name, one in scores.items() if name != "linear_ntu"}
        for split, scores in line["results"].items()
    }
    return {**line, "results": kept}


def test_a_new_probe_is_filled_in_from_kept_features_without_training(
    tiny: list[str],
    results: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, command = Path(tiny[3]), [*tiny, "--methods", "raw", "amr", "--features", str(tmp_path / "kept")]
    assert results.main(command) == 0
    made = lines_of(out)
    assert results.main(command) == 0
    assert lines_of(out) == made
    old = [without_the_long_probe(line) for line in made]
    out.write_text("".join(json.dumps(line) + "\n" for line in old), encoding="utf-8")
    capsys.readouterr()
    assert results.main([*command, "--list"]) == 0
    assert not capsys.readouterr().out.count("done")
    monkeypatch.setattr(results, "train_encoder", lambda *given, **more: pytest.fail("trained again"))
    assert results.main(command) == 0
    lines = lines_of(out)
    assert lines[: len(made)] == old
    assert [line["results"] for line in lines[len(made) :]] == [line["results"] for line in made]
    assert "probed_again" in lines[-1]
    assert lines[-1]["seconds"] == made[-1]["seconds"]


def test_a_trained_run_without_features_is_repeated_only_when_asked(
    tiny: list[str], results: ModuleType, tmp_path: Path
) -> None:
    out, command = Path(tiny[3]), [*tiny, "--methods", "amr", "--variants", ""]
    assert results.main(command) == 0
    made = lines_of(out)
    out.write_text(json.dumps(without_the_long_probe(made[0])) + "\n", encoding="utf-8")
    assert results.main([*command, "--features", str(tmp_path / "empty")]) == 0
    assert len(lines_of(out)) == 1
    assert results.main([*command, "--again"]) == 0
    assert lines_of(out)[1]["results"] == made[0]["results"]


def test_damaged_features_are_an_error(results: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "key.safetensors").write_bytes(b"no such file")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(ValueError, match="of 7 clips: delete it"):
        sys.modules["results_probes"].kept_features(tmp_path, "key", 7)


def test_the_command_of_a_row_makes_this_row(tiny: list[str], results: ModuleType) -> None:
    runs = read_yaml(Path(tiny[1]))
    job = next(one for one in results.jobs(["ablations"], (0,), runs) if one.variant == "k 0.1")
    words = shlex.split(job.command("DATA", "OUT"))
    given = results.parse_arguments(words[2:])
    assert (given.only, given.methods, given.variants, given.seeds) == (
        ["ablations"],
        ["amr"],
        ["k 0.1"],
        [0],
    )


def test_a_changed_configuration_runs_again(tiny: list[str], results: ModuleType) -> None:
    assert results.main([*tiny, "--methods", "random"]) == 0
    runs = Path(tiny[1])
    runs.write_text(
        runs.read_text(encoding="utf-8").replace("width: 16, depth", "width: 8, depth"), encoding="utf-8"
    )
    assert results.main([*tiny, "--methods", "random"]) == 0
    assert len(lines_of(Path(tiny[3]))) == 2


def test_held_out_subjects_are_training_clips_only(results: ModuleType) -> None:
    data = synthetic_actions(60, subjects=12)
    odd = torch.arange(60) % 2 == 1
    data.splits["official"] = Split(~odd, odd)
    split = results._hold_out_subjects(data).splits["heldout"]
    official = data.split("official")
    held = torch.isin(data.columns["subject"], torch.tensor(results.HELD_OUT_SUBJECTS))
    assert not bool((split.train & split.test).any())
    assert torch.equal(split.train | split.test, official.train)
    assert torch.equal(split.test, official.train & held)
    assert bool((official.test & held).any())


def test_missing_data_is_said(tiny: list[str], results: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nw_ucla\.npz"):
        results.read_set(str(tmp_path), "nw_ucla")


def record(method: str, seed: int, accuracy: float, split: str = "official", **more: Any) -> dict[str, Any]:
    scores = {probe: {"accuracy": accuracy} for probe in ("linear", "logistic", "knn_1", "knn_20")}
    return {
        "set": "nw_ucla",
        "method": method,
        "variant": "",
        "seed": seed,
        "results": {split: scores},
        **more,
    }


def test_mean_and_deviation_and_verdict(report: ModuleType) -> None:
    records = [record("amr", seed, value) for seed, value in enumerate((70.0, 72.0, 74.0))]
    records += [record("skeleton_mae", seed, value) for seed, value in enumerate((60.0, 60.0, 60.0))]
    records += [record("random", seed, value) for seed, value in enumerate((68.0, 71.0, 74.0))]
    text = report.markdown(records)
    assert "| AMR (`amr`) | 3 | 72.0 ± 2.0 |" in text
    assert "AMR against SkeletonMAE: linear +12.0, beyond the spread" in text
    assert "AMR against random encoder: linear +1.0, within the spread" in text
    assert "--only nw_ucla --methods METHOD --seeds 0 1 2" in text
    longer = [record("amr", seed, 61.0) | {"variant": "2400 updates"} for seed in range(3)]
    text = report.markdown(records + longer)
    assert "AMR against SkeletonMAE: linear +12.0, beyond the spread" in text
    assert "AMR, 2400 updates against SkeletonMAE: linear +1.0, beyond the spread" in text


def test_folds_are_averaged_before_the_seeds_and_incomplete_ones_left_out(report: ModuleType) -> None:
    records = [
        record("amr", seed, 10.0 * fold + seed, f"fold{fold}", seconds=2.0, updates=3)
        | {"set": "sbu_interaction"}
        for seed in (0, 1, 2)
        for fold in range(5)
        if (seed, fold) != (2, 4)
    ]
    text = report.markdown(records)
    assert "| AMR (`amr`) | 2 | 20.5 ± 0.7 |" in text
    assert "| 3 | 10 |" in text


def test_a_probe_that_only_some_seeds_have_is_marked_and_one_of_none_is_a_dash(report: ModuleType) -> None:
    records = [record("amr", seed, 50.0) for seed in (0, 1, 2)]
    for place, value in enumerate((40.0, 44.0)):
        records[place]["results"]["official"]["linear_ntu"] = {"accuracy": value}
    text = report.markdown([*records, record("random", 0, 30.0)])
    assert "| AMR (`amr`) | 3 | 50.0 ± 0.0 | 42.0 ± 2.8 (of 2) | 50.0 ± 0.0 |" in text
    assert "| random encoder (`random`) | 1 | 30.0 | - | 30.0 |" in text


def test_folds_without_a_probe_have_a_dash(report: ModuleType) -> None:
    records = [record("amr", 0, 10.0 * fold, f"fold{fold}") | {"set": "sbu_interaction"} for fold in range(5)]
    records[0]["results"]["fold0"]["linear_ntu"] = {"accuracy": 1.0}
    assert "| AMR (`amr`) | 1 | 20.0 | - | 20.0 |" in report.markdown(records)


def test_the_last_of_two_equal_runs_counts(report: ModuleType) -> None:
    text = report.markdown([record("amr", 0, 10.0), record("amr", 0, 20.0)])
    assert "| AMR (`amr`) | 1 | 20.0 |" in text
