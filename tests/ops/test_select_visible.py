from __future__ import annotations

import pytest
import torch

from fastamr import ops


def seed(key: int = 1, counter: int = 0) -> torch.Tensor:
    return torch.tensor([key, counter])


@pytest.mark.parametrize(("tokens", "visible"), [(1, 1), (7, 1), (7, 7), (13, 5), (750, 75), (1025, 103)])
@pytest.mark.parametrize("sequences", [0, 1, 3])
def test_splits_the_tokens_in_two(sequences: int, tokens: int, visible: int) -> None:
    keep, masked = ops.select_visible(seed(), sequences, tokens, visible, return_masked=True)
    assert keep.shape == (sequences, visible)
    assert masked.shape == (sequences, tokens - visible)
    assert keep.dtype == masked.dtype == torch.int32
    assert (keep.diff(dim=1) > 0).all()
    assert (masked.diff(dim=1) > 0).all()
    both = torch.cat([keep, masked], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(tokens, dtype=torch.int32).expand(sequences, -1))


def test_inverse_says_where_a_token_went() -> None:
    keep, inverse = ops.select_visible(seed(), 3, 20, 6, return_inverse=True)
    assert inverse.shape == (3, 20)
    assert inverse.dtype == torch.int32
    for row in range(3):
        kept = keep[row].tolist()
        assert inverse[row].tolist() == [kept.index(n) if n in kept else -1 for n in range(20)]
    both = ops.select_visible(seed(), 3, 20, 6, return_masked=True, return_inverse=True)
    assert [value.shape[1] for value in both] == [6, 14, 20]
    assert torch.equal(both[2], inverse)


def test_keeps_the_smallest_words() -> None:
    """The rule written out: token n of sequence s draws Philox word (s, n), the smallest words stay visible."""
    from fastamr.reference.philox import STREAM_SELECT, philox_words

    words = philox_words(seed(5, 3), torch.arange(4), 50, STREAM_SELECT)
    keep = ops.select_visible(seed(5, 3), 4, 50, 9)
    for row in range(4):
        smallest = sorted(range(50), key=lambda n: (words[row, n].item(), n))[:9]
        assert keep[row].tolist() == sorted(smallest)


def test_seed_names_the_choice() -> None:
    first = ops.select_visible(seed(3, 8), 4, 100, 10)
    assert torch.equal(first, ops.select_visible(seed(3, 8), 4, 100, 10))
    assert not torch.equal(first, ops.select_visible(seed(3, 9), 4, 100, 10))
    assert torch.equal(first[:2], ops.select_visible(seed(3, 8), 2, 100, 10)), (
        "a sequence does not depend on S"
    )


def test_uniform_singly_and_in_pairs() -> None:
    """Chi-square of inclusion counts and of pair counts against uniform sampling without replacement."""
    tokens, visible, rows = 12, 4, 20000
    keep = ops.select_visible(seed(11), rows, tokens, visible).long()
    chosen = torch.zeros(rows, tokens).scatter(1, keep, 1.0)
    p = visible / tokens
    counts = chosen.sum(0)
    # Cov(n_i, n_j) = -p(1-p)/(N-1): the statistic below is chi-square with N-1 degrees of freedom.
    chi = ((counts - rows * p) ** 2).sum() / (rows * p * (1 - p)) * (tokens - 1) / tokens
    assert chi < 31.3, "0.1 % of chi-square(11)"
    pairs = (chosen.T @ chosen)[torch.triu_indices(tokens, tokens, 1).unbind()]
    q = p * (visible - 1) / (tokens - 1)
    deviation = (pairs - rows * q) / (rows * q * (1 - q)) ** 0.5
    assert deviation.abs().max() < 4.5
    assert abs(deviation.square().mean() - 1) < 0.5


def test_sequences_and_steps_are_independent() -> None:
    tokens, visible = 40, 10
    rows = torch.zeros(4000, tokens).scatter(
        1, ops.select_visible(seed(7), 4000, tokens, visible).long(), 1.0
    )
    overlap = (rows[:-1] * rows[1:]).sum(1).mean()
    assert abs(overlap - visible * visible / tokens) < 0.08
    later = torch.zeros(4000, tokens).scatter(
        1, ops.select_visible(seed(7, 1), 4000, tokens, visible).long(), 1.0
    )
    assert abs((rows * later).sum(1).mean() - visible * visible / tokens) < 0.08


def test_scores_follow_gumbel_top_k() -> None:
    """With K = 1 the chosen token has probability softmax(+-scores)."""
    scores = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5]).expand(30000, -1)
    largest = ops.select_visible(seed(2), 30000, 5, 1, scores=scores, largest=True)
    share = torch.bincount(largest[:, 0].long(), minlength=5) / 30000
    assert (share - scores[0].softmax(0)).abs().max() < 0.01
    smallest = ops.select_visible(seed(2), 30000, 5, 4, scores=scores)
    left_out = 10 - smallest.sum(1)
    share = torch.bincount(left_out.long(), minlength=5) / 30000
    assert (share - scores[0].softmax(0)).abs().max() < 0.01, "keeping the 4 smallest leaves out the largest"


def test_extreme_scores_decide_alone() -> None:
    scores = torch.zeros(3, 20)
    scores[:, [2, 5, 17]] = 1e4
    scores[:, [1, 3]] = -1e4
    assert ops.select_visible(seed(), 3, 20, 3, scores=scores, largest=True).tolist() == [[2, 5, 17]] * 3
    assert ops.select_visible(seed(), 3, 20, 2, scores=scores).tolist() == [[1, 3]] * 3


def test_invalid_tokens_come_last() -> None:
    valid = torch.zeros(2, 30, dtype=torch.bool)
    valid[0, 4:9] = True
    valid[1, :20] = True
    keep = ops.select_visible(seed(), 2, 30, 10, valid=valid).long()
    assert set(range(4, 9)) <= set(keep[0].tolist()), "all valid tokens first"
    assert (keep[1] < 20).all(), "no invalid token while valid ones are left"
    assert len(set(keep[0].tolist())) == 10


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"visible": 0}, "visible=0"),
        ({"visible": 11}, "visible=11"),
        ({"tokens": 0}, "tokens=0"),
        ({"sequences": -1}, "sequences=-1"),
        ({"scores": torch.zeros(2, 9)}, "scores"),
        ({"valid": torch.ones(2, 9, dtype=torch.bool)}, "valid"),
        ({"seed": torch.zeros(4, dtype=torch.int64)}, "seed"),
    ],
)
def test_bad_values(change: dict, match: str) -> None:
    arguments = {"seed": seed(), "sequences": 2, "tokens": 10, "visible": 3, **change}
    with pytest.raises(ValueError, match=match):
        ops.select_visible(**arguments)


def test_bad_types() -> None:
    with pytest.raises(TypeError, match="seed"):
        ops.select_visible(torch.zeros(2), 2, 10, 3)
    with pytest.raises(TypeError, match="valid"):
        ops.select_visible(seed(), 2, 10, 3, valid=torch.ones(2, 10))
