"""A split: which clips train and which test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import unknown_name


@dataclass
class Split:
    """Two masks over the clips of a data set; a clip may be in neither.

    Args:
        train: ``(N,)`` bool.
        test: ``(N,)`` bool.
    """

    train: Tensor
    test: Tensor

    def take(self, clips: Tensor) -> Split:
        """Return the split over some of the clips, given as int64 indices."""
        return Split(self.train[clips], self.test[clips])

    def to(self, device: torch.device | str) -> Split:
        """Return the split on a device."""
        return Split(self.train.to(device), self.test.to(device))


def split_name(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the known names that is meant: the same, or the only one that differs in case alone.

    Returns:
        The known name; None where there is none.
    """
    names = list(known)
    if name in names:
        return name
    alike = [one for one in names if one.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def unknown_split(name: str, known: Iterable[str]) -> ValueError:
    """Build the error for a split that the data lacks: with the names that there are, or how to make one."""
    names = list(known)
    if names:
        return unknown_name("split", name, names)
    return ValueError(f"unknown split {name!r}: the data set has no split; {make_split()}")


def make_split() -> str:
    """Return the next step of somebody whose data has no split that serves."""
    return "make one with fastamr split DATA --by random --test 0.2 --name mine, and pass --split mine"
