"""How a flat buffer is cut among ranks and into blocks: pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

CACHE_LINE_BYTES = 64


def slices(size: int, parts: int, align: int = 1) -> list[slice]:
    """`parts` neighbouring slices of [0, size), about equal, none longer than the first.

    Args:
        size: number of elements, >= 0.
        parts: number of slices, >= 1; some are empty if there are too few elements.
        align: borders are multiples of it, so that two ranks never write to one cache line.
    """
    units = -(-size // align)
    borders = [min(size, -(-units * part // parts) * align) for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(borders)]


def portions(size: int, weights: Sequence[int], align: int = 1) -> list[slice]:
    """Neighbouring slices of [0, size) in proportion to `weights`.

    Args:
        size: number of elements, >= 0.
        weights: one for each slice, >= 0, at least one above 0; those of weight 0 are empty.
        align: borders are multiples of it, so that two ranks never write to one cache line.
    """
    units, total = -(-size // align), sum(weights)
    ends = [units * end // total for end in accumulate(weights)]
    borders = [0, *(min(size, end * align) for end in ends)]
    return [slice(start, stop) for start, stop in pairwise(borders)]


def blocks(whole: slice, length: int) -> Iterator[slice]:
    """`whole` in pieces of `length` elements, >= 1; the last may be shorter."""
    for start in range(whole.start, whole.stop, length):
        yield slice(start, min(start + length, whole.stop))


def per_cache_line(item_bytes: int) -> int:
    """Elements of `item_bytes` bytes in a cache line."""
    return max(1, CACHE_LINE_BYTES // item_bytes)
