"""A small NTU-60 for the tests of ``fastamr prepare``."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fastamr.data import PackedSkeletons

from ..readers.writers import frames_of, skeleton_text, standing

NAMES = [
    "S001C001P001R001A001",
    "S001C002P003R001A060",
    "S002C003P038R002A010",
    "S017C001P040R001A007",
    "S017C002P002R002A050",
]


def contents() -> dict[str, bytes]:
    """Five clips of NTU-60; the second has two people, the last one comes late."""
    files = {
        name: skeleton_text(frames_of((7, 0, standing(15 + place, place))))
        for place, name in enumerate(NAMES)
    }
    files[NAMES[1]] = skeleton_text(frames_of((7, 0, standing(20, 1)), (8, 0, standing(20, 2, 1.0, 0.2))))
    files[NAMES[4]] = skeleton_text(frames_of((7, 3, standing(12, 4))))
    return {f"{name}.skeleton": text for name, text in files.items()}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"nturgb+d_skeletons/{name}", content)
    return path


def load(path: Path) -> PackedSkeletons:
    data = PackedSkeletons.load(path)
    data.check()
    return data
