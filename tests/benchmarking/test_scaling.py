from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import cli
from fastamr.benchmarking import ScalingOptions, run_scaling, scaling
from fastamr.benchmarking.cost import step_flops
from fastamr.benchmarking.scaling import SIZES, chain
from fastamr.models import build_model

CPU = torch.device("cpu")


def test_each_size_is_varied_alone(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "matmul_rate", lambda device, dtype: 1e12)
    vary = {
        "sequences": [1, 3], "frames": [24, 48], "joints": [7, 25], "visible": [4, 15], "depth": [1, 2],
        "width": [16, 64],
    }  # fmt: skip
    options = ScalingOptions(architecture=tiny, vary=vary, rounds=1)
    result = run_scaling(options, CPU)
    base = {"sequences": 2, "frames": 24, "joints": 25, "visible": 15, "depth": 1, "width": 16}
    assert list(result.curves) == list(SIZES)
    for name, points in result.curves.items():
        assert [point.value for point in points] == vary[name]
        for point in points:
            expected = {**base, name: point.value}
            if name in ("frames", "joints"):  # a tenth of the tokens stays visible
                expected["visible"] = round(expected["frames"] // 4 * expected["joints"] * 0.1)
            assert point.sizes == expected
            assert point.ms is not None
            assert point.ms > 0
    (wide,) = [point for point in result.curves["width"] if point.value == 64]
    model = build_model("amr", {**tiny, "width": 64, "decoder_width": 64})
    assert wide.tflop == pytest.approx(step_flops(model, 2) / 1e12)
    assert wide.limit_ms == pytest.approx(wide.tflop * 1e3)
    # Points at the same sizes are measured once.
    shared = {name: points[0] for name, points in result.curves.items() if points[0].value == base[name]}
    assert len({point.ms for name, point in shared.items() if name != "sequences"}) == 1


def test_a_point_that_cannot_run_has_its_reason(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = scaling.build_fast_step

    def short_of_memory(*arguments: Any, sequences: int, **options: Any) -> Any:
        if sequences > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return build(*arguments, sequences=sequences, **options)

    monkeypatch.setattr(scaling, "build_fast_step", short_of_memory)
    monkeypatch.setattr(scaling, "matmul_rate", lambda device, dtype: 1e12)
    result = run_scaling(ScalingOptions(architecture=tiny, vary={"sequences": [1, 4]}, rounds=1), CPU)
    small, large = result.curves["sequences"]
    assert small.ms is not None
    assert (large.ms, large.reason) == (None, "CUDA out of memory")


def test_defaults_of_a_gpu_and_chains() -> None:
    options = ScalingOptions().on(torch.device("cuda"))
    assert (options.sequences, options.precision, options.rounds) == (256, "bfloat16", 20)
    assert options.vary["sequences"][0::6] == (64, 4096)
    assert options.vary["frames"][-1] == 960
    assert (options.vary["joints"][0], options.vary["joints"][-1]) == (15, 133)
    assert chain(3).parents == (-1, 0, 1)


def test_command_end_to_end(
    tmp_path: Path, architecture: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "scaling"
    given = ["--device", "cpu", "--out", str(out), "--rounds", "1", "--vary", "sequences=1,2", "depth=1,2"]
    assert cli.main(["bench", "scaling", *given, *architecture]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[1:5]] == [
        "sequences",
        "sequences",
        "depth",
        "depth",
    ]
    report = json.loads((out / "scaling.json").read_text())
    assert (report["kind"], list(report["curves"])) == ("scaling", ["sequences", "depth"])
    for points in report["curves"].values():
        assert [point["value"] for point in points] == [1, 2]
        for point in points:
            assert point["limit_ms"] == pytest.approx(point["tflop"] / report["matmul_tflops"] * 1e3)
    assert (out / "scaling.png").read_bytes()[:4] == b"\x89PNG"
    assert ElementTree.parse(out / "scaling.svg").getroot().tag.endswith("svg")
    text = (out / "scaling.svg").read_text()
    for word in ("measured", "limit", "S, sequences", "encoder blocks"):
        assert f"<!-- {word} -->" in text, word


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["bench", "scaling", "--out", str(tmp_path / "out"), "--device", "cpu"]
    for given, code, text in (
        (["--vary", "framse=120"], 2, "did you mean 'frames'"),
        (["--vary", "frames=12x"], 2, "invalid literal"),
        (["--vary", "depth=0"], 1, "depth is varied over [0], expected numbers of at least 1"),
        (["--vary", "frames=100"], 1, "target_patches"),
        (["--vary", "visible=751"], 1, "visible=751 exceeds the 750 tokens"),
        (["--rounds", "0"], 1, "rounds is 0"),
    ):
        assert cli.main([*out, *given]) == code, given
        assert text in capsys.readouterr().err
