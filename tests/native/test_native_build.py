"""Building, caching and loading the compiled extension."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastamr import info, native
from fastamr.native import build, cache, load

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fake_compiler(folder: Path, body: str) -> str:
    """A compiler that only writes its output file, unless ``body`` says otherwise."""
    path = folder / "compiler"
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo fake 1.0; exit 0; fi\n'
        f"{body}\n"
        'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo library > "$2"; shift; done\n',
        encoding="utf-8",
    )
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache and a process that has not looked for the extension yet."""
    monkeypatch.setenv("FASTAMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(load, "_reasons", {})
    monkeypatch.delenv("FASTAMR_BUILD", raising=False)
    load._matrix_unit.cache_clear()
    yield tmp_path / "cache"
    load._matrix_unit.cache_clear()


def test_builds_once_and_again_when_anything_changes(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, f"echo ran >> {log}"))
    first = load.built_library("cpu")
    assert first.parent == fresh
    assert first.read_text() == "library\n"
    commands = len(log.read_text().splitlines())
    assert load.built_library("cpu") == first
    assert len(log.read_text().splitlines()) == commands
    assert sorted(path.suffix for path in fresh.iterdir()) == [".json", ".lock", ".so"], "no leftovers"
    monkeypatch.setattr(build, "KERNEL_FLAGS", (*build.KERNEL_FLAGS, "-g"))
    assert load.built_library("cpu") != first


def test_the_hash_covers_sources_flags_compiler_and_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "csrc"
    shutil.copytree(build.sources_folder(), copy)
    monkeypatch.setattr(build, "sources_folder", lambda: copy)
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, ""))
    torch = build.find_torch()

    def fingerprint() -> str:
        return build.fingerprint(build.cpu_plan(torch))

    seen = {fingerprint()}
    assert fingerprint() in seen
    sources = ("visible_attention.h", "cpu/vectors.h", "cpu/visible_attention.cpp", "cpu/adamw_update.cpp")
    products = (
        "products.h",
        "cpu/tiles.h",
        "cpu/tile_products.cpp",
        "torch_cpu_products.cpp",
        "torch_tensors.h",
    )
    for name in (*sources, *products, "torch_cpu.cpp", "torch_cpu_adamw.cpp"):
        (copy / name).write_text((copy / name).read_text() + "\n")
        assert fingerprint() not in seen, name
        seen.add(fingerprint())
    (copy / "cuda" / "other.cu").write_text("")
    assert fingerprint() in seen, "the CPU library does not depend on the CUDA sources"
    other = build.Torch(torch.folder, "2.99.0", torch.cuda)
    monkeypatch.setattr(build, "find_torch", lambda: other)
    assert fingerprint() not in seen
    compiler = Path(os.environ["CXX"])
    compiler.write_text(compiler.read_text(encoding="utf-8").replace("1.0", "2.0"), encoding="utf-8")
    assert fingerprint() not in seen


def test_two_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {
        "CXX": fake_compiler(tmp_path, f"echo ran >> {log}; sleep 0.3"),
        "FASTAMR_CACHE": str(tmp_path / "cache"),
    }
    code = "from fastamr.native import load; print(load.built_library('cpu').read_text())"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = [process.communicate() for process in processes]
    assert [out.strip() for out, _ in results] == ["library", "library"], results
    assert sum("compiling its cpu extension" in error for _, error in results) == 1
    assert len(log.read_text().splitlines()) == len(load.plan_here("cpu").compilations) + 1


def test_a_build_shows_how_far_it_is(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, ""))
    load.built_library("cpu")
    out, error = capsys.readouterr()
    steps = len(load.plan_here("cpu").compilations) + 1
    assert out == ""
    assert error.splitlines()[0] == f"fastamr: compiling its cpu extension into {fresh}, once"
    assert re.search(rf"fastamr: compiling: +0%.* 0/{steps} ", error)
    assert re.search(rf"fastamr: compiling: 100%.* {steps}/{steps} ", error)
    load.built_library("cpu")
    assert capsys.readouterr() == ("", "")


def test_who_waits_for_another_build_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "cpu.lock"
    with cache.locked(lock):
        assert capsys.readouterr().err == ""
        got: list[str] = []

        def wait() -> None:
            with cache.locked(lock):
                got.append("the lock")

        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.3)
        assert got == []
    waiting.join(20)
    assert got == ["the lock"]
    line = f"fastamr: waits for another process that compiles the extension (lock: {lock})"
    assert capsys.readouterr().err.splitlines() == [line]


def test_the_first_failure_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, f"echo ran >> {log}; sleep 0.1; exit 1"))
    plan = build.cpu_plan(build.find_torch())
    with pytest.raises(build.BuildError, match="compiler failed: exit status 1"):
        build.build(plan, tmp_path / "cpu.so", 1)
    assert len(log.read_text().splitlines()) < len(plan.compilations)


def processor_seconds(run: Callable[[], object]) -> float:
    """Processor time of the programs that ``run`` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


ZEN_3 = "flags\t\t: fpu sse sse2 avx avx2 fma bmi2\n"
ZEN_4 = "flags : fma avx2 avx512f avx512bw avx512dq avx512vl avx512_bf16\n"
SAPPHIRE_RAPIDS = ZEN_4.strip() + " amx_bf16 amx_tile amx_int8\n"


@pytest.mark.parametrize(
    ("processor", "level"),
    [
        ("flags : fpu sse sse2 avx\n", "baseline"),
        ("flags : avx2\n", "baseline"),
        (ZEN_3, "avx2"),
        (ZEN_4, "avx512"),
        (SAPPHIRE_RAPIDS, "matrix unit"),
        (SAPPHIRE_RAPIDS + ZEN_3, "avx2"),
        ("flags : fma avx512f avx512bw avx512dq avx512vl amx_tile\n", "baseline"),
        ("model name : x\n", "matrix unit"),
        ("", "matrix unit"),
    ],
)
def test_a_first_use_compiles_what_the_processor_runs(
    processor: str, level: str, monkeypatch: pytest.MonkeyPatch, fresh: Path, tmp_path: Path
) -> None:
    assert build.level_of(processor) == level
    monkeypatch.setattr(load, "_processor", lambda: processor)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, ""))
    words = {word for _, command in load.plan_here("cpu").compilations for word in command}
    sets = [name for name in build.INSTRUCTION_SETS if f'-DFASTAMR_KERNELS_NAME="{name}"' in words]
    assert sets == list(build.LEVELS[: build.LEVELS.index(level) + 1][:3])
    sources = [source.name for source, _ in load.plan_here("cpu").compilations]
    assert ("tile_products.cpp" in sources) == (level == "matrix unit")
    assert len(sources) == len(set(sources)) + 3 * (len(sets) - 1)
    # A wheel serves every processor.
    assert len(build.plan_for("cpu").compilations) == 16


@needs_compiler
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of this family only")
@pytest.mark.parametrize("level", build.LEVELS)
def test_the_choice_names_no_kernel_that_was_not_compiled(level: str, tmp_path: Path) -> None:
    plan = build.cpu_plan(build.find_torch(), level)
    ((source, command),) = (each for each in plan.compilations if each[0].name == "best_kernels.cpp")
    place = str(tmp_path / "best.o")
    subprocess.run([*build.filled(command, source=str(source), object=place)], check=True)
    listing = subprocess.run(["nm", "-uC", place], capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"fastamr::(\w+)", listing))
    sets = build.LEVELS[: build.LEVELS.index(level) + 1][:3]
    tables = [prefix.removeprefix("fastamr_") for prefix, _ in build.CPU_KERNELS.values()]
    tiles = {"tile_product_kernels"} if level == "matrix unit" else set()
    assert found == {f"{table}_{name}" for table in tables for name in sets} | tiles


@needs_compiler
@pytest.mark.slow
def test_two_cores_build_it_within_twenty_seconds(tmp_path: Path) -> None:
    """By processor time, so that it holds on a busy machine, whose speed a program of known size tells."""
    plan = build.cpu_plan(build.find_torch())
    known = tmp_path / "known.cpp"
    known.write_text(
        "#include <functional>\n#include <memory>\n#include <optional>\n#include <string>\n#include <vector>\n"
    )
    command = [plan.tools[0], "-std=c++17", "-O3", "-c", str(known), "-o", str(tmp_path / "known.o")]

    def speed() -> float:
        return (
            processor_seconds(lambda: subprocess.run(command, check=True)) / 0.38
        )  # seconds of an idle Zen 4

    around = [speed(), speed()]
    seconds: list[float] = []
    for path, words in plan.compilations:
        object_file = str(tmp_path / f"{len(seconds)}.o")
        filled = [*build.filled(words, source=str(path), object=object_file)]
        seconds.append(processor_seconds(lambda filled=filled: subprocess.run(filled, check=True)))
    around += [speed(), speed()]
    slower = max(1.0, sorted(around)[1])
    cores = [0.0, 0.0]
    for each in seconds:  # as two compilers take them one after the other
        cores[cores.index(min(cores))] += each
    assert max(cores) < 20 * slower, (cores, around, [round(each, 1) for each in seconds])


def test_a_failure_keeps_its_cause(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    body = f"echo ran >> {log}; echo 'x.cpp:1: error: no such thing' >&2; exit 1"
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, body))
    reason = native.why_not("cpu")
    assert reason is not None
    assert "compiler failed: x.cpp:1: error: no such thing" in reason
    kept = re.search(r"its whole output: (.*)\)", reason)
    assert kept is not None
    assert "-fno-trapping-math" in Path(kept[1]).read_text(encoding="utf-8")
    assert reason in info.report()
    tries = len(log.read_text().splitlines())
    load._reasons.clear()
    assert "no such thing" in (native.why_not("cpu") or "")
    assert len(log.read_text().splitlines()) == tries, "a failed build is not repeated"
    assert list(fresh.glob("cpu-*.so")) == []


def test_a_report_compiles_only_when_asked(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, f"echo ran >> {log}"))
    text = info.report()
    assert "cpu: not compiled yet: the first call that needs it does, and fastamr info --build" in text
    assert "no matrix unit in use" in text
    assert not log.exists()
    with native.without_compiling():
        assert native.why_not("cuda") != "", "a reason, or the library"
    assert "not compiled yet" not in info.report(build=True)
    assert len(log.read_text().splitlines()) > 1
    assert "not compiled yet" not in info.report()


@pytest.mark.slow
def test_collecting_the_tests_compiles_nothing(fresh: Path) -> None:
    words = [
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "tests/ops",
        "tests/nn",
        "tests/models",
        "tests/data/packed",
    ]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "FASTAMR_CACHE": str(fresh)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert not list(fresh.glob("*.so")) if fresh.exists() else True


def test_no_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "nonesuch")
    assert "no compiler 'nonesuch' on the path: install it or set CXX" in (native.why_not("cpu") or "")


def test_a_library_that_does_not_load(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, ""))
    assert "the cpu extension is missing: " in (native.why_not("cpu") or "")


@pytest.mark.parametrize("choice", ["none", "sideways"])
def test_left_out_goes_on_with_sdpa(choice: str) -> None:
    code = (
        "import torch\nfrom fastamr import ops\nx = torch.randn(8, 75, 3, 4, 32)\n"
        "print(torch.equal(ops.visible_attention(x), ops.visible_attention(x, backend='sdpa')))\n"
        "try:\n    ops.visible_attention(x, backend='cpp')\nexcept RuntimeError as error:\n    print(error)\n"
    )
    run = run_python(code, FASTAMR_BUILD=choice)
    first, second = run.stdout.splitlines()
    assert first == "True"
    reason = (
        "FASTAMR_BUILD=none leaves the cpu extension out" if choice == "none" else "FASTAMR_BUILD='sideways'"
    )
    assert f"backend 'cpp' cannot run visible_attention: {reason}" in second.replace(
        "the cpu extension is missing: ", ""
    )


def test_cuda_needs_torch_with_cuda_and_the_same_major(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = build.find_torch().folder
    with pytest.raises(build.BuildError, match="built without CUDA"):
        build.cuda_plan(build.Torch(folder, "2.13.0", None))
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("NVCC", str(nvcc))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    with pytest.raises(
        build.BuildError, match=r"is of CUDA 13, torch of CUDA 12\.8: install the nvcc of CUDA 12"
    ):
        build.cuda_plan(build.Torch(folder, "2.13.0", "12.8"))
    plan = build.cuda_plan(build.Torch(folder, "2.13.0", "13.0"))
    command = " ".join(plan.compilations[0][1])
    for architecture in ("80", "89", "90", "100"):
        assert f"code=sm_{architecture}" in command
    assert "code=compute_100" in command
    one = " ".join(build.cuda_plan(build.Torch(folder, "2.13.0", "13.0"), ("90",)).compilations[0][1])
    assert re.findall(r"code=sm_\w+|code=compute_\w+", one) == ["code=sm_90"]


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ([], build.CUDA_ARCHITECTURES),
        (["90"], ("90",)),
        (["86"], ("80",)),
        (["100", "90", "90"], ("90", "100")),
        (["90", "120"], build.CUDA_ARCHITECTURES),
        (["75"], build.CUDA_ARCHITECTURES),
    ],
)
def test_a_first_use_compiles_for_the_gpu_that_is_there(present: list[str], wanted: tuple[str, ...]) -> None:
    assert build.architectures_of(present) == wanted


def test_without_a_gpu_no_cuda_library_is_built(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes minutes, and nothing could run it."""
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(load, "built_library", lambda device: pytest.fail("it was built"))
    assert (
        native.why_not("cuda")
        == "there is no GPU (torch.cuda.is_available() is false), so the cuda extension is not built"
    )


def test_flags_keep_the_processes_arithmetic() -> None:
    """-ffast-math and its parts that change rounding order, or denormals, for the kernel or for everybody."""
    plan = build.cpu_plan(build.find_torch())
    words = {word for _, command in plan.compilations for word in command} | set(plan.link)
    assert words.isdisjoint({"-ffast-math", "-Ofast", "-fassociative-math", "-funsafe-math-optimizations"})
    assert words.isdisjoint({"-march=native", "-mtune=native"})


@pytest.mark.extension
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
def test_symbols() -> None:
    """Only the C and C++ libraries and torch's stable ABI are needed; nothing but their weak symbols is shared."""
    library = native.status("cpu")
    listing = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout
    undefined = [line.split()[-1] for line in listing.splitlines() if " U " in line]
    foreign = [
        name
        for name in undefined
        if "@GLIBC" not in name
        and "@CXXABI" not in name
        and "@GCC" not in name
        and not name.startswith(("aoti_torch_", "torch_", "_ZNSt", "_ZNKSt", "_ZSt"))
    ]
    assert foreign == []
    assert any(name.startswith("aoti_torch_") for name in undefined)


@needs_compiler
@pytest.mark.parametrize(
    ("source", "instructions"),
    [
        # Compiling takes seconds: each source and each set once, all of them with --run-slow.
        *(
            pytest.param(source, name, marks=() if row == column else pytest.mark.slow)
            for row, source in enumerate(build.CPU_KERNELS)
            for column, name in enumerate(reversed(build.INSTRUCTION_SETS))
        ),
        pytest.param("tile_products.cpp", None, marks=pytest.mark.slow),
    ],
)
def test_instruction_sets_share_no_code(source: str, instructions: str | None, tmp_path: Path) -> None:
    """A function with a shared name, compiled for AVX-512, could be linked into the code for older processors."""
    named = instructions and f'-DFASTAMR_KERNELS_NAME="{instructions}"'
    commands = [
        build.filled(command, source=str(path), object=str(tmp_path / "kernels.o"))
        for path, command in build.cpu_plan(build.find_torch()).compilations
        if path.name == source and (named is None or named in command)
    ]
    if not commands:
        pytest.skip("not compiled for processors of this family")
    subprocess.run([*commands[0]], check=True)
    listing = subprocess.run(
        ["nm", str(tmp_path / "kernels.o")], capture_output=True, text=True, check=True
    ).stdout
    shared = [line.split()[-1] for line in listing.splitlines() if re.search(r" [TWVu] ", line)]
    # The pointer to the handler of exceptions is data, the same in every file.
    assert set(shared) <= {"DW.ref.__gxx_personality_v0"}


@needs_compiler
@pytest.mark.slow
def test_cpu_kernel_without_python() -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "check_cpu_kernel.py"), "--plain"], check=True)
