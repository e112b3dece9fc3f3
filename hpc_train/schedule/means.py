"""Means of ranks' seconds over many steps, with their errors: what small gains are judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_FIRST_SPAN, _LAST_SPAN = 16, 512  # steps that they span


class Means:
    """What each rank's seconds are, as part of the mean of all that work, while one plan holds.

    Args:
        num_ranks: of the job.
        span: over so many steps.

    Attributes:
        parts: the means, shape (num_ranks,); 0 for a rank without samples.
    """

    def __init__(self, num_ranks: int, span: int = _FIRST_SPAN) -> None:
        self.parts = np.zeros(num_ranks)
        self._spread = np.zeros(num_ranks)  # sum of squared distances from the mean
        self._steps = 0
        self._span = span

    @property
    def are_due(self) -> bool:
        """Whether they span what they shall."""
        return self._steps >= self._span

    @property
    def error(self) -> float:
        """The relative standard error of the largest one, once they are due."""
        slowest = int(np.argmax(self.parts))
        variance = float(self._spread[slowest]) / (self._steps - 1)
        return math.sqrt(variance / self._steps) / float(self.parts[slowest])

    def take(self, counts: Sequence[int], seconds: Sequence[float]) -> None:
        """Take in a step (Welford 1962) that all who have samples have told the seconds of."""
        works = np.asarray(counts) > 0
        told = np.where(works, seconds, 0.0)
        if not (told[works] > 0).all():
            return
        parts = told * (works.sum() / told.sum())
        self._steps += 1
        away = parts - self.parts
        self.parts += away / self._steps
        self._spread += away * (parts - self.parts)

    def next(self) -> Means:
        """Those over the steps that follow, twice as many."""
        return Means(len(self.parts), min(2 * self._span, _LAST_SPAN))
