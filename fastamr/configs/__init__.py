"""The configurations that come with the package, ``PRESET/MODEL.yaml``, as ``fastamr pretrain --preset`` takes them.

``paper`` is the published size and recipe, ``small`` suits small data of short clips, ``compact`` a laptop. Those of
:data:`BODY_PRESETS` are of AMR for every skeleton: ``body-small``, ``body-paper``, and ``body-flat`` for motion in
space and in pictures. A file more is a preset more; nothing else lists them.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import check_name

BODY_PRESETS = ("body-small", "body-paper", "body-flat")
PRESETS = ("paper", "small", "compact", *BODY_PRESETS)


def preset_file(preset: str, model: str) -> Path:
    """Return the YAML file of a model's preset, for :meth:`fastamr.training.PretrainConfig.load`.

    Raises:
        ValueError: an unknown preset, or a model that has none of this name.
    """
    check_name("preset", preset, PRESETS)
    folder = Path(__file__).parent
    found = [name for name in PRESETS if (folder / name / f"{model}.yaml").is_file()]
    if preset not in found:
        has = f"has {', '.join(found)}" if found else "has none: name a YAML file with --config"
        raise ValueError(f"preset {preset!r} does not exist for model {model!r}, which {has}")
    return folder / preset / f"{model}.yaml"
