"""From a data set's raw files to one packed file: in parallel, in bounded memory, and continued where it stopped."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...documents import printable
from ...errors import check_name
from ...files import make_folder, write_text
from ..packed.dataset import PackedSkeletons, Summary
from ..packed.file import check_packed_target
from ..preprocessing.apply import parse_steps, preprocess
from ..preprocessing.geometry import Step
from ..readers.common.reader import Damage
from ..readers.common.sources import Listing, list_files
from ..readers.raw_sets.raw import Found, RawSet, Task
from ..readers.registry import of_kind, read_source
from .work_folder import (
    BlockResult,
    Job,
    join_blocks,
    make_blocks,
    open_folder,
    remove_folder,
    run_block,
    write_joined,
)

_DTYPES = ("float32", "float16")


@dataclass
class Report:
    """What came of a preparation.

    Args:
        kind: the data set.
        source: where the raw files were.
        output: the packed file.
        files: how many raw files were read.
        summary: what is in the packed file.
        damaged: raw files that were left out because of what is in them.
        dropped: name and reason of clips that were left out, such as those without a body.
        left_out: file and reason of those that are not of this data set.
        notes: what else the user should know.
        seconds: how long it took, without the time before an interruption.
        files_per_second: raw files read in that time.
    """

    kind: str
    source: str
    output: str
    files: int = 0
    summary: Summary = field(default_factory=Summary)
    damaged: list[Damage] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    files_per_second: float = 0.0

    @property
    def path(self) -> Path:
        """Where the report is written: ``ntu60.report.json`` beside ``ntu60.safetensors``."""
        return Path(self.output).with_suffix(".report.json")

    def write(self) -> None:
        """Write the report as JSON."""
        write_text(self.path, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def prepare(
    kind: str,
    raw: str | Path,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    steps: Iterable[str | Mapping[str, Any] | Step] = (),
    dtype: str = "float32",
    workers: int = 1,
    strict: bool = False,
    progress: bool = False,
) -> Report:
    """Convert the raw files of a data set to one packed file.

    Finished work lies in ``OUT.partial`` until the packed file is complete; after an interruption the same call
    continues. The memory that it takes does not depend on how many files there are. Kinds that are read in one go
    take the memory of their data. A report is written beside the output.

    Args:
        kind: one of :func:`~fastamr.data.readers.registry.kinds`.
        raw: a folder, a zip archive or a folder with zip archives; else what the reader of the kind takes.
        out: the packed file to write, by custom ``*.safetensors``; folders above it are made.
        options: of the reader, by name: see :class:`~fastamr.data.readers.raw_sets.ntu.NtuReader`,
            :class:`~fastamr.data.readers.raw_sets.pku.PkuReader` and :func:`~fastamr.data.load.read`.
        steps: pre-processing to apply, see :func:`~fastamr.data.preprocessing.apply.parse_steps`.
        dtype: ``"float32"``, or ``"float16"`` for centred data.
        workers: processes that read; with more than one the calling script needs the usual
            ``if __name__ == "__main__":``.
        strict: stop at the first damaged file, instead of leaving it out.
        progress: show a progress bar with files a second on standard error.

    Returns:
        The report. ``damaged`` is not empty where files were left out.

    Raises:
        FileNotFoundError: there is no such source.
        FileExistsError: ``out`` is the source, or holds something else than packed data.
        OSError: ``out`` cannot be written.
        ValueError: an unknown kind, option, step or dtype; a source without a file of the kind; no file gave a
            clip; a damaged file with ``strict``; unfinished work with other settings.
    """
    out, parsed, options = Path(out), parse_steps(steps), options or {}
    readers = of_kind(kind)
    check_name("dtype", dtype, _DTYPES)
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    check_packed_target(out, raw)
    known = {name for reader in readers for name in reader.options}
    if options and not known:
        raise ValueError(f"options {', '.join(options)} are given, but kind {kind!r} has none")
    for name in options:
        check_name(f"option of kind {kind!r}", name, sorted(known))
    report = Report(kind, str(raw), str(out))
    start = time.perf_counter()
    before = 0
    if isinstance(readers[0], RawSet):
        reader = readers[0].reader(readers[0].variant, **options)
        job = Job(reader, parsed, dtype, out.with_name(out.name + ".partial"))
        before = _Preparation(job, report, workers, strict, progress).run()
    else:
        _prepare_file(options, parsed, dtype, report, strict)
    report.seconds = round(time.perf_counter() - start, 3)
    report.files_per_second = round((report.files - before) / report.seconds, 1)
    report.write()
    return report


def _prepare_file(
    options: Mapping[str, Any], steps: tuple[Step, ...], dtype: str, report: Report, strict: bool
) -> None:
    """Read a data set in one go."""
    reading = read_source(report.source, kind=report.kind, **options)
    _stop_at(reading.damaged, strict)
    data = preprocess(reading.data, steps)
    data = data.half() if dtype == "float16" else data
    data.save(make_folder(report.output))
    report.files, report.damaged, report.notes = reading.files, reading.damaged, reading.notes
    files = {damage.file for damage in reading.damaged}
    report.dropped = {name: why for name, why in data.dropped.items() if name not in files}
    report.summary = data.summary()


def _stop_at(damaged: Sequence[Damage], strict: bool) -> None:
    if strict and damaged:
        raise ValueError(f"{damaged[0]}; repair the file, or leave out --strict to go on without it")


@dataclass
class _Preparation:
    """One run over the raw files."""

    job: Job
    report: Report
    workers: int
    strict: bool
    progress: bool

    def run(self) -> int:
        """Read what is missing, join it, and remove the work folder.

        Returns:
            How many files had been read before.

        Raises:
            KeyboardInterrupt: with a message that says how to continue.
        """
        try:
            return self._run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"what is finished lies in {self.job.folder}; the same command continues"
            ) from None

    def _run(self) -> int:
        listing = list_files(self.report.source, self.job.reader.suffixes)
        found = self.job.reader.find(listing)
        found.damaged += [Damage(file, reason) for file, reason in listing.refused.items()]
        _stop_at(found.damaged, self.strict)
        self._check_found(found, listing)
        blocks = make_blocks(found.tasks)
        results = open_folder(self.job, blocks)
        before = sum(result.files for result in results.values())
        for result in results.values():
            _stop_at(result.damaged, self.strict)
        with _bar(self.progress, len(found.tasks), before, self.report) as tell:
            for damage in found.damaged:
                tell(0, [damage])
            missing = [index for index in range(len(blocks)) if index not in results]
            for index, result in self._results(blocks, missing):
                results[index] = result
                tell(result.files, result.damaged)
                _stop_at(result.damaged, self.strict)
        self._finish(found, results)
        return before

    def _finish(self, found: Found, results: dict[int, BlockResult]) -> None:
        report = self.report
        try:
            data, total = join_blocks(self.job, results)
        except ValueError as error:
            raise ValueError(f"{report.source}: {error}") from None
        data = found.finish(dataclasses.replace(data, dropped=found.dropped | total.dropped))
        write_joined(data, Path(report.output), self.job, results)
        remove_folder(self.job.folder)
        report.files = total.files
        report.summary = PackedSkeletons.load(report.output).summary()
        report.damaged = found.damaged + total.damaged
        report.dropped, report.left_out = dict(data.dropped), found.left_out
        report.notes = found.notes + total.notes

    def _results(
        self, blocks: Sequence[Sequence[Task]], missing: Sequence[int]
    ) -> Iterator[tuple[int, BlockResult]]:
        """Yield the result of each missing block, as they are ready."""
        if min(self.workers, len(missing)) < 2:
            for index in missing:
                yield index, run_block(self.job, index, blocks[index])
            return
        # Processes are started afresh: a copy of this one would copy the locks of its threads.
        pool = ProcessPoolExecutor(
            min(self.workers, len(missing)), multiprocessing.get_context("spawn"), initializer=_start_worker
        )
        try:
            with _without_interrupts():
                futures: dict[Future[BlockResult], int] = {
                    pool.submit(run_block, self.job, index, blocks[index]): index for index in missing
                }
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process ended all at once (killed for want of memory?); the same command with "
                "--workers 1 continues"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)

    def _check_found(self, found: Found, listing: Listing) -> None:
        if found.tasks:
            return
        suffixes = " or ".join(self.job.reader.suffixes)
        packed = [name for name in listing.others if name.lower().endswith((".7z", ".rar", ".tar", ".gz"))]
        others = (found.left_out | found.dropped).items()
        reasons = [*map(str, found.damaged), *(f"{name}: {why}" for name, why in others)]
        hint = (
            f"; unpack {packed[0]} first"
            if packed
            else f"; the first of them: {reasons[0]}"
            if reasons
            else ""
        )
        raise ValueError(
            f"{self.report.source} has {len(listing.entries)} files that end in {suffixes}, none of which is one of "
            f"{self.report.kind}{hint}"
        )


def _start_worker() -> None:
    """Leave Ctrl-C to the main process, and the other cores to the other workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back; processes started meanwhile never get it, not even while they import."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _bar(
    progress: bool, total: int, before: int, report: Report
) -> Iterator[Callable[[int, Sequence[Damage]], None]]:
    """Give a function that counts files and names damaged ones; without ``progress`` it is silent."""
    if not progress:
        yield lambda files, damaged: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=before, unit="file", desc=report.kind, dynamic_ncols=True) as bar:

        def tell(files: int, damaged: Sequence[Damage]) -> None:
            for damage in damaged:
                bar.write(printable(f"left out: {damage}"), file=sys.stderr)
            bar.update(files)

        yield tell
