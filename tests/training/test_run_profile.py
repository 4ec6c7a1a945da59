"""What a run says of its speed, and the profile that it takes of itself on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from fastamr.training import PretrainConfig, pretrain


@pytest.fixture(autouse=True)
def _use_tiny(tiny: type) -> None:
    """Every test here may train the stand-in model."""


def configure(out: Path, **options: Any) -> PretrainConfig:
    defaults: dict[str, Any] = {
        "model": "tiny", "out": str(out), "preprocess": [], "batch_size": 8, "min_frames": 8, "updates": 12,
        "log_every": 3, "lr": 1e-2, "tensorboard": False, "progress": False, "device": "cpu",
        "checkpoint_every": 100.0,
    }  # fmt: skip
    return PretrainConfig(**{**defaults, **options})


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def results(folder: Path) -> list[Any]:
    tensors = load_file(folder / "state.safetensors")
    return [
        [(line["update"], line["loss"]) for line in records(folder, "train")],
        {name: tensor.tolist() for name, tensor in tensors.items()},
    ]


def test_the_profile_of_a_run_changes_none_of_its_results(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = pretrain(configure(tmp_path / "plain", log_every=1), data=skeletons)
    profiled = pretrain(configure(tmp_path / "profiled", log_every=1, profile=4), data=skeletons)
    assert results(plain) == results(profiled)
    assert not (plain / "trace.json").exists()
    report = json.loads((profiled / "profile.json").read_text())
    assert (report["kind"], report["updates"], report["what"]) == ("profile", 4, "tiny, float32, 8 sequences")
    rows = {row["name"]: row for row in report["kernels"]}
    assert rows["aten::addmm"]["calls"] == 2
    assert rows["fastamr::sample_clips"]["calls"] == 1
    assert report["wall_ms"] == pytest.approx(report["busy_ms"] + report["gap_ms"])
    lines = (profiled / "profile.txt").read_text().splitlines()
    assert len(lines) == 5 + len(rows)
    trace = json.loads((profiled / "trace.json").read_text())
    sampled = [entry for entry in trace["traceEvents"] if entry.get("name") == "fastamr::sample_clips"]
    assert len(sampled) == 4
    said = capsys.readouterr().err
    assert said.count(lines[0]) == 1
    assert f"the whole profile: profile.txt, profile.json, trace.json in {profiled}" in said
    assert PretrainConfig.load(profiled / "config.yaml").profile == 0


def test_a_window_of_losses_is_read_in_time(tmp_path: Path, skeletons: Any) -> None:
    """The profile ends between two readings; each update still counts once."""
    plain = pretrain(configure(tmp_path / "plain", log_every=1), data=skeletons)
    profiled = pretrain(configure(tmp_path / "profiled", log_every=4, profile=4), data=skeletons)
    assert results(plain)[1] == results(profiled)[1]
    assert [line["update"] for line in records(profiled, "train")] == [4, 5, 8, 12]


def test_what_interrupts_the_updates_ends_the_profile(tmp_path: Path, skeletons: Any) -> None:
    out = pretrain(configure(tmp_path / "run", profile=9, checkpoint_every=2.0), data=skeletons)
    assert json.loads((out / "profile.json").read_text())["updates"] == 3, "update 1 prepares, update 4 saves"


def test_a_run_that_is_too_short_says_so(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pretrain(configure(tmp_path / "run", updates=1, profile=3, warmup_epochs=0.0), data=skeletons)
    assert "no update was profiled: the first 1 prepare, and none came after them" in capsys.readouterr().err
    assert not (out / "profile.txt").exists()


def test_a_resumed_run_can_be_profiled_and_a_new_one_clears_it(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    pretrain(configure(out, updates=None, epochs=2), data=skeletons)
    capsys.readouterr()
    pretrain(configure(out, updates=None, epochs=2, resume=True, profile=1), data=skeletons)
    assert "complete" in capsys.readouterr().err
    pretrain(configure(out, updates=None, epochs=4, resume=True, profile=2), data=skeletons)
    assert "profile was" not in capsys.readouterr().err
    assert json.loads((out / "profile.json").read_text())["updates"] == 2
    pretrain(configure(out, overwrite=True), data=skeletons)
    assert not (out / "trace.json").exists()


def test_a_failing_update_leaves_no_profiler_behind(
    tmp_path: Path, skeletons: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    calls: list[int] = []
    own = tiny.forward

    def fails(self: Any, *given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise RuntimeError("out of luck")
        return own(self, *given, **named)

    monkeypatch.setattr(tiny, "forward", fails)
    with pytest.raises(RuntimeError, match="out of luck"):
        pretrain(configure(tmp_path / "run", profile=8), data=skeletons)
    assert not torch.autograd._profiler_enabled()


@pytest.mark.parametrize(
    "options", [{}, {"data_budget": 0.0}, {"keep_empty_bodies": True}, {"accumulate": 2}], ids=str
)
def test_a_run_says_once_how_fast_its_updates_are(
    tmp_path: Path, make_skeletons: Any, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    data = make_skeletons(20, with_valid=True)
    out = pretrain(configure(tmp_path / "run", graph="off", **options), data=data)
    said = capsys.readouterr().err
    assert said.count("as fast as it gets on this CPU: eager updates") == 1
    (header,) = records(out, "header")
    assert header["speed"]["graph"] == "graph=False"
    assert {each["op"] for each in header["speed"]["ops"]} == {"adamw_update", "sample_clips"}
    assert header["speed"]["unknown"] is None
    assert header["plan"][-1].startswith("speed    as fast as it gets on this CPU")


def test_a_negative_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="profile must be zero or more, got -1"):
        configure(tmp_path, profile=-1)
