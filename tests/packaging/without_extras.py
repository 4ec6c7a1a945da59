"""Asks for everything that needs an optional package, in an environment without any: ``without_extras.py FOLDER``.

In the folder lies what ``a_day.py`` leaves. Each answer must be one line that names what to install.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def command(*words: str) -> Callable[[], str]:
    """Return a call of the command line that must end with 1; it returns what it says."""

    def run() -> str:
        from fastamr import cli

        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(words)
        assert code == 1, (code, said.getvalue())
        return said.getvalue()

    return run


def raises(call: Callable[[], Any]) -> Callable[[], str]:
    """Return a call of the library that must raise ``ImportError``; it returns the message."""

    def run() -> str:
        try:
            call()
        except ImportError as error:
            return str(error)
        raise AssertionError("it did not need the package")

    return run


def logistic() -> None:
    """Fit a logistic regression."""
    import numpy as np
    import torch

    from fastamr.probes.linear_probe import fit_logistic

    fit_logistic(np.zeros((4, 2)), torch.tensor([0, 1, 0, 1]), 1.0, 10)


def neighbours() -> None:
    """Embed by t-SNE."""
    import numpy as np

    from fastamr.visualization.embedding import project

    project(np.zeros((8, 2), np.float32), "tsne")


def charts() -> None:
    """Draw the figure of the ladder."""
    from fastamr.visualization.figures import new_figure

    new_figure(1, 1)


def onnx_model() -> None:
    """Run an ONNX file."""
    from fastamr.export.onnx_file import OnnxModel

    OnnxModel("model.onnx")


DATA = ("--data", "d.safetensors", "--split", "mine")
CASES: dict[str, tuple[str, Callable[[], str]]] = {
    "curves": ("viz", command("plot", "run", "--out", "pictures")),
    "embedding": ("viz", command("plot", "run", "--embedding", "pca", *DATA, "--out", "pictures")),
    "attention": ("viz", command("plot", "run", "--attention", *DATA, "--out", "pictures")),
    "confusion": (
        "viz",
        command("plot", "classifier", "--confusion", "classifier", *DATA, "--out", "pictures"),
    ),
    "animation": ("viz", command("show", "d.safetensors", "--clip", "0", "--out", "clip.gif")),
    "strip": ("viz", command("show", "d.safetensors", "--clip", "0", "--out", "clip.png")),
    "figure": ("viz", raises(charts)),
    "motion capture": ("mocap", command("import", "clip.c3d", "c.safetensors", "--markers", "markers.yaml")),
    "writing ONNX": ("export", command("export", "classifier", "--onnx", "new.onnx")),
    "running ONNX": ("export", command("predict", "moves/wave/p1.csv", "--model", "model.onnx")),
    "an ONNX model": ("export", raises(onnx_model)),
    "logistic regression": ("eval", raises(logistic)),
    "t-SNE": ("eval", raises(neighbours)),
    "a repository of the Hub": ("hub", command("export", "owner/name", "--torch-export", "new.pt2")),
}

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    Path("model.onnx").write_bytes(b"\x08\x0a")
    Path("clip.c3d").write_bytes(b"\x02\x50" + bytes(1022))
    Path("markers.yaml").write_text("layout: ntu25\nmarkers: {head: [HEAD]}\n", encoding="utf-8")
    for name, (extra, call) in CASES.items():
        said = call().strip()
        print(f"{name}: {said}", flush=True)
        assert f"pip install 'fastamr[{extra}]'" in said, (name, said)
        assert len(said.splitlines()) == 1, (name, said)
