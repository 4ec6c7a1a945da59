"""Which runs experiments/any_skeleton.py makes, and which encoder each of them needs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastamr.errors import check_name
from fastamr.training.config import merge_settings

Plan = Mapping[str, Any]
LAYOUTS = ("own", "body", "indices")
SOURCES = ("alone", "mixture", "unseen", "heldout")
# Of a row or a change, and no settings of a pre-training.
_OWN = ("method", "source", "layout", "poolings", "cut", "minutes")
# Of a set, and nothing that a result depends on.
_SAID = ("test", "mixture", "to_reach")
COORDINATES = "coordinates"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Encoder:
    """One pre-training, or an encoder before it.

    Attributes:
        parts: the sets that it is trained on, each with the part of it and its whole entry of the plan; empty for none.
        layout: of :data:`LAYOUTS`.
        settings: fields of PretrainConfig.
        seed: of weights, order, crops and masks.
        minutes: how long it is trained, instead of the settings' updates; None for those.
        cut: seconds of the pieces that clips are cut into; None leaves them whole.
        mixture: temperature of the sampling from several sets.
    """

    parts: tuple[tuple[str, str, Plan], ...]
    layout: str
    settings: Plan
    seed: int
    minutes: float | None = None
    cut: float | None = None
    mixture: float | None = None

    @property
    def key(self) -> str:
        """A hash of all that the encoder depends on besides the code and the files."""
        return _hash(dataclasses.asdict(self))

    def described(self) -> dict[str, Any]:
        """Return all of it but the entries of the plan, for a line of the results."""
        return {**dataclasses.asdict(self), "parts": [list(part[:2]) for part in self.parts]}


@dataclass(frozen=True)
class Job:
    """One run: a line of the results.

    Attributes:
        table: ``main``, or a study of the plan.
        set: the tested set.
        row: a row of the plan, or the study's own.
        variant: the budget, or the change.
        seed: of everything random.
        encoders: the encoder of each tested split, by split; None for coordinates.
        coordinates: the row of coordinates, or "".
        poolings: of the features.
        plan: the set's entry.
    """

    table: str
    set: str
    row: str
    variant: str
    seed: int
    encoders: Mapping[str, Encoder | None]
    coordinates: str
    poolings: tuple[str, ...]
    plan: Plan

    @property
    def name(self) -> str:
        """What the run is called in lists."""
        return " ".join(filter(None, (self.table, self.set, self.row, self.variant, f"seed {self.seed}")))

    @property
    def key(self) -> str:
        """A hash of all that the result depends on besides the code and the files."""
        data = {name: value for name, value in self.plan.items() if name not in _SAID}
        return _hash(
            [self.table, self.set, self.row, self.variant, self.seed, self.keys, self.poolings, data]
        )

    @property
    def keys(self) -> dict[str, str]:
        """The key of each split's encoder; empty for coordinates."""
        return {split: one.key if one else "" for split, one in self.encoders.items()}

    @property
    def trained(self) -> list[Encoder]:
        """The pre-trainings that it needs."""
        found = {one.key: one for one in self.encoders.values() if one is not None and one.parts}
        return list(found.values())

    def command(self, data: str, out: str, work: str) -> str:
        """The command that makes this line."""
        words = ["python", "experiments/any_skeleton.py", "--data", data, "--out", out, "--work", work]
        words += ["--tables", self.table, "--sets", self.set, "--rows", self.row, "--variants", self.variant]
        return shlex.join([*words, "--seeds", str(self.seed)])


def jobs(plan: Plan, seeds: Sequence[int]) -> Iterator[Job]:
    """Every run of a plan: the rows of all sets for a seed before the next seed, then the studies.

    Args:
        plan: the content of any_skeleton.yaml.
        seeds: the seeds; coordinates have the first one only.

    Raises:
        ValueError: a row or a change names something that does not exist.
    """
    tested = [name for name, one in plan["sets"].items() if "test" in one]
    for seed in seeds:
        for row, given in plan["rows"].items():
            for variant in given.get("budgets", [""]):
                if (COORDINATES in given and seed != seeds[0]) or (
                    variant == "long" and seed not in plan["long_seeds"]
                ):
                    continue
                for chosen in tested:
                    yield _main(plan, chosen, row, given, variant, seed)
    for table, study in plan["studies"].items():
        for seed in study.get("seeds", seeds):
            if seed not in seeds:
                continue
            for variant, change in study["changes"].items():
                wanted = merge_settings(merge_settings(study["base"], study["budget"]), change)
                for chosen in study["sets"]:
                    yield _job(plan, table, chosen, table, wanted, variant, seed)


def _main(plan: Plan, chosen: str, row: str, given: Plan, variant: str, seed: int) -> Job:
    if COORDINATES in given or "random" in given:
        encoder = None
        if "random" in given:
            own = {"method": given["random"]}
            encoder = Encoder((), "own", _settings(plan, own, plan["sets"][chosen]), seed)
        encoders = dict.fromkeys(plan["sets"][chosen]["test"], encoder)
        poolings = tuple(plan["poolings"]) if encoder else ("",)
        kind = given.get(COORDINATES, "")
        return Job("main", chosen, row, "", seed, encoders, kind, poolings, plan["sets"][chosen])
    wanted = {key: value for key, value in given.items() if key != "budgets"}
    return _job(plan, "main", chosen, row, merge_settings(wanted, plan["budgets"][variant]), variant, seed)


def _job(plan: Plan, table: str, chosen: str, row: str, wanted: Plan, variant: str, seed: int) -> Job:
    """Return the run of one set by an encoder as wanted: method, source, layout, and settings."""
    check_name("source", wanted["source"], SOURCES)
    check_name("layout", wanted["layout"], LAYOUTS)
    of_set = plan["sets"][chosen]
    tested = {"heldout": "heldout"} if wanted["source"] == "heldout" else of_set["test"]
    encoders: dict[str, Encoder | None] = {}
    for split, alone in tested.items():
        parts = _parts(plan, chosen, wanted["source"], alone)
        encoders[split] = Encoder(
            parts,
            wanted["layout"],
            _settings(plan, wanted, of_set if len(parts) == 1 else {}),
            seed,
            wanted.get("minutes"),
            wanted.get("cut"),
            plan["mixture"] if len(parts) > 1 else None,
        )
    poolings = tuple(wanted.get("poolings", plan["poolings"]))
    return Job(table, chosen, row, variant, seed, encoders, "", poolings, of_set)


def _parts(plan: Plan, chosen: str, source: str, alone: str) -> tuple[tuple[str, str, Plan], ...]:
    """Return the sets and the parts of them that a run's encoder is trained on."""
    sets = plan["sets"]
    if source == "alone":
        return ((chosen, alone, _data_of(sets[chosen])),)
    names = [
        name for name, one in sets.items() if "mixture" in one and not (source == "unseen" and name == chosen)
    ]
    held = [name for name in names if source == "heldout" and "heldout" in sets[name]]
    return tuple(
        (name, "heldout" if name in held else sets[name]["mixture"], _data_of(sets[name])) for name in names
    )


def _data_of(of_set: Plan) -> dict[str, Any]:
    """Return what a set's clips depend on, without what is tested and said of it."""
    return {
        name: of_set[name]
        for name in ("file", "sbu_units", "keep", "steps", "half", "heldout")
        if name in of_set
    }


def _settings(plan: Plan, wanted: Plan, of_set: Plan) -> dict[str, Any]:
    method = wanted["method"]
    check_name("method", method, plan["methods"])
    settings: dict[str, Any] = {"model": method}
    change = {key: value for key, value in wanted.items() if key not in _OWN}
    for layer in (plan["common"], plan["methods"][method], of_set.get("settings", {}), change):
        settings = merge_settings(settings, layer)
    if "minutes" in wanted:
        settings.pop("updates", None)
    return settings
