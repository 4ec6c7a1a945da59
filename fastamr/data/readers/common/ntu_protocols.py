"""NTU RGB+D 60 and 120: what a file's name says, the published protocols, and the classes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ...packed.dataset import Split

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")

XSUB_TRAIN_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
"""Training subjects of NTU-60 cross-subject (Shahroudy et al., CVPR 2016, section 3.2)."""

XSUB_TRAIN_120 = (
    *XSUB_TRAIN_60,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89),
    *(91, 92, 93, 94, 95, 97, 98, 100, 103),
)
"""Training subjects of NTU-120 cross-subject (Liu et al., TPAMI 2019, section 3.2.1)."""

XVIEW_TRAIN_CAMERAS = (2, 3)
"""Training cameras of NTU-60 cross-view; camera 1 is for testing."""

SETUPS = {60: 17, 120: 32}
"""The last setup of each data set."""

# As listed in the README of github.com/shahroudy/NTURGB-D.
ACTIONS = tuple(
    """drink water; eat meal/snack; brushing teeth; brushing hair; drop; pickup; throw; sitting down;
    standing up (from sitting position); clapping; reading; writing; tear up paper; wear jacket; take off jacket;
    wear a shoe; take off a shoe; wear on glasses; take off glasses; put on a hat/cap; take off a hat/cap; cheer up;
    hand waving; kicking something; put something inside pocket / take out something from pocket;
    hopping (one foot jumping); jump up; make a phone call/answer phone; playing with phone/tablet;
    typing on a keyboard; pointing to something with finger; taking a selfie; check time (from watch);
    rub two hands together; nod head/bow; shake head; wipe face; salute; put the palms together;
    cross hands in front (say stop); sneeze/cough; staggering; falling; touch head (headache);
    touch chest (stomachache/heart pain); touch back (backache); touch neck (neckache);
    nausea or vomiting condition; use a fan (with hand or paper)/feeling warm; punching/slapping other person;
    kicking other person; pushing other person; pat on back of other person; point finger at the other person;
    hugging other person; giving something to other person; touch other person's pocket; handshaking;
    walking towards each other; walking apart from each other; put on headphone; take off headphone;
    shoot at the basket; bounce ball; tennis bat swing; juggling table tennis balls; hush (quite); flick hair;
    thumb up; thumb down; make ok sign; make victory sign; staple book; counting money; cutting nails;
    cutting paper (using scissors); snapping fingers; open bottle; sniff (smell); squat down; toss a coin;
    fold paper; ball up paper; play magic cube; apply cream on face; apply cream on hand back; put on bag;
    take off bag; put something into a bag; take something out of a bag; open a box; move heavy objects; shake fist;
    throw up cap/hat; hands up (both hands); cross arms; arm circles; arm swings; running on the spot;
    butt kicks (kick backward); cross toe touch; side kick; yawn; stretch oneself; blow nose;
    hit other person with something; wield knife towards other person; knock over other person (hit with body);
    grab other person's stuff; shoot at other person with a gun; step on foot; high-five; cheers and drink;
    carry something with other person; take a photo of other person; follow other person;
    whisper in other person's ear; exchange things with other person;
    support somebody with one's hand (someone is sick, help him to walk);
    finger-guessing game (playing rock-paper-scissors)""".replace("\n    ", " ").split("; ")
)
"""The 120 classes; the first 60 are those of NTU-60."""


@dataclass(frozen=True)
class ClipName:
    """What the name of a file says: setup, camera, performer, replication and action, all counted from 1."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    @classmethod
    def parse(cls, name: str) -> ClipName | None:
        """Return what a name such as ``S001C002P003R002A013`` says, or None if it is none."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(*map(int, match.groups()))

    def belongs(self, actions: int) -> bool:
        """Say whether the clip is one of NTU-60 or NTU-120."""
        return 1 <= self.action <= actions and 1 <= self.setup <= SETUPS[actions]

    def columns(self) -> dict[str, float]:
        """Return the columns of the data set."""
        return {
            "setup": self.setup,
            "view": self.camera,
            "subject": self.performer,
            "rep": self.replication,
        }


def splits(columns: dict[str, Tensor], actions: int) -> dict[str, Split]:
    """Return the published protocols: xsub and xview of NTU-60, xsub and xset of NTU-120.

    Args:
        columns: ``setup``, ``view`` and ``subject``, each ``(N,)`` int64.
        actions: 60 or 120.
    """
    subjects = XSUB_TRAIN_60 if actions == 60 else XSUB_TRAIN_120
    xsub = torch.isin(columns["subject"], torch.tensor(subjects))
    if actions == 60:
        xview = torch.isin(columns["view"], torch.tensor(XVIEW_TRAIN_CAMERAS))
        return {"xsub": Split(xsub, ~xsub), "xview": Split(xview, ~xview)}
    xset = columns["setup"] % 2 == 0
    return {"xsub": Split(xsub, ~xsub), "xset": Split(xset, ~xset)}


def clip_names(text: str) -> frozenset[str]:
    """Return the clip names in a text, such as the authors' list of samples with missing skeletons."""
    return frozenset(match[0] for match in _NAME.finditer(text))
