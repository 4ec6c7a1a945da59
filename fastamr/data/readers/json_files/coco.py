"""Key points in COCO's JSON: the object with images and annotations, and the plain list of results.

The object (COCO, PoseTrack, MMPose): ``images`` with ``id``, and ``video_id`` or ``vid_id`` and ``frame_id``, or a
``file_name`` with a number; ``annotations`` with ``image_id``, ``keypoints`` (x, y, v triplets) and ``track_id``;
perhaps ``videos`` with ``id``, ``name``, ``fps`` and ``label``, and ``categories`` with the ``keypoints``' names.

The list (AlphaPose, Detectron2, COCO results): ``image_id`` (a file name or a number), ``keypoints`` (x, y, confidence)
and ``idx`` or ``track_id``; or an object of such lists by image, as AlphaPose's PoseFlow writes it. All images are one
clip, or those of each folder where names have folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....skeleton import SkeletonLayout
from ..common import json_text
from ..common.layout_choice import Joints, joints_by_count, joints_by_name
from ..common.linking import bodies_of
from ..common.poses import Poses, pack_poses, reading_note, seen_from
from ..common.reader import Reader, Reading, Source
from .coco_annotations import Annotations, kinds_of, sound_annotations
from .coco_images import images_of, images_of_names

_USUAL = {
    17: "coco17",
    18: "openpose18",
    26: "halpe26",
    133: "coco_wholebody133",
    136: "halpe136",
    16: "mpii16",
}
_TRACKER = {
    True: "give the annotations of a person one 'track_id'",
    False: "run AlphaPose with --pose_track, or give the entries of a person one 'track_id'",
}
_STILLS = (
    "photographs are no motion; the images of a clip need 'video_id' and 'frame_id', or a folder of their own and "
    "names with the frame's number"
)


def sniff(source: Source) -> bool:
    """Tell whether a JSON document has one of the forms."""
    document = source.parsed(json_text.load_json)
    if isinstance(document, Mapping):
        return "annotations" in document or _by_image(document)
    return (
        isinstance(document, list)
        and bool(document)
        and isinstance(document[0], Mapping)
        and "keypoints" in document[0]
        and "image_id" in document[0]
    )


def read(
    source: Source,
    *,
    layout: str | SkeletonLayout | None = None,
    min_confidence: float = 0.0,
    track: bool = True,
) -> Reading:
    """Read a file of any of the forms.

    Coordinates stay pixels with y down. A track is a body; people without tracks are linked from frame to frame (see
    :func:`~fastamr.data.readers.common.linking.link_people`). A body's frames without a detection are empty. An
    annotation that is not sound is left out, and named in the notes.

    Args:
        source: the file; its name is the clip's where nothing else names it.
        layout: the skeleton; None tells it from the categories' names or from the number of joints.
        min_confidence: joints whose v or confidence is below it, or 0, are marked as not seen.
        track: link people where the file tells no tracks; False refuses several people in an image without.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another kind, no annotation is sound, images are no motion, several
            kinds of objects have key points, or people must not be linked.
    """
    document, path = source.parsed(json_text.load_json), source.path
    is_object = isinstance(document, Mapping) and "annotations" in document
    if isinstance(document, Mapping) and not is_object:
        document = _listed(document)
    entries = json_text.field(document, "annotations", str(path)) if is_object else document
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: no annotations; the data set is empty")

    def where(place: int) -> str:
        return f"{path}: annotations[{place}]" if is_object else f"{path}: entry {place}"

    kinds = kinds_of(document, str(path)) if is_object else []
    found = sound_annotations(entries, kinds, where, is_list=not is_object)

    def here(row: int) -> str:
        return where(found.rows[row])

    images = images_of(document, path) if is_object else images_of_names(found.images, path, here)
    found = found.within(images.places, where)
    joints = _joints(found, layout, str(path))
    coords, seen = joints.take(
        found.points[..., :2], found.seen & seen_from(found.points[..., 2], min_confidence)
    )
    clip, frame = np.array([images.places[key] for key in found.images], dtype=np.int64).T

    bodies = bodies_of(
        clip, frame, coords, seen, found.ids, track=track, where=here, way_on=_TRACKER[is_object]
    )
    notes = [*joints.notes, *images.notes, *bodies.notes, *found.notes]
    data = pack_poses(
        Poses(clip, bodies.body, frame, coords, seen),
        layout=joints.layout,
        names=images.names,
        where=here,
        labels=images.labels,
        label_names=images.label_names,
        fps=images.fps,
        body_names=bodies.names or None,
        steps=reading_note(min_confidence),
        notes=notes,
        way_on=_STILLS,
    )
    return Reading(data, notes=notes)


READER = Reader(
    "coco",
    (".json",),
    read,
    sniff,
    title="COCO key points, AlphaPose",
    holds=("'annotations'", "a list of key points by 'image_id'"),
)


def _by_image(document: Mapping[str, Any]) -> bool:
    """Tell whether an object holds lists of key points by the names of images."""
    lists = list(document.values())
    people = [person for people in lists if isinstance(people, list) for person in people]
    return (
        bool(people)
        and all(isinstance(people, list) for people in lists)
        and all(isinstance(person, Mapping) and "keypoints" in person for person in people[:1])
    )


def _listed(document: Mapping[str, Any]) -> list[Any]:
    """Return the people of an object by images as a list of results."""
    return [
        {"image_id": image, **person} if isinstance(person, Mapping) else person
        for image, people in document.items()
        for person in people
    ]


def _joints(found: Annotations, layout: str | SkeletonLayout | None, where: str) -> Joints:
    """Return the skeleton: by the names of the category's key points, else by their number."""
    count, kind = found.points.shape[1], found.kind
    if kind is not None:
        own_name = f"{kind.name}{count}"
        return joints_by_name(
            kind.joints, where, given=layout, edges=kind.bones, own_name=own_name, usual=_USUAL
        )
    return joints_by_count(count, 2, where, given=layout, usual=_USUAL)
