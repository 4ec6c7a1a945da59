"""C3D: the labelled markers of optical motion capture, and the file that says which joints they make up.

Markers lie on the skin, so each laboratory's set needs a mapping, a YAML file::

    layout: kinect20            # or a layout file
    joints:
      hip_center: [LASI, RASI, LPSI, RPSI]     # the mean of these markers
      knee_left: LKNE

A joint without an entry is not seen, nor one that lacks one of its markers: the mean of the others is another point.
The package ``c3d`` reads the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ....documents import load_yaml
from ....skeleton import SkeletonLayout, get_layout
from ...packed.dataset import PackedSkeletons
from ..common.reader import Reader, Reading, Source

_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048}
_EXAMPLE = "layout: kinect20, joints: {hip_center: [LASI, RASI], knee_left: LKNE}"


class Markers(NamedTuple):
    """What a file holds.

    Attributes:
        labels: ``P`` names of markers.
        coords: ``(T, P, 3)`` float32, metres, or the file's unit where it is not known.
        seen: ``(T, P)`` bool.
        rate: frames a second.
        notes: what a person should know.
    """

    labels: list[str]
    coords: np.ndarray
    seen: np.ndarray
    rate: float
    notes: list[str]


def read(source: Source, *, markers: str | Path | None = None) -> Reading:
    """Read a file as one clip; subjects (``NAME:LABEL``) are its bodies.

    Args:
        source: the file.
        markers: the mapping file, see above.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the package ``c3d`` is missing.
        ValueError: the file is damaged, or the mapping is missing (with the labels that it may use) or does not fit.
    """
    source.check()
    found = read_markers(source.path)
    if markers is None:
        raise ValueError(
            f"{source.path} holds markers ({_shown(found.labels)}), no joints; say which joints they make up with "
            f"--markers FILE.yaml ({_EXAMPLE})"
        )
    layout, joints = load_mapping(markers)
    subjects = sorted({_subject(label) for label in found.labels})
    used: set[str] = set()
    clips, valid, names = [], [], []
    for subject in subjects:
        places = {
            label.rpartition(":")[2]: at
            for at, label in enumerate(found.labels)
            if _subject(label) == subject
        }
        if not any(marker in places for group in joints.values() for marker in group):
            continue
        coords, seen = _joints(found, layout, joints, places)
        used |= {found.labels[places[name]] for group in joints.values() for name in group if name in places}
        clips.append(coords)
        valid.append(seen)
        names.append(subject)
    wanted = {marker for group in joints.values() for marker in group}
    lacking = sorted(wanted - {label.rpartition(":")[2] for label in found.labels})
    if not clips:
        raise ValueError(
            f"{source.path}: none of the markers {_shown(lacking)} of {markers} is among {_shown(found.labels)}"
        )
    notes = [*found.notes]
    notes += [f"markers of {markers} that the file lacks: {_shown(lacking)}"] * bool(lacking)
    unused = [label for label in found.labels if label not in used]
    notes += [f"markers that {markers} does not use: {_shown(unused)}"] * bool(unused)
    data = PackedSkeletons.from_clips(
        [np.stack(clips, axis=1)],
        layout=layout,
        fps=found.rate if found.rate > 0 else None,
        names=[source.path.stem],
        valid=[np.stack(valid, axis=1)],
    )
    if data.num_bodies == len(names) and any(names):
        data.body_names = names
    return Reading(data, notes=notes)


READER = Reader("c3d", (".c3d",), read, title="markers, C3D")


def read_markers(path: Path) -> Markers:
    """Return the markers of a file.

    Raises:
        ImportError: the package ``c3d`` is missing.
        ValueError: the file is damaged or holds no marker.
    """
    try:
        import c3d
    except ImportError:
        raise ImportError(
            f"{path}: reading C3D needs the package c3d: pip install 'fastamr[mocap]'"
        ) from None
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            reader = c3d.Reader(file)
            frames = [np.array(points) for _, points, _ in reader.read_frames()]
            labels = [str(label).strip() for label in reader.point_labels][: reader.point_used]
            unit = reader.get("POINT:UNITS").string_value.strip().lower() if reader.get("POINT:UNITS") else ""
            axis = reader.get_screen_axis() if hasattr(reader, "get_screen_axis") else None
            rate = float(reader.point_rate)
    # The package checks little: a damaged file fails wherever its bytes lead.
    except Exception as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged, or no C3D file ({type(error).__name__}: {text})") from None
    if not frames or not labels:
        raise ValueError(
            f"{path} holds {len(frames)} frames of {len(labels)} labelled markers; there is no motion"
        )
    points = np.stack(frames)[:, : len(labels)]
    coords = points[..., :3].astype(np.float32)
    # A residual below 0 marks a marker that was not seen; many programs also write zeros.
    seen = (points[..., 3] >= 0) & np.isfinite(coords).all(-1) & (coords != 0).any(-1)
    notes = []
    if unit in _METRES:
        coords = coords * np.float32(_METRES[unit])
        notes += [f"the file's unit is {unit}, coordinates are converted to metres"] * (unit != "m")
    else:
        notes.append(f"the file's unit is {unit!r}, which is not known; coordinates stay as they are")
    up = axis[1] if axis else None
    notes += [f"the file says that {up} points up"] * bool(up and "Y" not in str(up).upper())
    return Markers(labels, coords, seen, rate, notes)


def load_mapping(path: str | Path) -> tuple[SkeletonLayout, dict[str, list[str]]]:
    """Return the layout of a mapping file, and the markers of each joint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or names a joint that the layout lacks.
    """
    try:
        content: Any = load_yaml(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no mapping file {path}; write one: {_EXAMPLE}") from None
    except ValueError as error:
        raise ValueError(f"{error}; expected {_EXAMPLE}") from None
    if (
        not isinstance(content, Mapping)
        or not isinstance(content.get("joints"), Mapping)
        or "layout" not in content
    ):
        raise ValueError(f"{path}: expected 'layout' and 'joints', as in {_EXAMPLE}")
    for key in content:
        if key not in ("layout", "joints"):
            raise ValueError(f"{path}: {str(key)[:40]!r} is not known, expected 'layout' and 'joints'")
    layout = get_layout(str(content["layout"]))
    joints: dict[str, list[str]] = {}
    for joint, group in content["joints"].items():
        layout.index(str(joint))
        names = [group] if isinstance(group, str) else group
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{path}: joint {joint}: {str(group)[:40]!r}, expected a marker or a list of markers"
            )
        joints[str(joint)] = names
    return layout, joints


def _joints(
    found: Markers, layout: SkeletonLayout, joints: Mapping[str, list[str]], places: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the joints of a subject ``(T, V, 3)`` and which were seen ``(T, V)``: means of the markers seen."""
    coords = np.zeros((len(found.coords), layout.num_joints, 3), dtype=np.float32)
    seen = np.zeros(coords.shape[:2], dtype=bool)
    for joint, group in joints.items():
        columns = [places[name] for name in group if name in places]
        if len(columns) < len(group):
            continue  # The mean of some of its markers is another point.
        shown = found.seen[:, columns].all(axis=1)
        at = layout.index(joint)
        seen[:, at] = shown
        coords[shown, at] = found.coords[:, columns][shown].mean(axis=1)
    return coords, seen


def _subject(label: str) -> str:
    return label.rpartition(":")[0]


def _shown(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
