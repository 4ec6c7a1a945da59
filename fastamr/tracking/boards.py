"""The trackers that there are: TensorBoard, MLflow, Weights & Biases; each imports its package when it is made."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from ..folders import note_written
from .tracker import TrackedRun, numbers

_PROJECT = "fastamr"
# What MLflow takes at a time, and the longest value of a parameter.
_MOST_PARAMS, _LONGEST_PARAM = 100, 500


class TensorBoard:
    """Writes event files into the folder ``tensorboard`` of the run, and notes them in its manifest.

    Args:
        run: the run; events of updates that its checkpoint does not hold are no longer shown.

    Raises:
        ImportError: TensorBoard is not installed.
        RuntimeError: the locale's encoding lacks the folder's name.
    """

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        before = set(folder.glob("*"))
        try:
            self._writer = SummaryWriter(str(folder), purge_step=run.update + 1)
        except UnicodeEncodeError:
            raise RuntimeError(
                "TensorBoard cannot write into a folder of this name, so no event files are written"
            ) from None
        note_written(run.folder, *sorted(set(folder.glob("*")) - before))

    def log(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record as ``kind/name`` at its update."""
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, record["update"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow:
    """Logs to the store that MLflow is set to (``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``).

    The configuration becomes the run's parameters. A resumed run is continued where it is in the same store.

    Args:
        run: the run.

    Raises:
        ImportError: MLflow is not installed.
        Exception: MLflow's own, where the store cannot be reached.
    """

    def __init__(self, run: TrackedRun) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient()
        self._last, self._updates = run.update, run.updates
        store = self._client.tracking_uri
        known = (run.recall("mlflow") or "").split(" ", 1)
        if known[1:] == [store]:
            self._id = known[0]
            self._client.update_run(self._id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._id = self._client.create_run(place, run_name=run.name).info.run_id
        run.remember("mlflow", f"{self._id} {store}")
        params = [
            Param(_mlflow_name(key), _cut(str(value)))
            for key, value in flat({"command": run.command, **run.config})
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + _MOST_PARAMS])

    def log(self, record: Mapping[str, Any]) -> None:
        """Log the numbers of a record as ``kind/name``, its update as the step."""
        now, update = int(1000 * time.time()), record.get("update", 0)
        self._last = max(self._last, update)
        metrics = [
            self._metric(_mlflow_name(name), value, now, update) for name, value in numbers(record).items()
        ]
        if metrics:
            self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        """Say whether the run came to its end."""
        self._client.set_terminated(self._id, "FINISHED" if self._last >= self._updates else "KILLED")


class WandB:
    """Logs to Weights & Biases as it is set up (``WANDB_PROJECT``, ``WANDB_MODE=offline``, ...).

    Its files lie in the folder ``wandb`` of the run. The axis of all curves is ``update``.

    Args:
        run: the run; a resumed one is continued.

    Raises:
        ImportError: the package is not installed.
        Exception: its own, where there is no account or no connection.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        known = run.recall("wandb")
        name = known or uuid.uuid4().hex
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run.name,
            job_type=run.command,
            dir=str(run.folder),
            id=name,
            resume="allow" if known else None,
            config=dict(run.config),
        )
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")
        if known is None:
            run.remember("wandb", name)

    def log(self, record: Mapping[str, Any]) -> None:
        """Log the numbers of a record as ``kind/name``."""
        found = numbers(record)
        if found:
            self._run.log({"update": record["update"], **found})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def flat(values: Mapping[str, Any], part: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings as ``part.name`` and value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{part}{name}.")
        else:
            yield f"{part}{name}", value


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_PARAM else f"{text[: _LONGEST_PARAM - 3]}..."


def _mlflow_name(name: str) -> str:
    """Return a name that MLflow takes; other characters become their code, so that no two names become one.

    Its store in files has a folder for what stands before a slash, so ``train/loss`` and ``train/loss/a`` cannot both
    be; the second one is ``train/loss.a``.
    """
    kind, slash, rest = name.partition("/")
    name = f"{kind}{slash}{rest.replace('/', '.')}"
    return re.sub(r"[^\w\-. :/]", lambda found: f"_x{ord(found[0]):x}_", name)
