"""The arrows between the rooms point one way, and the package imports where much is missing."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastamr"

# Who may import whom. A room may always import itself; devices, errors, files, layouts, memory and skeleton are open
# to all.
OPEN = {"devices", "errors", "files", "layouts", "memory", "skeleton", ""}
ALLOWED = {
    "devices": set(),
    "errors": set(),
    "files": set(),
    "layouts": set(),
    "memory": set(),
    "skeleton": set(),
    "testing": set(),
    "reference": set(),
    "kernels": set(),
    "native": set(),
    "ops": {"reference", "kernels", "native"},
    "nn": {"ops"},
    "models": {"nn", "ops"},
    "data": {"nn", "ops"},
    "evaluation": {"models", "data", "nn", "ops"},
    "visualization": {"models", "data", "nn", "ops"},
    "export": {"models", "data", "evaluation", "nn", "ops"},
    "training": {"models", "data", "nn", "ops", "evaluation"},
    "info": {"ops", "native"},
    "demo": {"training", "evaluation", "visualization", "models", "data", "nn", "ops", "testing"},
    "benchmarking": {
        "training",
        "visualization",
        "models",
        "data",
        "nn",
        "ops",
        "reference",
        "testing",
        "info",
    },
    "commands": {
        "benchmarking",
        "training",
        "evaluation",
        "export",
        "visualization",
        "models",
        "data",
        "nn",
        "ops",
    },
    "cli": {
        "commands",
        "training",
        "evaluation",
        "visualization",
        "models",
        "data",
        "nn",
        "ops",
        "info",
        "demo",
    },
    "__main__": {"cli"},
    "": set(),
}


def room_of(path: Path) -> str:
    if path.is_relative_to(ROOT / "kernels"):
        return "kernels"
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported_modules(path: Path) -> list[str]:
    """Absolute names of what a file of the package imports, type-checking imports left out."""
    package = ("fastamr", *path.relative_to(PACKAGE).parts[:-1]) if path.is_relative_to(PACKAGE) else (
        "fastamr", "kernels", *path.relative_to(ROOT / "kernels").parts[:-1],
    )  # fmt: skip
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: list[str] = []
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names += (
                [".".join([*base, alias.name]) for alias in node.names]
                if base == ["fastamr"]
                else [".".join(base)]
            )
    return names


def sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{path.name} opens a new room: say in this test what it may import"
    for name in imported_modules(path):
        parts = name.split(".")
        assert parts[0] != "kernels", "import the kernels as fastamr.kernels"
        if parts[0] != "fastamr" or len(parts) < 2:
            continue
        other = parts[1] if parts[1] in ALLOWED else ""
        assert other in {room, *OPEN, *ALLOWED[room]}, f"{path.relative_to(ROOT)} ({room}) imports {name}"


def test_every_op_has_its_rooms() -> None:
    """One op, one name: reference, test and benchmark exist for each file of ops."""
    helpers = {"__init__", "backends", "checks", "precision", "seeds", "triton_support"}
    helpers |= {"attention_checks", "attention_native", "attention_registration"}
    helpers |= {"row_checks", "rows_native", "stack_backends"}
    ops = {path.stem for path in (PACKAGE / "ops").glob("*.py")} - helpers
    assert ops == {
        "adamw_update",
        "linear_gelu",
        "linear_residual_norm",
        "masked_patch_gather",
        "motion_entropy",
        "motion_guidance",
        "patch_gather",
        "row_linear",
        "row_norm",
        "sample_clips",
        "select_visible",
        "visible_attention",
        "weight_gradient",
        "weighted_reconstruction_loss",
    }
    for op in ops:
        for place in (f"fastamr/reference/{op}.py", f"tests/ops/test_{op}.py", f"benchmarks/bench_{op}.py"):
            assert (ROOT / place).is_file(), place


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_is_quick_and_light() -> None:
    """Under 1.5 s, the best of three against a loaded machine; nothing heavy is loaded."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        run = run_python(
            "import fastamr, sys; assert 'triton' not in sys.modules; print(fastamr.__version__)"
        )
        best = min(best, time.perf_counter() - start)
        assert run.returncode == 0, run.stderr
    assert best < 1.5


def test_core_works_without_optional_packages_and_compilers() -> None:
    """No Triton, no command line, no TensorBoard, no pictures, no scikit-learn, no compiler on the path."""
    hidden = ["triton", "jsonargparse", "tensorboard", "matplotlib", "sklearn", "ninja"]
    hidden += ["onnx", "onnxscript", "onnxruntime"]
    code = (
        f"import os, sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"
        "os.environ['PATH'] = ''\n"
        "import torch, fastamr, fastamr.training, fastamr.evaluation, fastamr.data, fastamr.export\n"
        "model = fastamr.AMRModel(frames=24, width=16, depth=1, heads=1, decoder_width=16, decoder_depth=1,"
        " decoder_heads=1)\n"
        "model(torch.randn(2, 24, 25, 3)).backward()\n"
        "import fastamr.kernels\n"
        "print('fine')\n"
    )
    run = run_python(code)
    assert run.stdout.strip() == "fine", run.stderr


def test_bare_checkout_finds_the_kernels() -> None:
    """``fastamr.kernels`` is the folder kernels/ without an installation; a foreign ``kernels`` stays untouched."""
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "import fastamr.kernels; print(fastamr.kernels.__file__)\n"
        "assert 'kernels' not in sys.modules\n"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == str(ROOT / "kernels" / "__init__.py"), run.stderr


def test_unknown_attribute() -> None:
    import fastamr

    with pytest.raises(AttributeError, match="no attribute 'AMRModell'"):
        _ = fastamr.AMRModell
    assert "AMRModel" in dir(fastamr)
