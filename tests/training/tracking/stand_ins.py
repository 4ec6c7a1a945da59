"""Stand-ins for MLflow and Weights & Biases that keep what they are told, as the packages' own calls are."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class MlflowStore:
    """The runs of one store; ``modules()`` are what ``import mlflow`` finds."""

    def __init__(self, uri: str = "file:///somewhere") -> None:
        self.uri = uri
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    def modules(self) -> dict[str, ModuleType]:
        store = self

        class MlflowClient:
            tracking_uri = store.uri

            def get_experiment_by_name(self, name: str) -> Any:
                known = store.experiments.get(name)
                return None if known is None else SimpleNamespace(experiment_id=known)

            def create_experiment(self, name: str) -> str:
                assert name not in store.experiments
                store.experiments[name] = str(len(store.experiments))
                return store.experiments[name]

            def create_run(self, experiment_id: str, *, run_name: str) -> Any:
                name = f"id{len(store.runs)}"
                store.runs[name] = {
                    "experiment": experiment_id, "name": run_name, "status": ["RUNNING"], "metrics": [], "params": {},
                }  # fmt: skip
                return SimpleNamespace(info=SimpleNamespace(run_id=name))

            def update_run(self, run_id: str, *, status: str) -> None:
                store.runs[run_id]["status"].append(status)

            def log_batch(self, run_id: str, *, metrics: Any = (), params: Any = ()) -> None:
                assert len(metrics) <= 1000
                assert len(params) <= 100
                run = store.runs[run_id]
                run["metrics"] += metrics
                names = {one.key for one in run["metrics"]}
                assert not any(one.startswith(f"{other}/") for one in names for other in names), (
                    "file and folder"
                )
                for key, value in params:
                    assert run["params"].setdefault(key, value) == value, "MLflow's parameters never change"

            def set_terminated(self, run_id: str, status: str) -> None:
                store.runs[run_id]["status"].append(status)

        names = ("mlflow", "mlflow.entities", "mlflow.tracking")
        modules = {name: ModuleType(name) for name in names}
        modules["mlflow.entities"].__dict__.update(Metric=Metric, Param=Param)
        modules["mlflow.tracking"].__dict__.update(MlflowClient=MlflowClient)
        return modules


class Wandb:
    """What ``import wandb`` finds: each run by its identity, each of its rows as it was logged."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}

    def modules(self) -> dict[str, ModuleType]:
        module = ModuleType("wandb")
        module.__dict__["init"] = self._init
        return {"wandb": module}

    def _init(self, **given: Any) -> Any:
        run = self.runs.setdefault(given["id"], {"rows": [], "inits": [], "axes": {}, "finished": 0})
        assert (given["resume"] is None) == (not run["inits"]), "a run is new or continued"
        run["inits"].append(given)

        def finish() -> None:
            run["finished"] += 1

        return SimpleNamespace(
            define_metric=lambda name, step_metric=None: run["axes"].update({name: step_metric}),
            log=run["rows"].append,
            finish=finish,
        )
