from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastamr.visualization import Curve, draw_comparison

CURVES = {"SkeletonMAE": Curve([1, 2, 3], [0.9, 0.6, 0.5]), "AMR": Curve([1, 2, 3], [1.8, 0.9, 0.8])}
ACCURACIES = {"random": {"1-NN": 44.1, "linear": 58.2}, "AMR": {"1-NN": 56.8}}


def test_draws_what_it_is_given(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_comparison(tmp_path / "a.svg", CURVES, ACCURACIES, title="both methods")
    text = (tmp_path / "a.svg").read_text()
    for word in ("both methods", "SkeletonMAE", "AMR", "random", "1-NN", "linear", "epoch", "56.8", "44.1"):
        assert f"<!-- {word} -->" in text, word
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


def test_nothing_to_draw_still_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_comparison(tmp_path / "a.png", {}, {})
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_without_matplotlib_one_clear_line() -> None:
    code = (
        "import sys; sys.modules['matplotlib.figure'] = None\n"
        "from fastamr.visualization import draw_comparison\n"
        "draw_comparison('x.png', {}, {})\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: pictures need matplotlib: pip install 'fastamr[viz]'" in run.stderr
