"""The audit of a data set: counts, quality and duplicates as plain values, and the findings in words."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..body_size import body_size, size_warning
from ..packed.dataset import PackedSkeletons
from .blocks import Index
from .counts import count
from .leaks import describe_duplicates, find_duplicates
from .near import NearOptions
from .quality import Quality, QualityOptions, check_quality

KINDS = {
    "leak": "test clips that are exact or near copies of training clips, in any split",
    "duplicates": "exact or near copies anywhere, or one motion in two bodies of a clip",
    "labels": "exact copies whose labels differ",
    "nan": "coordinates that are NaN or infinite",
    "empty": "frames of all zeros",
    "repeated": "frames equal to the one before",
    "still": "clips in which nothing moves",
    "zero": "joints at the origin that are not marked as unseen",
    "jump": "joints or bodies that jump",
    "freeze": "joints that freeze while the body moves",
    "units": "bodies whose size in 3-D cannot be metres",
    "classes": "classes that are tested, but not trained, in a split",
    "unlabelled": "clips without a label",
    "dropped": "clips that were left out when the file was made",
}
"""The kinds of findings, for ``--fail-on``."""

_LISTED = 20


class Finding(NamedTuple):
    """One thing that is worth knowing: its kind, a key of :data:`KINDS`, and one sentence."""

    kind: str
    text: str


def audit(
    data: PackedSkeletons,
    *,
    near: NearOptions | None = None,
    search_near: bool = True,
    quality: QualityOptions | None = None,
) -> dict[str, Any]:
    """Return what is in a data set, what is wrong with it and whether it leaks, as values that JSON can hold.

    Args:
        data: the data set.
        near: when two sequences are near duplicates.
        search_near: False looks for exact duplicates only.
        quality: what counts as a jump and as frozen.

    Returns:
        ``{"data", "counts", "body_size", "quality", "duplicates", "findings"}``; ``findings`` is a list of
        ``{"kind", "text"}``, the gravest first; ``body_size`` holds the median ``trunk`` and a ``warning``, both None
        where there is none.
    """
    quality = quality or QualityOptions()
    report: dict[str, Any] = {
        "data": dict(data.summary()),
        "counts": count(data),
        "body_size": {"trunk": body_size(data), "warning": size_warning(data)},
        "quality": _describe_quality(data, check_quality(data, quality), quality),
        "duplicates": describe_duplicates(data, find_duplicates(data, near, near=search_near)),
    }
    report["findings"] = [finding._asdict() for finding in find(report)]
    return report


def _describe_quality(data: PackedSkeletons, quality: Quality, options: QualityOptions) -> dict[str, Any]:
    def by_clip(values: Index) -> dict[str, Any]:
        order = np.argsort(-values, kind="stable")[: min(_LISTED, int((values > 0).sum()))]
        return {
            "total": int(values.sum()),
            "clips": int((values > 0).sum()),
            "most": {data.names[clip]: int(values[clip]) for clip in order},
        }

    joints = data.layout.joints
    repeats = by_clip(quality.repeated_frames) | {"longest_run": int(quality.longest_repeat.max())}
    return {
        "empty_frames": by_clip(quality.empty_frames),
        "repeated_frames": repeats,
        "still_clips": [data.names[clip] for clip in np.flatnonzero(quality.still)],
        "not_finite": by_clip(quality.not_finite),
        "zero_joints": by_clip(quality.zero_joints),
        "unseen_joints": dict(zip(joints, quality.unseen_joints.tolist(), strict=True)),
        "joint_jumps": by_clip(quality.jump_clips)
        | {"by_joint": dict(zip(joints, quality.jumps.tolist(), strict=True)), "body_sizes": options.jump},
        "body_jumps": by_clip(quality.body_jumps),
        "farthest_jumps": [
            {
                "clip": data.names[clip],
                "frame": frame,
                "joint": joints[joint] if joint < len(joints) else "whole body",
                "body_sizes": round(size, 2),
            }
            for clip, frame, joint, size in quality.worst_jumps
        ],
        "freezes": by_clip(quality.freeze_clips)
        | {"by_joint": dict(zip(joints, quality.freezes.tolist(), strict=True)), "frames": options.freeze},
        "centred_joints": [joints[joint] for joint in quality.centred],
    }


def find(report: dict[str, Any]) -> list[Finding]:
    """Say in words what of an audit is worth knowing; leaks come first."""
    return [*_leak_findings(report), *_duplicate_findings(report), *_quality_findings(report), *_rest(report)]


def _leak_findings(report: dict[str, Any]) -> list[Finding]:
    findings = []
    for name, split in report["duplicates"]["splits"].items():
        for kind, text in (("exact", "exact copies"), ("near", "near copies")):
            number, share = split[f"{kind}_copies_of_training"], split[f"{kind}_share"]
            if number:
                findings.append(
                    Finding(
                        "leak",
                        f"split {name!r}: {number:,} of {split['test']:,} test clips ({share:.1%}) are {text} of "
                        f"training clips".replace("%)", " %)"),
                    )
                )
    return findings


def _duplicate_findings(report: dict[str, Any]) -> list[Finding]:
    found = report["duplicates"]
    findings = []
    if found["exact"]["copies"]:
        findings.append(
            Finding(
                "duplicates",
                f"{found['exact']['copies']:,} clips repeat the coordinates of another one exactly",
            )
        )
    if found["near"]["pairs"]:
        findings.append(
            Finding("duplicates", f"{len(found['near']['pairs']):,} pairs of clips are near copies")
        )
    twins = found["same_motion_in_two_bodies"]
    if twins:
        findings.append(
            Finding("duplicates", f"{len(twins):,} clips hold one motion in two bodies: {_some(twins)}")
        )
    if found["different_labels"]:
        pairs = [" = ".join(pair) for pair in found["different_labels"]]
        findings.append(Finding("labels", f"{len(pairs):,} exact copies have another label: {_some(pairs)}"))
    return findings


def _quality_findings(report: dict[str, Any]) -> list[Finding]:
    quality = report["quality"]
    jump, freeze = quality["joint_jumps"]["body_sizes"], quality["freezes"]["frames"]
    texts = {
        "nan": ("not_finite", "coordinates that are NaN or infinite"),
        "empty": ("empty_frames", "empty frames (all coordinates 0)"),
        "repeated": ("repeated_frames", "frames that equal the one before"),
        "zero": ("zero_joints", "joints at the origin that are not marked as unseen"),
        "freeze": (
            "freezes",
            f"frozen places of single joints ({freeze} frames or more in one place while the body moves)",
        ),
    }
    findings = [
        Finding(kind, f"{quality[key]['total']:,} {text}, in {quality[key]['clips']:,} clips")
        for kind, (key, text) in texts.items()
        if quality[key]["total"]
    ]
    for key, what in (("body_jumps", "whole bodies"), ("joint_jumps", "single joints")):
        if quality[key]["total"]:
            text = (
                f"{quality[key]['total']:,} jumps of {what} by more than {jump:g} body size{'s' * (jump != 1)} between "
                f"two frames, in {quality[key]['clips']:,} clips"
            )
            findings.append(Finding("jump", text))
    if quality["still_clips"]:
        still = quality["still_clips"]
        findings.append(Finding("still", f"{len(still):,} clips hold no motion: {_some(still)}"))
    return findings


def _rest(report: dict[str, Any]) -> list[Finding]:
    counts, dropped = report["counts"], report["data"]["dropped_clips"]
    unit = report["body_size"]["warning"]
    findings = [] if unit is None else [Finding("units", unit.removeprefix("the data: "))]
    findings += [
        Finding("classes", f"split {name!r} tests classes that it does not train: {_some(lacking)}")
        for name, split in counts["splits"].items()
        if (lacking := split["classes_without_training"])
    ]
    if counts["unlabelled"]:
        findings.append(Finding("unlabelled", f"{counts['unlabelled']:,} clips have no label"))
    if dropped:
        reasons = [f"{name} ({reason})" for name, reason in dropped.items()]
        findings.append(Finding("dropped", f"{len(dropped):,} clips were left out: {_some(reasons)}"))
    return findings


def _some(items: list[str], most: int = 3) -> str:
    return ", ".join(items[:most]) + (f", and {len(items) - most:,} more" if len(items) > most else "")
