"""The encoders of experiments/any_skeleton.py: each is trained once, kept by its key, and serves every set's probes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from results_shared import machine, train_encoder

from fastamr.data import PackedSkeletons
from fastamr.evaluation import extract_features
from fastamr.features.cache import read_features, write_features
from fastamr.files import write_text
from fastamr.models import SkeletonModel, build_model, load_pretrained
from fastamr.training import PretrainConfig
from fastamr.visualization.curves import read_metrics

from .plan import Encoder
from .sets import by_index, cut, training_part

# Updates that are made to measure how many fit into a time; the estimate stands after ten.
MEASURED_UPDATES = 12
# Frames per second of clips that do not tell (NW-UCLA, by its joints' steps).
UNKNOWN_RATE = 10.0


def trained(encoder: Encoder, folder: str, work: Path) -> dict[str, Any]:
    """Return the record of a pre-training, which is made where WORK does not hold it; an interrupted one goes on.

    Args:
        encoder: what is trained.
        folder: of the data sets' folders.
        work: WORK, where encoders and files are kept.
    """
    path = work / "encoders" / f"{encoder.key}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    files, sets = _files(encoder, folder, work)
    settings = {**encoder.settings, "seed": encoder.seed, "train_on": "all", "preprocess": [], "data": files}
    if encoder.layout != "own":
        settings["architecture"] = {**settings["architecture"], "layout": "body"}
    if encoder.mixture is not None:
        settings["mixture"] = encoder.mixture
    if encoder.minutes is not None:
        settings["updates"] = _updates_in(encoder, settings, work)
    config = PretrainConfig.from_dict({**settings, "out": str(_run(encoder, work)), "resume": "auto"})
    record = train_encoder(config)
    for name in ("data", "out", "resume"):  # paths of this machine
        record["config"].pop(name)
    record = {"key": encoder.key, "sets": sets, **record, "machine": machine()}
    write_text(path, json.dumps(record))
    return record


def _run(encoder: Encoder, work: Path) -> Path:
    return work / "encoders" / encoder.key


def _files(encoder: Encoder, folder: str, work: Path) -> tuple[list[str], dict[str, Any]]:
    """Write the training clips of each set, once, and return the files and what they hold."""
    files, sets = [], {}
    for name, part, plan in encoder.parts:
        how = json.dumps([name, part, plan, encoder.cut, encoder.layout == "indices"], sort_keys=True)
        path = work / "sets" / hashlib.sha256(how.encode()).hexdigest()[:16] / f"{name}.safetensors"
        if not path.is_file():
            data = training_part(plan, folder, part)
            if encoder.cut is not None:
                data = cut(data, encoder.cut, UNKNOWN_RATE)
            if encoder.layout == "indices":
                data = by_index(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            data.save(path)
        kept = PackedSkeletons.load(path)
        sets[name] = {"part": part, **kept.describe()}
        files.append(str(path))
    return files, sets


def _updates_in(encoder: Encoder, settings: dict[str, Any], work: Path) -> int:
    """Return how many updates take the encoder's minutes; measured once, so that an interrupted run stays the same."""
    path = work / "encoders" / f"{encoder.key}.updates"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="any-skeleton-") as scratch:
            train_encoder(PretrainConfig.from_dict({**settings, "updates": MEASURED_UPDATES, "out": scratch}))
            each = read_metrics(Path(scratch))["estimate"][-1]["each"]
        assert encoder.minutes is not None
        write_text(path, str(max(int(encoder.minutes * 60 / each), 1)))
    return int(path.read_text(encoding="utf-8"))


def features_of(
    encoder: Encoder, name: str, data: PackedSkeletons, pooling: str, bodies: str, work: Path
) -> torch.Tensor:
    """Return the features of all clips of a set, extracted once for each pooling and kept in WORK.

    Args:
        encoder: one that WORK holds, or one before training.
        name: of the set.
        data: the set, see :func:`.sets.prepared`.
        pooling: of the tokens.
        bodies: ``existing`` or ``ordered``.
        work: WORK.

    Returns:
        ``(N, D)`` float32.
    """
    how = hashlib.sha256(json.dumps([name, data.fingerprint(), pooling, bodies]).encode()).hexdigest()[:16]
    path = work / "features" / f"{encoder.key}-{name}-{how}.safetensors"
    kept = read_features(path, data.num_clips)
    if kept is None:
        shown = by_index(data) if encoder.layout == "indices" else data
        kept = extract_features(_model(encoder, data, work), shown, pooling=pooling, bodies=bodies)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_features(path, kept)
    return kept


def _model(encoder: Encoder, data: PackedSkeletons, work: Path) -> SkeletonModel:
    if encoder.parts:
        return load_pretrained(_run(encoder, work))
    torch.manual_seed(encoder.seed)
    return build_model(encoder.settings["model"], {"layout": data.layout, **encoder.settings["architecture"]})
