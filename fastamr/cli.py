"""The command line: ``fastamr COMMAND ...``; ``fastamr --help`` lists the commands.

Exit codes: 0 done, 1 an error, printed in one line (``FASTAMR_DEBUG=1`` shows the traceback), 2 a wrong
command or option, 3 done with findings (``prepare``: damaged files were left out; ``check --fail-on``), 130
interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import select
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from typing import TextIO

from .documents import printable, printable_lines
from .errors import STRAY, UsageError, unknown_name
from .host import share_cpus
from .memory import OutOfMemory, is_exhausted, keep_freed_memory, what_failed

_KNOWN_ERRORS = (ValueError, TypeError, OSError, ImportError, RuntimeError, FloatingPointError)

# The commands that several processes carry out together, or that may well run in each.
_SHARED = ("pretrain", "finetune", "distill", "evaluate", "info")

# The option by which a command needs less memory.
_SMALLER = {
    "finetune": "--recipe.batch-size or --batch-size",
    "distill": "--recipe.batch-size or --batch-size",
    "evaluate": "--batch-size or --finetune.batch-size",
    "predict": "--batch-size",
    "prepare": "--workers",
}

# The commands under their headings: the file in fastamr/commands that has ``run(words)``, and what it does.
_COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "data": {
        "prepare": ("data.prepare", "convert a data set's raw files to one packed file"),
        "import": ("data.import_file", "convert motion files to the packed format"),
        "convert": ("data.convert", "map packed data to another joint layout, or apply pre-processing"),
        "split": ("data.split", "part packed data into training and test clips"),
        "check": ("data.check", "what is in a packed file, what is wrong with it, does it leak"),
        "show": ("data.show", "draw a clip: animation or strip of frames"),
        "layouts": ("data.layouts", "the built-in skeletons, their joints and a drawing of each"),
    },
    "models and results": {
        "pretrain": ("models.pretrain", "pre-train a model on motion"),
        "sweep": ("models.sweep", "pre-train with several seeds and settings, one after the other"),
        "evaluate": ("models.evaluate", "probe or fine-tune a pre-trained encoder"),
        "finetune": ("models.finetune", "train a classifier on a pre-trained encoder and save it"),
        "distill": ("models.distill", "train a small classifier that learns from a large one"),
        "export": ("models.export", "write a classifier or an encoder as ONNX or torch.export"),
        "predict": ("models.predict", "name the actions in a skeleton file or a stream"),
        "models": ("models.weights", "the pre-trained weights that come with the package"),
        "table": ("table", "evaluations side by side, beside published results"),
        "plot": ("plot", "curves of a run, embeddings, attention maps, confusion matrix"),
        "report": ("report", "runs and benchmarks on one page of HTML; two results compared"),
    },
    "this machine": {
        "info": ("info", "versions, devices, and which back end each op would use"),
        "tune": ("tune", "check and time each op's back ends here, for auto to choose by"),
        "cache": ("cache", "where the compiled extension is kept; --clear empties it"),
        "quickstart": ("quickstart", "from a folder of one's own clips to a classifier, in minutes"),
        "demo": ("demo", "pre-train, probe and compare on generated motion, in minutes"),
        "bench quick": (
            "bench.quick",
            "AMR against SkeletonMAE and plain AMR on this machine, in less than two minutes",
        ),
        "bench ladder": (
            "bench.ladder",
            "every form of the training step, from the public code on, side by side",
        ),
        "bench recipe": ("bench.recipe", "the full pipeline on data of NTU RGB+D 60's size, projected"),
        "bench profile": ("bench.profile", "kernels, launches and gaps of a step; a Chrome trace"),
        "bench scaling": ("bench.scaling", "step time against S, T, V, K, depth and width"),
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments without the program's name; by default the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    share_cpus()
    keep_freed_memory()
    _open_closed_streams()
    _show_every_text()
    try:
        code = _run(words)
    except BrokenPipeError as error:
        if _broken_output():
            return 0
        _complain(f"error: {_one_line(error)}")
        return 1
    try:
        _broken_output()
    except OSError as error:  # standard output is a file on a full disk
        _drop(sys.stdout)
        _complain(f"error: cannot write to standard output: {error.strerror}")
        return code or 1
    return code


def _open_closed_streams() -> None:
    """Open what the caller closed (``>&-``) on nothing: a file of ours would get its number, and stray words."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _run(words: list[str]) -> int:
    """Carry out a command and return its exit code; errors are printed."""
    try:
        with _prompt_interrupts():
            return _dispatch(words)
    except SystemExit as stop:  # after --help, or with the status of a command
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as stop:
        if not _process():  # of several the first one tells
            _complain(f"interrupted: {stop}" if str(stop) else "interrupted")
        return 130
    except UsageError as error:
        if not _process():  # all were given the same words
            _complain(f"error: {error}")
        return 2
    except (*_KNOWN_ERRORS, *STRAY) as error:
        if os.environ.get("FASTAMR_DEBUG", "0") not in ("", "0"):
            raise
        _complain(f"{_process()}error: {_told(error, words[:1])}")
        return 1


def _process() -> str:
    """Return which of several processes this is, as torchrun numbers them, to begin a line with; "" for the first."""
    rank = os.environ.get("RANK", "0")
    return f"process {rank}: " if rank.isdecimal() and int(rank) and "WORLD_SIZE" in os.environ else ""


def _broken_output() -> bool:
    """Tell whether the reader of the output has seen enough (``| head``), and let what is left go nowhere.

    Python would else complain when it flushes at the end.
    """
    is_broken = False
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            found = _has_no_reader(stream)
        except BrokenPipeError:
            found = True
        if found:
            is_broken = True
            _drop(stream)
    return is_broken


def _drop(stream: TextIO) -> None:
    """Let what a stream has not written yet, and all that follows, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _has_no_reader(stream: TextIO) -> bool:
    """Tell whether a stream is a pipe whose other end is closed; without a buffer a flush does not tell."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):  # a stream in memory
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextlib.contextmanager
def _prompt_interrupts() -> Iterator[None]:
    """Let Ctrl-C inside an import end the process at once, with the message printed elsewhere.

    Raised there, it may be swallowed, end in C++, or leave half-made modules whose errors are told instead.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                os.write(2, b"interrupted\n")
                os._exit(130)
            frame = frame.f_back
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _dispatch(words: list[str]) -> int:
    files = {name: file for group in _COMMANDS.values() for name, (file, _) in group.items()}
    count = 2 if words[:1] == ["bench"] else 1
    name, rest = " ".join(words[:count]), words[count:]
    if len(words) < count or words[count - 1] in ("-h", "--help", "--help-all"):
        print(_overview("bench" if count == 2 else ""))
        return 0 if len(words) >= count else 2
    if name == "--version":
        from .version import __version__

        print(f"fastamr {__version__}")
        return 0
    if name not in files:
        raise UsageError(str(unknown_name("command", name, files)))
    _check_processes(name)
    _check_folder()
    importlib.import_module(f".commands.{files[name]}", __package__).run(rest)
    return 0


def _check_folder() -> None:
    """Refuse to start in a folder that was removed: relative names mean nothing, and MKL ends a process there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError(
            "the current folder was removed: change into one that exists (cd DIR) and start again"
        ) from None


def _check_processes(name: str) -> None:
    """Refuse several processes for a command that each of them would carry out as a whole."""
    size = os.environ.get("WORLD_SIZE", "1")
    if name not in _SHARED and size != "1" and os.environ.get("MASTER_ADDR"):
        raise UsageError(
            f"{name} runs in one process, and torchrun started {size}, each of which would do all of it: start it "
            "without torchrun (pretrain, finetune and distill share their batches, evaluate its extraction of features)"
        )


def _overview(family: str) -> str:
    """Return the commands that begin with a word, under their headings."""
    lines = [f"usage: fastamr {family or '[-h] [--version] COMMAND'} ...", ""]
    lines += ["Fast self-supervised pre-training of skeleton-action encoders."]
    for title, group in _COMMANDS.items():
        found = [f"  {name:<14} {text}" for name, (_, text) in group.items() if name.startswith(family)]
        lines += ["", f"{title}:", *found] if found else []
    return "\n".join(
        [*lines, "", "fastamr COMMAND --help shows a command's first options, --help-all every option."]
    )


def _show_every_text() -> None:
    """Let text that the terminal's encoding lacks come as escapes, not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complain(text: str) -> None:
    print(printable_lines(text), file=sys.stderr)


def _told(error: BaseException, command: Sequence[str]) -> str:
    """Return what to say of an error; readers name the file where it happens."""
    kind, reason = type(error).__name__, _one_line(error)
    if is_exhausted(error) and not isinstance(error, OutOfMemory):
        option = _SMALLER.get(next(iter(command), ""))
        less = f"pass a smaller {option}, less data" if option else "give it less data"
        return f"not enough memory ({printable(what_failed(error))}): {less}, or a machine with more"
    if isinstance(error, (*_KNOWN_ERRORS, OutOfMemory)):
        return reason
    return (
        f"{kind}: {reason}; a file that was given is damaged, or this is a fault: FASTAMR_DEBUG=1 shows where"
    )


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__
