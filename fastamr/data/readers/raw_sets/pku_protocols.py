"""PKU-MMD: the classes, and the lists of streams that its protocols consist of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..common.sources import DamagedFile, Entry

_STREAM = re.compile(r"[A-Za-z0-9]+-[LMR]\b")
# The headings of the published lists; "Validataion" is theirs.
_HEADING = re.compile(r"^\s*(train\w*|valid\w*|test\w*)\b[^,\n]*:", re.IGNORECASE | re.MULTILINE)
_FILES = {"xsub": "subject", "xview": "view"}

# As listed in Actions.xlsx of the data set.
ACTIONS = tuple(
    """bow; brushing hair; brushing teeth; check time (from watch); cheer up; clapping;
    cross hands in front (say stop); drink water; drop; eat meal/snack; falling; giving something to other person;
    hand waving; handshaking; hopping (one foot jumping); hugging other person; jump up; kicking other person;
    kicking something; make a phone call/answer phone; pat on back of other person; pickup;
    playing with phone/tablet; point finger at the other person; pointing to something with finger;
    punching/slapping other person; pushing other person; put on a hat/cap; put something inside pocket; reading;
    rub two hands together; salute; sitting down; standing up; take off a hat/cap; take off glasses; take off jacket;
    take out something from pocket; taking a selfie; tear up paper; throw; touch back (backache);
    touch chest (stomachache/heart pain); touch head (headache); touch neck (neckache); typing on a keyboard;
    use a fan (with hand or paper)/feeling warm; wear jacket; wear on glasses; wipe face; writing""".replace(
        "\n    ", " "
    ).split("; ")
)
"""The 51 classes, by number from 1."""


@dataclass(frozen=True)
class SplitList:
    """The streams of a protocol, for example ``0002-L``.

    Args:
        train: those to train on.
        test: those to test on.
    """

    train: frozenset[str]
    test: frozenset[str]


def split_list_name(protocol: str, phase: int) -> str:
    """Return the published name of a list: ``cross-subject.txt`` or ``cross_subject_v2.txt``."""
    return f"cross-{_FILES[protocol]}.txt" if phase == 1 else f"cross_{_FILES[protocol]}_v2.txt"


def read_split_list(entry: Entry) -> SplitList:
    """Read a list: a heading for training and one for validation, each followed by names with commas between.

    Raises:
        ValueError: the file cannot be read, lacks a heading, or has a stream under both.
    """
    try:
        text = entry.read().decode("utf-8-sig")
    except (DamagedFile, UnicodeDecodeError) as error:
        raise ValueError(f"{entry}: {error}; fetch the list again") from None
    halves: dict[bool, set[str]] = {}
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=False):
        body = text[heading.end() : end]
        halves.setdefault(heading[1].lower().startswith("train"), set()).update(_STREAM.findall(body))
    train, test = halves.get(True, set()), halves.get(False, set())
    if not train or not test:
        raise ValueError(
            f"{entry} names {len(train)} streams for training and {len(test)} for validation; expected a line "
            f"'Training videos:' and a line 'Validation videos:', each followed by names such as 0002-L"
        )
    both = sorted(train & test)
    if both:
        raise ValueError(f"{entry} names {both[0]} for training and for validation; fetch the list again")
    return SplitList(frozenset(train), frozenset(test))
