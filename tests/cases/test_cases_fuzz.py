"""The shared cases of hostile and damaged files: one line each, at once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from fastamr import cli
from fastamr.models import MAMPModel

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "trust"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason="no folder ../shared/cases/trust beside the checkout"),
]

IMPORTED = [
    *("14_hangs/hash_collide.pkl", "14_hangs/joint_names.npz", "16_tracebacks/claims_7TiB.npz"),
    *("16_tracebacks/fold_inf.npz", "16_tracebacks/parents_inf.npz", "16_tracebacks/token_error.npz"),
]
CHECKED = ["label_1e9", "layout_inf", "steps_bad"]


def one_line(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    start = time.process_time()
    assert cli.main(words) == code
    assert time.process_time() - start < 10
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


@pytest.mark.parametrize("name", IMPORTED)
def test_import(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Path(name).name in one_line(["import", str(CASES / name), str(tmp_path / "x.safetensors")], capsys)


@pytest.mark.parametrize("name", CHECKED)
def test_check(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "16_tracebacks" / f"{name}.safetensors"
    assert path.name in one_line(["check", str(path)], capsys)


def test_models_and_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(CASES / "16_tracebacks" / "steps_bad.safetensors")
    one_line(["evaluate", "--checkpoint", str(CASES / "14_hangs" / "model"), "--data", data], capsys)
    one_line(
        ["pretrain", "--config", str(CASES / "14_hangs" / "laughs3.yaml"), "--out", str(tmp_path / "x")],
        capsys,
        2,
    )
    shutil.copy(CASES / "16_tracebacks" / "config.json", tmp_path)
    assert "config.json" in one_line(["evaluate", "--checkpoint", str(tmp_path), "--data", data], capsys)
    with pytest.raises(ValueError, match=r"blocks\.pth"):
        MAMPModel.from_released(CASES / "14_hangs" / "blocks.pth", layout="sbu15")
    with pytest.raises(ValueError, match=r"zero_width\.pth"):
        MAMPModel.from_released(CASES / "16_tracebacks" / "zero_width.pth", layout="sbu15")


def test_one_member_of_an_archive(tmp_path: Path) -> None:
    words = ["prepare", "ntu60", str(CASES / "16_tracebacks" / "lzma.zip"), str(tmp_path / "x.safetensors")]
    assert cli.main([*words, "--no-progress", "--workers", "1"]) == 3


def test_an_export_without_steps(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    path = CASES / "16_tracebacks" / "no_steps.onnx"
    data = str(CASES / "16_tracebacks" / "label_huge.pkl")
    assert "no_steps.onnx" in one_line(["predict", "--model", str(path), data], capsys)
