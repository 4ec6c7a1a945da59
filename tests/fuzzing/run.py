"""Feed spoiled files to every loader: ``python -m tests.fuzzing.run --inputs 200000`` (``make fuzz``).

The inputs come from Hypothesis; ``--engine atheris`` lets coverage guide them where that package is installed. Each
loader may return, or raise ``ValueError`` or ``OSError`` naming the file; anything else is a finding: another
exception, more than 5 s of processor time, or a process that dies. More than 1 GB beyond what the process has at the
start is refused by the system. Child processes do the work, so that a crash is told too.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from random import Random
from typing import Any

SECONDS, BYTES = 5, 1 << 30
HANGS = 60
ROOT = Path(__file__).resolve().parents[2]


class TookTooLong(BaseException):
    """An input was not done within :data:`SECONDS` of processor time."""


def main(words: list[str] | None = None) -> int:
    """Run the children until the inputs or the time are used up; print the counts and the findings."""
    given = _parser().parse_args(words)
    if given.worker:
        return _work(given)
    start, done, findings, seed = time.time(), 0, [], given.seed
    while done < given.inputs and time.time() - start < given.seconds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            left = max(1, int(given.seconds - (time.time() - start)))
            command = [
                sys.executable,
                "-m",
                "tests.fuzzing.run",
                "--worker",
                "--folder",
                name,
                "--seed",
                str(seed),
            ]
            command += ["--inputs", str(min(given.block, given.inputs - done)), "--seconds", str(left)]
            command += ["--engine", given.engine, "--only", given.only]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
            log = folder / "log.jsonl"
            lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            findings += [line for line in lines if "error" in line]
            done += max((line.get("done", 0) for line in lines), default=0)
            if result.returncode:
                last = (folder / "last").read_text() if (folder / "last").exists() else "start"
                findings.append(
                    {
                        "target": last,
                        "error": f"process ended with {result.returncode}",
                        "at": result.stderr[-800:],
                    }
                )
                if last == "start":
                    break
            if findings and given.keep:
                _keep(folder, Path(given.keep))
        seed += 1
        print(f"{done} inputs, {len(findings)} findings, {time.time() - start:.0f} s", flush=True)
    kinds = {
        json.dumps([finding["target"], finding["error"][:30], finding["at"][-90:]]): finding
        for finding in findings
    }
    for finding in kinds.values():
        print(json.dumps(finding))
    print(f"{done} inputs of {given.inputs} in {time.time() - start:.0f} s, {len(kinds)} kinds of findings")
    return int(bool(findings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.fuzzing.run", description=__doc__)
    add = parser.add_argument
    add("--inputs", type=int, default=int(os.environ.get("FASTAMR_FUZZ_INPUTS", "200000")))
    add("--seconds", type=float, default=float(os.environ.get("FASTAMR_FUZZ_SECONDS", "7200")))
    add("--block", type=int, default=10000, help="inputs of a child process")
    add("--seed", type=int, default=0)
    add("--only", default="", help="targets with this word in their name")
    add("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    add("--keep", default="", help="a folder for the inputs of findings")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    add("--folder", default="", help=argparse.SUPPRESS)
    return parser


def _keep(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in (folder / "found").glob("*"):
        (target / path.name).write_bytes(path.read_bytes())


class Worker:
    """Writes inputs, loads them, and logs what should not have happened.

    Args:
        folder: where inputs, the log and the name of the current target go.
        only: a word that the targets' names hold.
    """

    def __init__(self, folder: Path, only: str = "") -> None:
        from .targets import targets

        self.targets = [target for target in targets() if only in target.name]
        self.folder, self.done, self.found = folder, 0, 0
        (folder / "found").mkdir(parents=True)
        for place, target in enumerate(self.targets):
            self._place(place).mkdir()
            for name, content in target.beside:
                (self._place(place) / name).write_bytes(content)

    def _place(self, place: int) -> Path:
        return self.folder / f"t{place}"

    def limit(self) -> None:
        """Let this process have no more than a gigabyte beyond what it has now."""
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        size = pages * resource.getpagesize() + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, _too_long)

    def check_seeds(self) -> None:
        """Load every sound file, so that a target which reads nothing is told."""
        for place, target in enumerate(self.targets):
            path = self._place(place) / target.file
            path.write_bytes(target.content)
            target.load(path)

    def feed(self, place: int, content: bytes) -> None:
        """Give one input to a loader; compiled code that no signal ends ends the process after :data:`HANGS` s."""
        faulthandler.dump_traceback_later(HANGS, exit=True)
        target = self.targets[place]
        path = self._place(place) / target.file
        path.write_bytes(content)
        (self.folder / "last").write_text(target.name)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            target.load(path)
        except target.errors as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            if target.is_named and path.name not in str(error) and path.parent.name not in str(error):
                self.tell(target.name, error, content, "does not name the file: ")
        except BaseException as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            self.tell(target.name, error, content)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
        self.done += 1

    def tell(self, name: str, error: BaseException, content: bytes, what: str = "") -> None:
        """Log a finding and keep its input."""
        import traceback

        steps = traceback.extract_tb(error.__traceback__)
        at = " > ".join(f"{Path(step.filename).name}:{step.lineno}" for step in steps[-6:])
        self.log(target=name, error=f"{what}{type(error).__name__}: {str(error)[:300]}", at=at)
        self.found += 1
        if self.found < 200:
            safe = name.replace(" ", "_")
            (self.folder / "found" / f"{self.found}_{type(error).__name__}_{safe}").write_bytes(content)

    def log(self, **values: Any) -> None:
        """Append a line to the log."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")


def _too_long(number: int, frame: object) -> None:
    raise TookTooLong(f"more than {SECONDS} s")


def spoiled(content: bytes, mutators: tuple[Any, ...], random: Random) -> bytes:
    """Return a content changed once or several times."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    for _ in range(random.choice((1, 1, 1, 2))):
        try:
            content = random.choice(mutators)(content, random)
        except (
            Exception
        ):  # the content is too broken for this way of spoiling it, whatever its library raises
            content = content[: len(content) // 2]
    faulthandler.cancel_dump_traceback_later()
    return content


def _work(given: argparse.Namespace) -> int:
    warnings.simplefilter("ignore")
    os.environ["FASTAMR_BUILD"] = "none"
    if given.engine == "atheris":
        _instrument()
    worker = Worker(Path(given.folder), given.only)
    worker.check_seeds()
    worker.limit()
    end = time.time() + given.seconds
    (_with_hypothesis if given.engine == "hypothesis" else _with_atheris)(worker, given, end)
    worker.log(done=worker.done)
    return 0


def _with_hypothesis(worker: Worker, given: argparse.Namespace, end: float) -> None:
    import hypothesis
    from hypothesis import strategies as st

    raw = st.one_of(
        st.binary(max_size=400), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
    leaf = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8)
    names = st.text(max_size=6)
    tree = st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=5),
        max_leaves=20,
    )
    free = st.one_of(raw, tree.map(lambda value: json.dumps(value).encode()))
    spoil = st.integers(0, (1 << 64) - 1)

    @hypothesis.seed(given.seed)
    @hypothesis.settings(
        max_examples=given.inputs, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.integers(0, len(worker.targets) - 1), st.one_of(*[spoil] * 9, free))
    def check(place: int, how: int | bytes) -> None:
        if time.time() > end:
            return
        target = worker.targets[place]
        random = Random(f"{given.seed} {how!r}")
        worker.feed(
            place, how if isinstance(how, bytes) else spoiled(target.content, target.mutators, random)
        )

    check()


def _instrument() -> None:
    """Import the library's modules that read files with atheris watching; torch's own would take it an hour."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["fastamr"]):
        import fastamr.data

        for found in pkgutil.walk_packages(fastamr.data.__path__, "fastamr.data."):
            importlib.import_module(found.name)
        importlib.import_module("tests.fuzzing.targets")


def _with_atheris(worker: Worker, given: argparse.Namespace, end: float) -> None:
    import atheris

    def check(data: bytes) -> None:
        if time.time() > end or worker.done >= given.inputs:
            worker.log(done=worker.done)
            os._exit(0)
        source = atheris.FuzzedDataProvider(data)
        place = source.ConsumeIntInRange(0, len(worker.targets) - 1)
        target = worker.targets[place]
        rest = source.ConsumeBytes(source.remaining_bytes())
        whole = rest[:1] >= b"\xf0"
        worker.feed(place, rest[1:] if whole else spoiled(target.content, target.mutators, Random(rest)))

    atheris.Setup([sys.argv[0], f"-runs={given.inputs + 1}", f"-seed={given.seed + 1}"], check)
    atheris.Fuzz()


if __name__ == "__main__":
    raise SystemExit(main())
