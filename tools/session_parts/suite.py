"""``pytest -m gpu``, several files at a time, each in its own process: a test that hangs or crashes costs itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastamr.host import allowed_cpus

from .common import Context, say
from .progress import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
_MOST, _TEST_SECONDS, _START_SECONDS, _MOST_STARTS = 12, 90.0, 60.0, 8
# Of pytest: no test was collected.
_NOTHING = 5
_NO_TIME = "no time was left"


@dataclass
class _File:
    """A file of tests: the outcomes so far and what went wrong, by test, and why it did not come to its end."""

    path: Path
    outcomes: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    trees: list[ElementTree.Element] = field(default_factory=list)
    why: str | None = None


def tests(context: Context) -> None:
    """Run the tests that need a GPU, largest files first, until time is up; one line for each file."""
    waiting = deque(files_of(context))
    done: list[_File] = []

    def work() -> None:
        while context.left > 0:
            try:
                file = _File(waiting.popleft())
            except IndexError:
                return
            run_file(file, context)
            done.append(file)
            report(file)

    threads = [threading.Thread(target=work) for _ in range(min(_MOST, allowed_cpus(), len(waiting)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write_junit(done, context.out / "junit.xml")
    total = Counter(outcome for file in done for outcome in file.outcomes.values())
    names = [_name(path) for path in waiting]
    say(
        total=dict(total),
        not_run=names,
        text=f"{dict(total)} in {len(done)} files, {len(names)} files not run",
    )


def files_of(context: Context) -> list[Path]:
    """Files that may hold such tests, largest first; with small sizes one."""
    found = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.gpu" in path.read_text(encoding="utf-8") and "tools" not in path.parts
    ]
    found.sort(key=lambda path: (-path.stat().st_size, path))
    return found[-1:] if context.small else found


def run_file(file: _File, context: Context) -> None:
    """Run a file's tests; where a process ends early or is of no use any more, the rest in another."""
    for _ in range(_MOST_STARTS):
        before = len(file.outcomes)
        with tempfile.TemporaryDirectory() as folder:
            if not _run_once(file, Path(folder), context) or file.why is not None:
                return
        if len(file.outcomes) == before:
            file.why = "pytest did not come to a test"
            return
    file.why = f"given up after {_MOST_STARTS} processes"


def _run_once(file: _File, folder: Path, context: Context) -> bool:
    """One process of pytest for the tests that have no outcome yet; whether another one must go on."""
    junit, output = folder / "junit.xml", folder / "output"
    (folder / "done").write_text("\n".join(file.outcomes), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", str(file.path), "-m", "gpu", "-q", f"--junitxml={junit}"]
    command += ["-p", "tools.session_parts.progress"]
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {VARIABLE: str(folder)}, stdout=stream, stderr=stream
        )
        hung = _watch(process, folder / "progress", context)
    code = process.returncode
    running, spoilt = _take(file, folder / "progress")
    if junit.is_file():
        with contextlib.suppress(ElementTree.ParseError):
            file.trees += ElementTree.parse(junit).getroot().iter("testsuite")
    if hung is None and context.left <= 0:
        file.why = _NO_TIME
        return False
    if running is not None:
        died = f"its process died of {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        file.outcomes[running], file.words[running] = "failed", hung or died
        return True
    if code not in (0, 1, _NOTHING) and not spoilt:
        last = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        file.why = hung or f"pytest ended with status {code}: {' '.join(last)[:300]}"
        return False
    return spoilt


def _watch(process: subprocess.Popen[bytes], log: Path, context: Context) -> str | None:
    """Wait for the end; end a process whose test hangs, and say so, or when time is up."""
    size, changed = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        now = log.stat().st_size if log.is_file() else 0
        if now != size:
            size, changed = now, time.monotonic()
        allowed = _TEST_SECONDS if size else _START_SECONDS
        if time.monotonic() - changed > allowed or context.left <= 0:
            process.kill()
            process.wait()
            return f"no end within {allowed:.0f} s" if context.left > 0 else None
    return None


def _take(file: _File, log: Path) -> tuple[str | None, bool]:
    """Read what the plugin wrote; return the test that was running, and whether the process was of no use any more."""
    running, spoilt = None, False
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else []:
        with contextlib.suppress(ValueError):  # a line that was cut
            entry: dict[str, Any] = json.loads(line)
            running = entry.get("starts")
            spoilt = "spoilt" in entry
            if "test" in entry:
                file.outcomes[entry["test"]], file.words[entry["test"]] = entry["outcome"], entry["words"]
    return running, spoilt


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def report(file: _File) -> None:
    """A line for the file, and one for each test that failed."""
    name = _name(file.path)
    counts = dict(Counter(file.outcomes.values()))
    failed = [test for test, outcome in file.outcomes.items() if outcome == "failed"]
    for test in failed:
        say(test=test, ok=False, words=file.words[test], text=f"{test}: {file.words[test]}")
    say(
        file=name,
        outcomes=counts,
        **({} if file.why is None else {"why": file.why, "text": f"{name}: {file.why}"}),
    )


def write_junit(files: list[_File], path: Path) -> None:
    """All files' results as one document."""
    root = ElementTree.Element("testsuites")
    root.extend(tree for file in files for tree in file.trees)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
