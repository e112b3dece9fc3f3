"""Whole numbers in proportion to weights."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def largest_remainders(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Split `total` in proportion to `weights` (>= 0, with a positive sum), exactly summing up.

    Rounded by largest remainders (Hamilton's method), lower places first among equals; computed in
    fractions, so that every machine finds the same.
    """
    whole = sum(Fraction(weight) for weight in weights)
    exact = [Fraction(weight) * total / whole for weight in weights]
    counts = [int(part) for part in exact]
    ranked = sorted(range(len(counts)), key=lambda place: (counts[place] - exact[place], place))
    for place in ranked[: total - sum(counts)]:
        counts[place] += 1
    return tuple(counts)
