from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastamr import cli
from fastamr.benchmarking import profile_step
from fastamr.commands.bench.common import bench_parser, parse


def test_profile_of_known_work(tmp_path: Path) -> None:
    left = torch.randn(200, 200)

    def step() -> None:
        torch.mm(left, left)
        torch.mm(left, left)

    result = profile_step(
        step, torch.device("cpu"), updates=3, warmup=1, trace=tmp_path / "t.json", what="two"
    )
    (product,) = [row for row in result.kernels if row.name == "aten::mm"]
    assert product.calls == 2
    assert sum(row.share for row in result.kernels) == pytest.approx(1)
    assert [row.ms for row in result.kernels] == sorted((row.ms for row in result.kernels), reverse=True)
    assert 0 < result.busy_ms < result.wall_ms
    assert result.gap_ms == pytest.approx(result.wall_ms - result.busy_ms)
    assert result.launches == {"outermost operators": 2}
    assert "two: 3 updates on CPU" in result.text()
    rest = result.text(most=0).splitlines()[-1]
    assert rest.strip().startswith("100.0%")
    for updates, warmup in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match=f"updates={updates} and warmup={warmup}"):
            profile_step(step, torch.device("cpu"), updates=updates, warmup=warmup, trace=tmp_path / "t.json")


def test_a_precision_that_is_emulated_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person who names it gets it, with a warning."""
    monkeypatch.setattr("fastamr.devices.processor_features", lambda: {"avx2": True})
    parser = bench_parser("profile", "something", [])
    parser.add_argument_group("what").add_argument("--precision")
    for precision in ("bfloat16", "float16"):
        assert parse(parser, ["--device", "cpu", "--precision", precision])["precision"] == precision
        told = capsys.readouterr().err
        assert f"warning: no instructions for {precision} products on this processor" in told
        assert "they are emulated, and the times say nothing about other machines" in told
    parse(parser, ["--device", "cpu", "--precision", "float32"])
    assert "emulated" not in capsys.readouterr().err
    monkeypatch.setattr("fastamr.devices.processor_features", lambda: {"amx_bf16": True})
    parse(parser, ["--device", "cpu", "--precision", "bfloat16"])
    assert "emulated" not in capsys.readouterr().err


def test_command_end_to_end(
    tmp_path: Path, architecture: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "profile"
    given = ["--device", "cpu", "--out", str(out), "--updates", "2", "--sequences", "2", "--warmup", "1"]
    assert cli.main(["bench", "profile", *given, "--most", "3", *architecture]) == 0
    printed = capsys.readouterr().out
    assert "amr, float32, 2 sequences: 2 updates on CPU" in printed
    report = json.loads((out / "profile.json").read_text())
    assert (report["kind"], report["updates"]) == ("profile", 2)
    names = {row["name"] for row in report["kernels"]}
    assert "aten::mm" in names
    assert report["wall_ms"] == pytest.approx(report["busy_ms"] + report["gap_ms"])
    trace = json.loads((out / "trace.json").read_text())
    assert any(entry.get("name") == "aten::mm" for entry in trace["traceEvents"])
    assert len((out / "profile.txt").read_text().splitlines()) == 5 + len(report["kernels"])
    assert sorted(path.name for path in out.iterdir()) == ["profile.json", "profile.txt", "trace.json"]


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["bench", "profile", "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert cli.main([*out, "--model", "gfpp"]) == 2
    assert "did you mean 'gfp'" in capsys.readouterr().err
    assert cli.main([*out, "--sequences", "0"]) == 1
    assert "sequences is 0, expected at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
def test_profile_on_a_gpu(tmp_path: Path, architecture: list[str]) -> None:
    out = tmp_path / "profile"
    assert cli.main(["bench", "profile", "--device", "cuda", "--out", str(out), *architecture]) == 0
    report = json.loads((out / "profile.json").read_text())
    assert report["launches"]
    assert 0 < report["busy_ms"] <= report["wall_ms"]
