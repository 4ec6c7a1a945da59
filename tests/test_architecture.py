"""The arrows between the rooms point one way, and the package imports where much is missing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastamr"

# Below all others: every room may import them, and they import only one another.
GROUND = {
    "checksums",
    "devices",
    "documents",
    "errors",
    "files",
    "host",
    "layouts",
    "memory",
    "progress",
    "skeleton",
    "tables",
    "version",
}
# Who imports whom: every arrow that there is and no other. A room is a folder of the package, or a file beside them
# (``.`` is the package's own door); a room's ``__init__`` is its door, which may hand on what its wings hold. Arrows
# point down: a room stands above those that it names.
ARROWS_TEXT = """
.: data models ops
__main__: cli
benchmarking: data data/packed data/synthetic models native nn ops ops/common reference training training/clips
    training/update visualization
benchmarking/nodes: benchmarking data data/synthetic features finetuning/fitting kernels models ops/common
benchmarking/quick: benchmarking
checksums:
cli:
commands: benchmarking cli configs data data/preprocessing demo evaluation/report features finetuning info
    models native probes report sweep training training/update tuning visualization
commands/bench: benchmarking benchmarking/quick commands models
commands/data: commands data data/audit data/packed data/prepare data/preprocessing data/readers
    data/readers/common features models visualization
commands/models: commands data evaluation evaluation/protocols export features finetuning models sweep training
    weights
configs:
data: data/labelling data/packed data/preprocessing data/readers
data/audit: data data/packed pages
data/labelling: data/packed
data/packed: native
data/prepare: data/packed data/preprocessing data/readers data/readers/common data/readers/raw_sets
data/preprocessing: data/packed
data/readers: data/packed data/readers/array_files data/readers/common data/readers/json_files data/readers/mocap
    data/readers/pose_tools data/readers/raw_sets data/readers/tables data/synthetic
data/readers/array_files: data/packed data/readers/common
data/readers/common: data/packed data/readers/numbering
data/readers/json_files: data/packed data/readers/common
data/readers/mocap: data/packed data/readers/common
data/readers/numbering:
data/readers/pose_tools: data/packed data/readers/common data/readers/numbering
data/readers/raw_sets: data/packed data/readers/common
data/readers/tables: data/packed data/readers/common data/readers/numbering
data/synthetic: data/packed
demo: benchmarking data data/synthetic evaluation models training visualization
devices:
distributed:
documents:
errors:
evaluation: data data/preprocessing distributed evaluation/protocols evaluation/report features finetuning
    folders models models/parts probes weights
evaluation/protocols: data data/preprocessing distributed features finetuning models models/parts probes
evaluation/report: data evaluation/protocols features models weights
export: data data/packed data/preprocessing features models models/parts nn
features: data data/packed distributed models models/parts ops weights
files:
finetuning: data data/packed distributed features finetuning/fitting folders models nn probes tracking training
    training/metrics training/update weights
finetuning/fitting: data/packed distributed features folders models nn tracking training training/clips training/metrics
    training/update
folders:
host:
info: native ops ops/common
layouts:
memory:
models: distributed models/parts nn nn/self_distillation ops ops/common weights
models/parts: nn nn/self_distillation nn/stacks ops ops/common reference
native:
nn: distributed ops ops/common
nn/self_distillation: nn ops ops/common
nn/stacks: nn ops ops/common ops/rows
ops: kernels native ops/common reference
ops/attention: kernels native ops/common reference/attention
ops/common: kernels native
ops/rows: kernels native ops/common reference
pages:
probes:
progress:
reference:
reference/attention: reference
reference/rows:
report: benchmarking data evaluation/report features finetuning models pages probes sweep visualization
skeleton:
sweep: folders training
tables:
testing: data/synthetic native ops ops/common
tracking: folders
training: data data/packed data/preprocessing distributed features folders models models/parts native ops
    ops/common probes tracking training/clips training/metrics training/update tuning
training/clips: data data/packed features ops
training/metrics:
training/update: distributed models nn nn/stacks ops ops/common training/clips training/metrics
tuning: kernels native ops ops/common testing
version:
visualization: data features models models/parts nn nn/self_distillation ops reference
weights:
"""
ARROWS = {
    room.strip(".") if room == "." else room: set(others.split())
    for room, others in re.findall(r"^(\S+):((?:[^\n]*)(?:\n    [^\n]*)*)", ARROWS_TEXT, re.MULTILINE)
}
FEW = 14
"""Files of its own that a folder may hold side by side; kernels/ and csrc/ hold one file a kernel."""


def parse_imports(package: Path) -> tuple[dict[str, Path], set[tuple[str, str]]]:
    """The modules of a package by name, and who imports whom, with imports for types and inside functions."""
    root = package.parent
    modules = {".".join(path.relative_to(root).with_suffix("").parts): path for path in package.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    arrows = set()
    for name, path in modules.items():
        inside = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                arrows |= {(name, alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = inside[: len(inside) - node.level + 1] if node.level else []
                source = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
                for alias in node.names:
                    full = f"{source}.{alias.name}"
                    arrows.add((name, full if full in modules else source))
    return modules, arrows


def room_of(module: str, modules: dict[str, Path], package: Path) -> str:
    """The folder of a module below the package, ``data/readers``; a file beside the folders is a room of its own."""
    path = modules.get(module)
    if path is None:  # fastamr.kernels is a folder beside the package
        return module.split(".")[1] if module.count(".") else ""
    folder = path.parent.relative_to(package).as_posix()
    if folder != ".":
        return folder
    return "" if path.stem == "__init__" else path.stem


def room_arrows(package: Path) -> dict[str, set[str]]:
    """Which rooms each room imports, the ground and a door's own wings left out."""
    modules, arrows = parse_imports(package)
    rooms: dict[str, set[str]] = {room_of(name, modules, package): set() for name in modules}
    for source, target in arrows:
        if target.split(".")[0] != package.name:
            continue
        here, there = (room_of(name, modules, package) for name in (source, target))
        is_door = modules[source].stem == "__init__"
        if here != there and there not in GROUND and not (is_door and there.startswith(f"{here}/")):
            rooms[here].add(there)
    return rooms


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """What is left when everything that imports nothing of the rest is taken away, again and again."""
    left = {name: set(others) - {name} for name, others in arrows.items()}
    while done := [name for name, others in left.items() if not others & set(left)]:
        for name in done:
            del left[name]
    # What only stands above a circle is taken away likewise.
    while done := [name for name in left if not any(name in others for others in left.values())]:
        for name in done:
            del left[name]
    return sorted(left)


def crowded(folders: Iterable[Path]) -> list[str]:
    """Folders with more than FEW files of their own side by side."""
    counts = {
        folder: sum(
            path.is_file() and path.name not in ("__init__.py", "README.md", "py.typed")
            for path in folder.iterdir()
        )
        for folder in folders
    }
    return [f"{folder.name}: {count} files" for folder, count in counts.items() if count > FEW]


def folders_of(top: Path) -> list[Path]:
    return sorted({path.parent for path in top.rglob("*.py")})


def test_every_arrow_is_known_and_every_known_arrow_exists() -> None:
    found = room_arrows(PACKAGE)
    assert found == ARROWS, "an arrow is new or gone: see that it points down, then say so in ARROWS"


def test_rooms_have_no_circle() -> None:
    assert circles(ARROWS) == []


def test_the_ground_stands_on_itself() -> None:
    assert {room: others for room, others in ARROWS.items() if room in GROUND and others} == {}


def test_files_have_no_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for source, target in parse_imports(PACKAGE)[1]:
        arrows.setdefault(source, set()).add(target)
    assert circles(arrows) == []


def test_no_product_code_imports_the_tests_helpers() -> None:
    """But ``fastamr tune``, which checks back ends on the user's device as the tests do."""
    assert [room for room, others in ARROWS.items() if "testing" in others] == ["tuning"]
    assert {
        target for _, target in parse_imports(PACKAGE)[1] if target.split(".")[0] in ("kernels", "tests")
    } == set()


def test_no_folder_is_crowded() -> None:
    for top in ("fastamr", "tools", "experiments", "examples", "benchmarks"):
        assert crowded(folders_of(ROOT / top)) == []
    # Kernels are tested as they lie: one file a kernel.
    assert crowded(folder for folder in folders_of(ROOT / "tests") if folder.name != "kernels") == []


def test_every_folder_says_who_lives_there() -> None:
    for folder in folders_of(PACKAGE):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text, folder
        assert len(text.split()) >= 12, folder
    for name in ("kernels", "csrc", "csrc/cpu", "csrc/cuda", "tools", "experiments", "tests"):
        assert len((ROOT / name / "README.md").read_text(encoding="utf-8").split()) >= 20, name


def test_the_wheel_holds_every_folder() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    own = {".".join(folder.relative_to(ROOT).parts) for folder in folders_of(PACKAGE)}
    assert set(packages) == own | {"fastamr.kernels", "fastamr.csrc", "fastamr.csrc.cpu", "fastamr.csrc.cuda"}


class TestOffenders:
    """The rules see what they are made for."""

    @pytest.fixture
    def house(self, tmp_path: Path) -> Path:
        package = tmp_path / "fastamr"
        for file, text in {
            "__init__.py": "",
            "errors.py": "",
            "low/__init__.py": "from .wing.deep import thing\n",
            "low/first.py": "from ..errors import name\n",
            "low/wing/__init__.py": "",
            "low/wing/deep.py": "thing = 1\n",
            "high/__init__.py": "",
            "high/top.py": "from ..low import first\n",
        }.items():
            (package / file).parent.mkdir(parents=True, exist_ok=True)
            (package / file).write_text(text)
        return package

    def test_a_sound_house(self, house: Path) -> None:
        assert room_arrows(house) == {
            "": set(), "errors": set(), "low": set(), "low/wing": set(), "high": {"low"},
        }  # fmt: skip
        assert circles(room_arrows(house)) == []

    @pytest.mark.parametrize(
        "line",
        [
            "from ..high import top",
            "from ..high.top import first",
            "import fastamr.high.top",
            "def late():\n    from ..high.top import first",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..high import top",
        ],
    )
    def test_an_arrow_upward(self, house: Path, line: str) -> None:
        (house / "low" / "first.py").write_text(line + "\n")
        assert room_arrows(house)["low"] == {"high"}
        assert circles(room_arrows(house)) == ["high", "low"]

    def test_a_circle_of_files(self, house: Path) -> None:
        (house / "low" / "second.py").write_text("from .first import name\n")
        (house / "low" / "first.py").write_text("from .second import name\n")
        arrows: dict[str, set[str]] = {}
        for source, target in parse_imports(house)[1]:
            arrows.setdefault(source, set()).add(target)
        assert circles(arrows) == ["fastamr.low.first", "fastamr.low.second"]

    def test_a_crowded_folder(self, house: Path) -> None:
        for place in range(FEW + 1):
            (house / "low" / f"file{place}.py").touch()
        assert crowded(folders_of(house)) == [f"low: {FEW + 2} files"]


def op_files(root: Path) -> dict[str, str]:
    """The ops, and the wing of ``fastamr/ops`` that each lies in: every file that is no helper."""
    helpers = {"__init__", "checks", "native", "registration", "sdpa"}
    folder = root / "fastamr" / "ops"
    return {
        path.stem: path.parent.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if path.stem not in helpers and path.parent.name != "common"
    }


def missing_rooms(cases: dict[str, bool], root: Path) -> list[str]:
    """One op, one name: what lacks a case or a file; ``cases`` says of each op in the table whether it has a kernel."""
    wings = op_files(root)
    missing = [f"a case of {op}" for op in wings.keys() - cases.keys()]
    missing += [f"fastamr/ops: {op}.py" for op in cases.keys() - wings.keys()]
    for op in wings:
        wanted = [
            f"fastamr/reference/{wings[op]}/{op}.py",
            f"tests/ops/**/test_{op}.py",
            f"benchmarks/ops/**/bench_{op}.py",
        ]
        if cases.get(op):
            wanted += [f"kernels/{op}.py", f"tests/kernels/test_{op}.py"]
        missing += [pattern.replace("/./", "/") for pattern in wanted if not list(root.glob(pattern))]
    return sorted(missing)


def test_every_op_has_its_rooms() -> None:
    """A case in the table of ops, a reference, tests, a benchmark and, with the back end ``triton``, a kernel."""
    from fastamr import ops
    from fastamr.testing.op_cases import CASES

    kernels = {case.op: "triton" in ops.availability("cuda")[case.op] for case in CASES}
    missing = missing_rooms(kernels, ROOT)
    assert missing == [], f"missing: {', '.join(missing)}"
    assert {case.op for case in CASES if case.compiled} == {op for op, has in kernels.items() if has}


class TestOpsWithoutRooms:
    """The rule sees an op that lacks something."""

    FILES = (
        "fastamr/ops/wing/turn.py",
        "fastamr/reference/wing/turn.py",
        "kernels/turn.py",
        "tests/ops/test_turn.py",
        "tests/kernels/test_turn.py",
        "benchmarks/ops/bench_turn.py",
    )

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for file in (*self.FILES, "fastamr/ops/common/seeds.py", "fastamr/ops/wing/checks.py"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        return tmp_path

    def test_complete(self, root: Path) -> None:
        assert missing_rooms({"turn": True}, root) == []

    @pytest.mark.parametrize("file", FILES[1:])
    def test_without_a_file(self, root: Path, file: str) -> None:
        (root / file).unlink()
        assert missing_rooms({"turn": True}, root) == [re.sub(r"ops/(test|bench)_", r"ops/**/\1_", file)]
        assert (missing_rooms({"turn": False}, root) == []) == ("kernels/" in file)

    def test_without_a_case(self, root: Path) -> None:
        assert missing_rooms({}, root) == ["a case of turn"]
        assert missing_rooms({"turn": True, "move": True}, root) == ["fastamr/ops: move.py"]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_is_quick_and_light() -> None:
    """Under 1.5 s of processor time, whatever else the machine does, the best of three; nothing heavy is loaded."""
    best = float("inf")
    for _ in range(3):
        run = run_python(
            "import fastamr, sys, time\nassert 'triton' not in sys.modules\nprint(time.process_time())"
        )
        assert run.returncode == 0, run.stderr
        best = min(best, float(run.stdout))
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
