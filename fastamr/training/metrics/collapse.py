"""Notice when learned features collapse while the loss still looks well."""

from __future__ import annotations

from collections.abc import Mapping

LEAST_STD = 0.01
LEAST_RANK = 1.05
# Fewer sequences than this span too few directions for their number to mean anything.
_FEW = 8


class CollapseGuard:
    """Watches the terms ``std/NAME`` and ``rank/NAME`` that a model reports of its features.

    Features are collapsed when they hardly vary (their standard deviation is below ``least_std``) or when all of them
    vary along one direction (their effective rank is below ``least_rank``). Both bounds are
    choices; healthy encoders were seen at a standard deviation of 0.05 and at an effective rank of 1.1.

    Args:
        sequences: body sequences that the terms are computed over; of fewer than 8 the rank is not judged.
        least_std: smallest standard deviation of healthy features.
        least_rank: smallest effective rank of healthy features.
    """

    def __init__(
        self, sequences: int, *, least_std: float = LEAST_STD, least_rank: float = LEAST_RANK
    ) -> None:
        self.bounds = {"std": least_std}
        if sequences >= _FEW:
            self.bounds["rank"] = least_rank
        self._known: set[str] = set()

    def check(self, terms: Mapping[str, float]) -> list[str]:
        """Return a message for each kind of features that has collapsed since the last call.

        Features that recover and collapse again are told again.
        """
        collapsed: dict[str, str] = {}
        for term, value in terms.items():
            kind, _, name = term.partition("/")
            if kind in self.bounds and value < self.bounds[kind]:
                words = "standard deviation" if kind == "std" else "effective rank"
                text = f"{words} {value:.3g}, below {self.bounds[kind]:g}"
                collapsed[name] = f"{collapsed[name]}, and {text}" if name in collapsed else text
        news = [
            f"the features of {name!r} have collapsed ({reason}): raise the weight of the variance, covariance or "
            "redundancy loss, or lower the learning rate"
            for name, reason in collapsed.items()
            if name not in self._known
        ]
        self._known = set(collapsed)
        return news
