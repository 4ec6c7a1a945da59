"""Which trackers are asked for: names that are known, or a class of one's own as ``module:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence

from ..errors import shortened, told, unknown_name
from .boards import MLflow, TensorBoard, WandB
from .tracker import TrackedRun, Tracker

_KNOWN: dict[str, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
NAMES = tuple(_KNOWN)


def check_names(names: Sequence[str]) -> None:
    """Raise ``ValueError`` for a tracker that is neither known nor of the form ``module:Class``."""
    for name in names:
        module, colon, attribute = name.partition(":")
        if colon and not (module and attribute):
            raise ValueError(f"track {shortened(name)}: expected MODULE:CLASS, as my_tracker:MyTracker")
        if not colon and name not in _KNOWN:
            raise unknown_name("track", name, (*NAMES, "MODULE:CLASS"))


def check_trackers(names: Sequence[str]) -> None:
    """Raise for a tracker that there is not, before anything is computed.

    Raises:
        ValueError: a name of another form, or no such class.
        ImportError: its package is not installed.
    """
    check_names(names)
    for name in names:
        find(name)
        if name in _KNOWN and not _is_installed(name):
            raise ImportError(f"track {name} needs its package: pip install 'fastamr[{name}]'")


def wanted(track: Sequence[str], tensorboard: bool) -> list[str]:
    """Return the trackers of a run; TensorBoard, where only the option of its own asks for it, may be missing.

    Args:
        track: names.
        tensorboard: write event files too, where that is possible.
    """
    if tensorboard and not _is_installed("tensorboard"):
        print(
            "tensorboard is not installed, so no event files are written: pip install 'fastamr[tensorboard]'",
            file=sys.stderr,
        )
        tensorboard = False
    return list(dict.fromkeys([*["tensorboard"] * tensorboard, *track]))


def find(name: str) -> Callable[[TrackedRun], Tracker]:
    """Return what makes a tracker.

    Raises:
        ValueError: there is no such module or class; its module is looked for as every import is.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module does when it is imported
        raise ValueError(
            f"track {shortened(name)} cannot be imported ({type(error).__name__}: {told(error)}): expected "
            "MODULE:CLASS of a module on Python's path (PYTHONPATH=. for one in this folder)"
        ) from error
    if not callable(found):
        raise ValueError(
            f"track {shortened(name)} is no class: expected one with log(record) and close(), called with the run"
        )
    return found


def _is_installed(name: str) -> bool:
    """Whether the package of a tracker is there; one that is broken is told when it is made."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a module without a spec, as a stand-in is, is there
        return sys.modules.get(name) is not None
