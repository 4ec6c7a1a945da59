from __future__ import annotations

import numpy as np

from fastamr.data.readers.common.score_channel import looks_like_score

RNG = np.random.default_rng(0)
PIXELS = RNG.uniform(0, 640, size=(4, 17, 2))
SCORES = RNG.uniform(0.2, 1, size=(4, 17))


def test_a_score_beside_pixels() -> None:
    assert looks_like_score(SCORES, PIXELS)
    assert looks_like_score(np.ones((4, 17)), PIXELS)
    some = np.where(np.arange(17) < 3, np.nan, SCORES)
    assert looks_like_score(some, np.where(np.isnan(some)[..., None], np.nan, PIXELS))


def test_a_depth_is_none() -> None:
    assert not looks_like_score(RNG.uniform(2, 4, size=(4, 17)), PIXELS)
    assert not looks_like_score(RNG.uniform(-1, 1, size=(4, 17)), PIXELS)
    assert not looks_like_score(SCORES, RNG.uniform(-1, 1, size=(4, 17, 2)))  # metres, or shares of an image
    assert not looks_like_score(np.zeros((4, 17)), PIXELS)
    assert not looks_like_score(np.full((4, 17), np.nan), PIXELS)


def test_the_unseen_joint_at_the_origin_does_not_make_pixels() -> None:
    xy = RNG.uniform(0.4, 0.6, size=(4, 17, 2)) + 20
    xy[:, 0] = 0
    third = SCORES.copy()
    third[:, 0] = 0
    assert not looks_like_score(third, xy)
