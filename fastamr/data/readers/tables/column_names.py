"""The name of a column taken apart: the person, the joint and which of its values it holds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

UNITS = {
    "mm": 0.001, "millimeter": 0.001, "millimeters": 0.001, "millimetre": 0.001, "millimetres": 0.001,
    "cm": 0.01, "centimeter": 0.01, "centimeters": 0.01, "centimetre": 0.01, "centimetres": 0.01,
    "m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0,
    "in": 0.0254, "inch": 0.0254, "inches": 0.0254, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048,
}  # fmt: skip
"""Metres of a unit that a column's name may state."""
# Of the units those that may be a word of a joint's name, too: they are units in brackets only.
_WORDS = {"in", "ft", "foot", "feet"}
PIXELS = {"px", "pixel", "pixels", "norm", "normalized", "normalised", "raw"}
"""What a column's name may say of coordinates without a unit of length."""
_PLACES = {
    "pos",
    "position",
    "coord",
    "coordinate",
    "coordinates",
    "coords",
    "loc",
    "location",
    "2d",
    "3d",
    "value",
    "posi",
}
_FILLERS = {
    "kp", "kpt", "keypoint", "keypoints", "joint", "joints", "landmark", "landmarks", "lm", "point", "pt", "marker",
    "node", "part", "bodypart", "pose", "world", "image", "img", "camera", "cam", "body", "skeleton", "k4abt", "azure",
    "kinect", "mixamorig", "jointtype",
}  # fmt: skip
_NUMBERED = r"(?i)(?:kp|kpt|keypoint|joint|landmark|lm|point|pt|p|j|k|marker|node|part|bodypart)(\d+)"
_PERSON = r"(?i)(?:person|people|body|skeleton|human|subject|individual|track|animal|player|user|pose|id|p)"
_SURE = {"confidence", "conf", "likelihood", "score", "prob", "probability", "accuracy", "accu", "acc"}
_SEEN = {"visibility", "visible", "vis", "presence"}
SCORES = {**dict.fromkeys(_SURE, 0), **dict.fromkeys(_SEEN, 1), "presence": 2, **dict.fromkeys("cvps", 3)}
# Of pairs x, y that no joint has.
_NO_JOINTS = {
    "bbox", "box", "rect", "roi", "crop", "origin", "centroid", "center", "centre", "com", "cog", "gaze", "width",
    "height", "size", "scale", "offset", "mouse", "velocity", "acceleration", "resolution", "top", "bottom",
}  # fmt: skip
# Of values x, y, z that are no place: how a joint is turned, or how fast it is.
_NO_PLACES = {
    "orientation", "orient", "ori", "rotation", "rot", "quaternion", "quat", "euler", "angle", "angles", "rotvec",
    "axisangle", "velocity", "vel", "acceleration", "acc", "direction", "normal",
}  # fmt: skip
_LEVEL = re.compile(r"(?i)(?:confidence|tracking)[\W_]*(?:level|state|status)$")


@dataclass
class Part:
    """A column's name taken apart: the person, the joint, and which of its values; "score" for a confidence."""

    body: str
    joint: str
    value: str
    rank: int = 0
    unit: str = ""


def with_first_number(parts: list[Part | None], names: Sequence[str]) -> list[Part | None]:
    """Return the columns x, y of ``x, y, x.1, y.1, x.2, ...`` as those of joint 0: pandas numbers repeated names so."""
    return [
        dataclasses.replace(part, joint="0")
        if part and not part.joint and {f"{name}.1", f"{name}.2"} <= set(names) and f"{name}.0" not in names
        else part
        for part, name in zip(parts, names, strict=True)
    ]


def without_box(parts: list[Part | None], names: Sequence[str]) -> list[Part | None]:
    """Return the columns without ``x1, y1, x2, y2``, a box, where no joint 0 or 3 goes with them."""
    corners = {"x1", "y1", "x2", "y2"}
    lower = [name.strip().lower() for name in names]
    if not corners <= set(lower) or not {"x0", "x3"}.isdisjoint(lower):
        return parts
    return [None if name in corners else part for part, name in zip(parts, lower, strict=True)]


def common_words(joints: Sequence[str]) -> tuple[int, int]:
    """Return how many first and how many last words all of some joints share, none of them a side.

    ``DLC_resnet50_nose``, ``body_nose``, ``nose_joint``: what all share tells joints no further apart.
    """
    words = [[word.lower() for word in joint.split("_")] for joint in set(joints)]
    shared: list[int] = []
    for order in (1, -1):
        count = 0
        while (
            len(words) > 2
            and min(map(len, words)) > count + 1 + sum(shared)
            and len({word[::order][count] for word in words}) == 1
            and words[0][::order][count] not in ("left", "right", "l", "r")
            and not any("".join(word[::order][count + 1 :]).isdecimal() for word in words)
        ):
            count += 1
        shared.append(count)
    return shared[0], shared[1]


def part_of_path(path: tuple[str, str, str]) -> Part | None:
    """Return what a column under DeepLabCut's lines of names is."""
    body, joint, value = path
    value = value.lower()
    if value in ("x", "y", "z"):
        return Part(body, joint, value)
    return Part(body, joint, "score", SCORES[value]) if value in SCORES and len(value) > 1 else None


def part_of(name: str) -> Part | None:
    """Take a column's name apart; None = it is no value of a joint.

    ``nose_x``, ``nose.X``, ``noseX``, ``X_nose``, ``x0``, ``0_x``, ``kp0_x``, ``landmark_00_x``, ``nose x pos``,
    ``person1_nose_x``, ``nose_x_mm``, ``nose_x (mm)``; without a joint ``x``, ``pos_x``, ``x_px``.
    """
    name = re.sub(r"(?i)[(\[]\s*([xyz])\s*[)\]]", r"_\1", name)
    brackets = [text.lower() for text in re.findall(r"[(\[]\s*([^()\[\]]+?)\s*[)\]]", name)]
    text = re.sub(r"\(.*?\)|\[.*?\]", " ", name).strip()
    text = re.sub(r"(?i)(?<=[xyz])(?=[23]d$)", "_", _LEVEL.sub("confidence", text))
    text = re.sub(r"(?<=[^\W_A-Z])([XYZ])$", r"_\1", text)
    text = re.sub(r"(?i)^([xyzcvps])(?=\d+$)", r"\1_", text)
    text = re.sub(r"(?<=\d)([xyzcv])$", r"_\1", text)
    words = [word for word in re.split(r"[\W_]+", text) if word]
    unit = next((text for text in brackets if text in UNITS), brackets[-1] if brackets else "")
    unit = "" if unit in _PLACES or unit.isdecimal() else unit
    while len(words) > 1 and words[-1].lower() in {*UNITS, *PIXELS, *_PLACES} - _WORDS:
        last = words[-1].lower()
        if not any(word.lower() in "xyz" for word in words[:-1]):
            break
        unit = last if last in UNITS else unit
        words.pop()
    value, rank = "", 0
    for at in (-1, 0):
        word = words[at].lower() if words else ""
        if word in ("x", "y", "z"):
            value = word
        elif word in SCORES:
            value, rank = "score", SCORES[word]
        if value:
            break
    if not value:
        return None
    rest = words[:-1] if at == -1 else words[1:]
    if not {word.lower() for word in rest}.isdisjoint(_NO_PLACES) and value != "score":
        return None
    while len(rest) > 1 and rest[-1].lower() in _PLACES:
        rest.pop()
    body, rest = _person(rest)
    while rest and rest[0].lower() in _FILLERS | _PLACES | PIXELS and (len(rest) > 1 or not body):
        rest.pop(0)
    if len(rest) == 1 and (number := re.fullmatch(_NUMBERED, rest[0])):
        rest = [number[1]]
    if rest and all(word.lower() in _NO_JOINTS | {"x", "y", "z"} for word in rest):
        return None
    joint = "_".join(rest)
    return Part(body, str(int(joint)) if joint.isdecimal() else joint, value, rank, unit)


def _person(words: list[str]) -> tuple[str, list[str]]:
    """Return the person that the first words name, and the words after them."""
    if len(words) > 1 and re.fullmatch(_PERSON + r"\d+", words[0]):
        return words[0], words[1:]
    if len(words) > 2 and re.fullmatch(_PERSON, words[0]) and words[1].isdecimal():
        return words[0] + words[1], words[2:]
    return "", words
