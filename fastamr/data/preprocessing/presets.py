"""The field's recipes of pre-processing by name."""

from __future__ import annotations

from typing import Any

from ...errors import check_name

# SGN's preparation of NTU RGB+D 60 and 120, which CTR-GCN took over (data/ntu/get_raw_skes_data.py,
# get_raw_denoised_data.py, seq_transformation.py): frames without any body go, and the middle of the first body's
# spine in its first frame becomes the origin of the whole clip. Which bodies are kept is the reader's choice.
_NTU: tuple[str | dict[str, Any], ...] = (
    "close_gaps",
    {"name": "center", "joint": "middle_of_spine", "frame": "first", "per": "clip"},
)

PRESETS: dict[str, tuple[str | dict[str, Any], ...]] = {
    # Nothing: coordinates as the files have them. MAMP's own preparation of PKU-MMD (data/pku_v1/pku_gendata.py).
    "raw": (),
    "ctr-gcn": _NTU,
    # MAMP (README, "Data Processing") runs the same three scripts for NTU RGB+D.
    "mamp": _NTU,
    # CTR-GCN's loader of NW-UCLA (feeders/feeder_ucla.py), without its random turns: the spine of the first frame to
    # the origin, then each axis to the range from -1 to 1.
    "ctr-gcn-ucla": (
        {"name": "center", "joint": "spine", "frame": "first", "per": "clip"},
        {"name": "fit_box", "per": "clip"},
    ),
}
"""Steps for :func:`~fastamr.data.preprocessing.apply.parse_steps`, by name.

Cropping and resizing in time (``valid_crop_resize`` in CTR-GCN and MAMP) belong to training, see ``--crop`` and
``--model.frames`` of ``fastamr pretrain``. The recipes name joints of ntu25 or kinect20, so they refuse other
layouts instead of doing something else there.
"""


def preset_steps(name: str | None) -> tuple[str | dict[str, Any], ...]:
    """Return the steps of a preset; None has none.

    Raises:
        ValueError: an unknown name (with the nearest one).
    """
    if name is None:
        return ()
    check_name("preset", name, PRESETS)
    return PRESETS[name]
