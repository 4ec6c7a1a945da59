"""What experiments/results.py and experiments/any_skeleton.py share: data, training and machine."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from fastamr.data import PackedSkeletons
from fastamr.data.load import read
from fastamr.devices import processor, versions
from fastamr.host import allowed_cpus
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.config import read_yaml
from fastamr.visualization.curves import read_metrics


def read_set(folder: str, name: str) -> PackedSkeletons:
    """Read ``FOLDER/NAME/NAME.npz``.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(folder, name, f"{name}.npz")
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: --data names the folder that holds the data sets' folders")
    return read(path)


def in_metres(data: PackedSkeletons) -> PackedSkeletons:
    """SBU's normalised coordinates by its authors' formula (x 1280-2560x, y 960-1920y, z 10000z/7.8125 mm), y up."""
    unit = torch.tensor([-2.56, -1.92, 1.28])
    note = {
        "name": "note",
        "about": "units",
        "text": "normalised image coordinates and depth turned into metres, y up",
    }
    return dataclasses.replace(data, coords=data.coords.float() * unit, steps=(*data.steps, note))


def train_encoder(config: PretrainConfig, data: PackedSkeletons | None = None) -> dict[str, Any]:
    """Pre-train into ``config.out`` and return what a line tells of it.

    Args:
        config: of the run.
        data: packed data in memory, instead of ``config.data``.

    Returns:
        ``updates``, ``epochs``, ``seconds``, the last ``loss`` and ``terms``, ``warnings``, and the whole ``config``.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        pretrain(config, data=data, quiet=not config.progress)
    records = read_metrics(Path(config.out))
    summary, last = records["summary"][0], records["train"][-1]
    return {
        "updates": summary["updates"],
        "epochs": round(summary["epochs"], 1),
        "seconds": round(summary["seconds"], 1),
        "loss": last["loss"],
        "terms": {name: value for name, value in last.items() if name.startswith(("std/", "rank/"))},
        "warnings": sorted({str(one.message).split(": ", 1)[-1] for one in caught}),
        "config": read_yaml(Path(config.out, "config.yaml")),
    }


def machine() -> dict[str, Any]:
    """What the times of a result hold for."""
    return {
        **versions(),
        "processor": processor(),
        "cores": allowed_cpus(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
