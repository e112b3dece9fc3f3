"""Buckets: slices of an arena, which are reduced one by one while backward goes on: pure.

    arena     | w0 | w1         | b1 | w2                        | b2 |      backward begins with b2
    bucket    |  3 |  2              |  1                        |  0 |

Backward finds the gradients of the last layers first. The first bucket is small, so that the
network is soon busy; and so is the last one, which nothing is left to hide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# large enough that a message takes much longer than its latency, small enough that several are on
# their way during a backward pass
BUCKET_BYTES = 4 * 2**20
SMALL_BYTES = 2**20


@dataclass(frozen=True)
class Bucket:
    """Neighbouring parameters of an arena.

    Attributes:
        start, stop: where they lie.
        names: which they are.
    """

    start: int
    stop: int
    names: tuple[str, ...]


def cut(starts: Sequence[tuple[str, int]], size: int, bucket: int, small: int) -> list[Bucket]:
    """All of an arena in buckets, the last parameters first.

    A bucket is closed as soon as it has as many elements as it shall have, so it is longer by less
    than its first parameter; padding belongs to the parameter before it.

    Args:
        starts: the parameters with the element at which each begins, in that order; the first at 0.
        size: elements of the arena.
        bucket: elements of a bucket, >= 1.
        small: those of the first one, and of the last one if it can be cut, >= 1.
    """
    found: list[Bucket] = []
    names: list[str] = []
    stop = size
    for place in range(len(starts) - 1, -1, -1):
        name, start = starts[place]
        names.insert(0, name)
        enough = bucket if found else small
        # the next one would be the last: what remains is small enough to stand alone
        near_end = start <= small < stop - start
        if stop - start >= enough or place == 0 or near_end:
            found.append(Bucket(start, stop, tuple(names)))
            names, stop = [], start
    return found
