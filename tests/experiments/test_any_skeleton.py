"""The table of one encoder for every skeleton: what is run, what may be trained on, that it resumes, and its tables."""

from __future__ import annotations

import dataclasses
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

from fastamr.data import PackedSkeletons, Split, synthetic_actions
from fastamr.data.preprocessing.convert_layout import convert
from fastamr.data.synthetic.actions import ACTIONS
from fastamr.skeleton import BODY
from fastamr.training import PretrainConfig
from fastamr.training.config import read_yaml

FOLDER = Path(__file__).resolve().parent.parent.parent / "experiments"
PLAN = """
common: {batch_size: 8, updates: 2, min_frames: 8, checkpoint_every: 1000, tensorboard: false, progress: false,
         architecture: {frames: 16, width: 16, depth: 1, heads: 2, flat_embedding: true}}
methods:
  amr: {architecture: {decoder_width: 16, decoder_depth: 1, decoder_heads: 2, target_patches: 2, guidance_windows: [4]}}
budgets: {updates: {updates: 2}, time: {minutes: 0.0001}}
sets:
  kinect: {file: kinect, steps: [center], keep: {used: 1}, test: {official: official}, mixture: official,
           heldout: {of: official, subjects: [3]}, to_reach: {official: linear >= 90}}
  folded: {file: folded, steps: [center], half: [1, 2], test: {fold0: half1, fold1: half0}}
  flat: {file: flat, steps: ["flip:axes=y", center], mixture: all}
mixture: 0.5
rows:
  raw: {coordinates: raw}
  random: {random: amr}
  alone: {method: amr, source: alone, layout: own, budgets: [updates]}
  mixed: {method: amr, source: mixture, layout: body, budgets: [updates, time]}
  unseen: {method: amr, source: unseen, layout: body, budgets: [updates]}
poolings: [mean, regions]
long_seeds: [0]
studies:
  ablations: {sets: [kinect], base: {method: amr, source: mixture, layout: body}, budget: {updates: 2},
              changes: {base: {}, indices: {layout: indices, poolings: [mean]}, mirrored: {mirror: 0.5}}}
  trials: {sets: [kinect], base: {method: amr, source: heldout, layout: body}, budget: {updates: 2}, seeds: [0],
           changes: {pieces: {cut: 0.5}}}
"""


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """The command; its modules are forgotten again."""
    spec = importlib.util.spec_from_file_location("any_skeleton", FOLDER / "any_skeleton.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "any_skeleton", module)
        patch.setattr(sys, "path", list(sys.path))
        spec.loader.exec_module(module)
        patch.setattr(module, "NTU_UPDATES", 20)
        yield module
        for name in set(sys.modules) - before:
            if name.startswith(("any_skeleton", "results_")):
                del sys.modules[name]


def part(tool: ModuleType, name: str) -> ModuleType:
    """A module that the command imported."""
    return sys.modules[f"any_skeleton_parts.{name}"]


def generated(name: str) -> PackedSkeletons:
    """A set: of 20 joints, of 25 joints in two folds, or of 17 joints in two dimensions."""
    data = synthetic_actions(
        24, actions=list(ACTIONS)[:2], frames=(20, 40), subjects=4, seed=len(name), drop_joints=0.0
    )
    order = torch.arange(24)
    columns = {"subject": order // 2 % 4 + 1, "used": (order < 22).long()}
    splits = {"official": Split(order % 4 < 2, order % 4 >= 2)}
    if name == "folded":
        splits = {
            f"fold{fold}": Split(columns["subject"] % 2 != fold, columns["subject"] % 2 == fold)
            for fold in (0, 1)
        }
    data = dataclasses.replace(data, labels=order % 2, label_names=(), columns=columns, splits=splits)
    if name == "flat":
        return dataclasses.replace(
            convert(data, "coco17"), coords=convert(data, "coco17").coords[..., :2].clone()
        )
    return convert(data, "kinect20") if name == "kinect" else data


@pytest.fixture
def plan(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A small plan on generated sets."""
    sets = part(tool, "sets")
    monkeypatch.setattr(sets, "read_set", lambda folder, name: generated(name))
    sets._recorded.cache_clear()
    (tmp_path / "plan.yaml").write_text(PLAN)
    return read_yaml(tmp_path / "plan.yaml")


@pytest.fixture
def command(plan: dict[str, Any], tmp_path: Path) -> list[str]:
    work = str(tmp_path / "work")
    return [
        "--runs",
        str(tmp_path / "plan.yaml"),
        "--out",
        str(tmp_path / "out.jsonl"),
        "--work",
        work,
        "--seeds",
        "0",
    ]


def lines_of(command: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(command[3]).read_text(encoding="utf-8").splitlines()]


def test_every_run_of_the_real_plan_is_a_valid_configuration(tool: ModuleType) -> None:
    plan = read_yaml(FOLDER / "any_skeleton.yaml")
    jobs = list(part(tool, "plan").jobs(plan, (0, 1, 2)))
    assert len({job.key for job in jobs}) == len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        for encoder in job.encoders.values():
            if encoder is not None:
                config = PretrainConfig.from_dict(dict(encoder.settings)).model_config(layout="kinect20")
                assert config.visible >= 1
        assert [one.minutes or one.settings["updates"] for one in job.trained] or job.row in (
            "raw",
            "raw_first",
            "raw_every",
            "random",
        )
    found = {job.name: job for job in jobs}
    # One pre-training of the mixture serves all sets; SBU and UT-Kinect are never in it.
    mixed = [job for job in jobs if (job.row, job.variant, job.seed) == ("amr_body_mixture", "updates", 0)]
    assert len(mixed) == 8
    assert len({one.key for job in mixed for one in job.trained}) == 1
    assert not {"sbu", "utkinect"} & {name for name, _, _ in mixed[0].trained[0].parts}
    for name in ("sbu", "utkinect"):
        unseen = found[f"main {name} amr_body_unseen updates seed 0"]
        assert unseen.trained == mixed[0].trained
    unseen = found["main kard amr_body_unseen updates seed 0"].trained[0]
    assert {name for name, _, _ in mixed[0].trained[0].parts} - {name for name, _, _ in unseen.parts} == {
        "kard"
    }
    # No encoder of UT-Kinect alone has seen the subject that it is tested on.
    alone = found["main utkinect amr_alone updates seed 0"]
    halves = {split: one.parts[0][1] for split, one in alone.encoders.items()}
    assert halves == {f"fold{fold}": "half1" if fold < 5 else "half0" for fold in range(10)}
    # Trials are trained and tested on training subjects.
    trial = found["trials msr_action3d trials base seed 0"]
    assert set(trial.encoders) == {"heldout"}
    assert {name for name, which, _ in trial.trained[0].parts if which == "heldout"} == {
        "nw_ucla",
        "msr_action3d",
    }


def test_no_test_clip_is_trained_on(tool: ModuleType, plan: dict[str, Any]) -> None:
    sets = part(tool, "sets")
    recorded = sets.recorded(plan["sets"]["kinect"], "")
    assert recorded.num_clips == 22
    for split in ("official", "heldout"):
        trained = sets.training_part(plan["sets"]["kinect"], "", split)
        tested = {
            name
            for name, test in zip(recorded.names, recorded.split(split).test.tolist(), strict=True)
            if test
        }
        assert trained.num_clips == int(recorded.split(split).train.sum())
        assert tested
        assert not tested & set(trained.names)
        assert trained.splits == {}
        assert bool((trained.labels == -1).all())
    held = recorded.split("heldout")
    assert not bool((recorded.split("official").test & (held.train | held.test)).any())
    assert set(recorded.columns["subject"][held.test].tolist()) == {3}
    folded = sets.recorded(plan["sets"]["folded"], "")
    assert set(folded.columns["subject"][folded.split("half0").train].tolist()) == {1, 2}
    assert torch.equal(folded.split("half0").train, folded.split("half1").test)


def test_flat_motion_has_y_up_and_no_depth(tool: ModuleType, plan: dict[str, Any]) -> None:
    raw, ready = generated("flat"), part(tool, "sets").prepared(plan["sets"]["flat"], "")
    assert ready.coords.shape[-1] == 3
    assert not bool(ready.coords[..., 2].any())
    step = raw.coords[5, 6] - raw.coords[5, 5]
    torch.testing.assert_close(
        ready.coords[5, 6] - ready.coords[5, 5], torch.stack([step[0], -step[1], step[0] * 0])
    )


def test_pieces_have_one_duration_and_lose_nothing(tool: ModuleType) -> None:
    data = dataclasses.replace(generated("folded"), splits={})
    data.fps[::2] = float("nan")
    pieces = part(tool, "sets").cut(data, 0.5, 10.0)
    assert torch.equal(pieces.coords, data.coords)
    assert set(data.offsets.tolist()) <= set(pieces.offsets.tolist())
    lengths = pieces.offsets.diff()
    assert int(lengths.min()) > 0
    rates = torch.where(pieces.fps.isnan(), 10.0, pieces.fps)
    seconds = lengths / rates
    assert bool(((seconds > 0.3) & (seconds < 0.8)).all())
    whole = part(tool, "sets").cut(data, 100.0, 10.0)
    assert torch.equal(whole.offsets, data.offsets)


def test_by_index_keeps_the_coordinates_and_forgets_the_names(tool: ModuleType) -> None:
    data = generated("kinect")
    found = part(tool, "sets").by_index(data)
    assert found.layout == BODY
    assert torch.equal(found.coords[:, :20], data.coords)
    assert bool(found.valid[:, :20].all())
    assert not bool(found.valid[:, 20:].any())


def test_raw_preparations(tool: ModuleType) -> None:
    data = generated("kinect")
    rows = part(tool, "sets").COORDINATES
    first = rows["raw_first"].make(data).view(24, -1, 32, 20, 3)
    every = rows["raw_every"].make(data).view(24, -1)
    joints, root = (
        every[:, : first[0].numel()].view_as(first),
        every[:, first[0].numel() :].view(*first.shape[:3], 1, 3),
    )
    assert float(first[:, 0, 0, data.layout.root].abs().max()) < 0.01
    assert float(joints[..., data.layout.root, :].abs().max()) == 0
    torch.testing.assert_close(joints + root, first)
    left, right = data.layout.hips
    across = first[:, 0, 0, left] - first[:, 0, 0, right]
    assert float(across[:, 2].abs().max()) < 0.02
    assert float(across[:, 0].min()) > 0


def test_one_training_serves_all_sets_and_is_kept(
    tool: ModuleType, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([*command, "--rows", "raw", "random", "mixed", "--variants", "", "updates"]) == 0
    lines = {(line["set"], line["row"]): line for line in lines_of(command)}
    assert set(lines) == {(name, row) for name in ("kinect", "folded") for row in ("raw", "random", "mixed")}
    folded, kinect = lines["folded", "mixed"], lines["kinect", "mixed"]
    assert list(folded["pretraining"]) == list(kinect["pretraining"])
    (key,) = kinect["pretraining"]
    record = kinect["pretraining"][key]
    assert record == folded["pretraining"][key]
    assert record["updates"] == 2
    assert record["config"]["mixture"] == 0.5
    assert record["config"]["architecture"]["layout"] == "body"
    assert {name: one["clips"] for name, one in record["sets"].items()} == {"kinect": 12, "flat": 24}
    assert set(folded["results"]) == {"fold0", "fold1"}
    assert set(kinect["results"]["official"]) == {"mean", "regions"}
    assert set(kinect["results"]["official"]["regions"]) == {"linear", "logistic", "knn_1"}
    assert kinect["machine"]["torch"] == str(torch.__version__)
    assert str(Path(command[5]).parent) not in json.dumps(lines_of(command))
    # A line that lacks a probe is filled in from what is kept.
    del kinect["results"]["official"]["mean"]["linear"]
    Path(command[3]).write_text("".join(json.dumps(line) + "\n" for line in lines.values()), encoding="utf-8")
    monkeypatch.setattr(part(tool, "encoders"), "train_encoder", lambda *given: pytest.fail("trained again"))
    monkeypatch.setattr(
        part(tool, "encoders"), "extract_features", lambda *given, **more: pytest.fail("again")
    )
    again = [*command, "--rows", "mixed", "--variants", "updates"]
    capsys.readouterr()
    assert tool.main([*again, "--list"]) == 0
    assert capsys.readouterr().out.count("done") == 2
    assert tool.main(again) == 0
    assert len(lines_of(command)) == 6
    assert tool.main([*again, "--again"]) == 0
    assert len(lines_of(command)) == 7
    assert set(lines_of(command)[6]["results"]["official"]["mean"]) == {"linear", "logistic", "knn_1"}


def test_alone_own_encoders_for_folds_and_a_time_budget(tool: ModuleType, command: list[str]) -> None:
    assert tool.main([*command, "--rows", "alone", "--sets", "folded"]) == 0
    (line,) = lines_of(command)
    assert len(line["pretraining"]) == 2
    parts = {split: line["pretraining"][key]["parts"] for split, key in line["encoders"].items()}
    assert parts == {"fold0": [["folded", "half1"]], "fold1": [["folded", "half0"]]}
    assert {one["config"]["architecture"]["layout"] for one in line["pretraining"].values()} == {"ntu25"}
    assert tool.main([*command, "--rows", "mixed", "--variants", "time", "--sets", "kinect"]) == 0
    timed = next(iter(lines_of(command)[1]["pretraining"].values()))
    assert timed["minutes"] == 0.0001
    assert timed["updates"] == timed["config"]["updates"] >= 1


def test_studies_and_held_out_subjects(tool: ModuleType, command: list[str]) -> None:
    assert tool.main([*command, "--tables", "ablations", "trials", "--variants", "indices", "pieces"]) == 0
    indices, pieces = lines_of(command)
    assert set(indices["results"]["official"]) == {"mean"}
    assert set(pieces["results"]) == {"heldout"}
    (record,) = pieces["pretraining"].values()
    assert record["cut"] == 0.5
    assert record["sets"]["kinect"]["part"] == "heldout"
    assert record["sets"]["kinect"]["clips"] > 8


def test_a_sitting_ends_in_time_and_goes_on(
    tool: ModuleType, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bounded = [*command, "--rows", "raw", "random"]
    assert tool.main([*bounded, "--minutes", "0"]) == 0
    assert "0 minutes are over, 4 runs are left" in capsys.readouterr().out
    assert not Path(command[3]).exists()
    assert tool.main([*bounded, "--minutes", "60"]) == 0
    assert len(lines_of(command)) == 4


def test_names_that_do_not_exist_are_refused(tool: ModuleType, command: list[str]) -> None:
    with pytest.raises(ValueError, match="row"):
        tool.main([*command, "--rows", "mixt"])
    with pytest.raises(ValueError, match="table"):
        tool.main([*command, "--tables", "ablation"])


def test_the_command_of_a_line_makes_this_line(tool: ModuleType, command: list[str]) -> None:
    given = tool.parse_arguments([*command, "--tables", "ablations", "main"])
    for job in tool.chosen_jobs(given):
        words = shlex.split(job.command("DATA", "OUT", "WORK"))
        again = tool.parse_arguments([*words[2:], "--runs", command[1]])
        assert [one.key for one in tool.chosen_jobs(again)] == [job.key]


def line(row: str, seed: int, value: float, variant: str = "", split: str = "official") -> dict[str, Any]:
    scores = {"linear": value, "logistic": value, "knn_1": value}
    trained = {} if row == "raw" else {"k": {"updates": 5, "seconds": 120.0}}
    return {
        "table": "main",
        "set": "kinect",
        "row": row,
        "variant": variant,
        "seed": seed,
        "plan": {"to_reach": {"official": "linear >= 90", "folds": "above raw"}},
        "results": {split: {"" if row == "raw" else "regions": scores}},
        "pretraining": trained,
    }


def test_tables_have_the_aim_and_a_verdict(tool: ModuleType) -> None:
    markdown = part(tool, "report").markdown
    lines = [line("raw", 0, 60.0)]
    lines += [
        line("amr_body_mixture", seed, value, "updates") for seed, value in enumerate((70.0, 72.0, 74.0))
    ]
    lines += [
        line("skeleton_mae_alone", seed, value, "updates") for seed, value in enumerate((70.0, 71.0, 72.0))
    ]
    lines += [line("skeleton_mae_alone", seed, 99.0, "time") for seed in range(3)]
    text = markdown(lines)
    assert "| raw coordinates |  | 1 | 60.0 | 60.0 | 60.0 |  |  | linear &gt;= 90 |" in text
    assert (
        "| AMR `body` on the mixture, updates | regions | 3 | 72.0 ± 2.0 | 72.0 ± 2.0 | 72.0 ± 2.0 | 5 | 2.0 |"
        in text
    )
    assert "linear +1.0 (SkeletonMAE on this set alone), within the spread" in text
    assert "linear +12.0 (raw coordinates), beyond the spread" in markdown(lines[:4])


def test_folds_are_averaged_and_the_last_of_two_equal_runs_counts(tool: ModuleType) -> None:
    first = line("raw", 0, 10.0, split="fold0")
    first["results"]["fold1"] = line("raw", 0, 30.0)["results"]["official"]
    text = part(tool, "report").markdown([line("raw", 0, 1.0, split="fold0"), first])
    assert "**kinect**, folds, main" in text
    assert "| raw coordinates |  | 1 | 20.0 | 20.0 | 20.0 |  |  | above raw |" in text
