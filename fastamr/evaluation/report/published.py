"""Accuracies as papers report them: nothing here was measured with this library."""

from __future__ import annotations

import re
from typing import NamedTuple


class Published(NamedTuple):
    """A published result.

    Attributes:
        method: what the paper calls it.
        data: name of the data set, one of :data:`DATA_SETS`.
        split: name of the split.
        protocol: as in :func:`fastamr.evaluation.compare_runs`.
        column: the probe.
        value: percent.
        source: where it stands.
    """

    method: str
    data: str
    split: str
    protocol: str
    column: str
    value: float
    source: str


DATA_SETS: dict[str, str] = {
    "ntu60": r"ntu-?(rgb-?d-?)?60",
    "ntu120": r"ntu-?(rgb-?d-?)?120",
    "pku1": r"pku-?(mmd-?)?v?(1|i)",
    "pku2": r"pku-?(mmd-?)?v?(2|ii)",
}
"""Data sets with published results, and how the name of a file begins that holds one (dashes for other signs)."""

_AMR = "Sun et al., AMR, CVPR 2026, arXiv 2606.11450"
_GFP = "Sun et al., GFP, ICCV 2025, arXiv 2509.03609"
_MAMP = "Mao et al., MAMP, ICCV 2023"
# SkeletonMAE (Wu et al. 2022, arXiv 2209.02399) and S-JEPA as the comparison in AMR lists them.
_BY_AMR = f"as listed in {_AMR}"

_FROZEN, _SEMI = "frozen encoder", "semi"


def _linear(method: str, source: str, **values: float) -> tuple[Published, ...]:
    """Return linear probes; the names are ``data_split``."""
    pairs = [(name.rsplit("_", 1), value) for name, value in values.items()]
    return tuple(
        Published(method, data, split, _FROZEN, "linear", value, source) for (data, split), value in pairs
    )


def _tuned(method: str, source: str, **values: float) -> tuple[Published, ...]:
    pairs = [(name.rsplit("_", 1), value) for name, value in values.items()]
    return tuple(
        Published(method, data, split, "finetune", "finetune", value, source)
        for (data, split), value in pairs
    )


PUBLISHED: tuple[Published, ...] = (
    *_linear("SkeletonMAE", _BY_AMR, ntu60_xsub=74.8, ntu60_xview=77.7, pku2_xsub=36.1),
    *_linear("MAMP", _MAMP, ntu60_xsub=84.9, ntu60_xview=89.1, ntu120_xsub=78.6, ntu120_xset=79.1),
    *_linear("MAMP", _MAMP, pku1_xsub=92.2, pku2_xsub=53.8),
    *_linear("S-JEPA", _BY_AMR, ntu60_xsub=85.3, ntu60_xview=89.8, pku2_xsub=53.5),
    *_linear("GFP", _GFP, ntu60_xsub=85.9, ntu60_xview=92.0, ntu120_xsub=79.1, ntu120_xset=80.3),
    *_linear("GFP", _GFP, pku2_xsub=56.2),
    *_linear("AMR", _AMR, ntu60_xsub=87.4, ntu60_xview=92.3, ntu120_xsub=81.1, ntu120_xset=81.9),
    *_linear("AMR", _AMR, pku2_xsub=60.3),
    *_tuned("MAMP", _MAMP, ntu60_xsub=93.1, ntu60_xview=97.5, ntu120_xsub=90.0, ntu120_xset=91.3),
    Published("AMR", "ntu60", "xsub", _SEMI, "semi_1", 72.2, _AMR),
    Published("AMR", "ntu60", "xview", _SEMI, "semi_1", 74.4, _AMR),
    Published("AMR", "ntu60", "xsub", _SEMI, "semi_10", 89.0, _AMR),
    Published("AMR", "ntu60", "xview", _SEMI, "semi_10", 92.7, _AMR),
    Published("AMR, pre-trained on NTU-60", "pku2", "xsub", "transfer", "finetune", 70.9, _AMR),
    Published("AMR, pre-trained on NTU-120", "pku2", "xsub", "transfer", "finetune", 73.0, _AMR),
)
"""All published results that the tables show."""


def data_set_of(name: str) -> str | None:
    """Return which data set with published results a file is called after, or None.

    Args:
        name: of a packed file, without its ending.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return next(
        (data for data, begin in DATA_SETS.items() if re.match(rf"(?:{begin})(?![a-z0-9])", plain)), None
    )
