"""Philox4x32-10: counter-based random bits, the same on every machine and for all time.

A generator without state: 128 bits of counter and 64 bits of key give 128 random bits, so any
number of a stream can be drawn without drawing those before it. Salmon, Moraes, Dror and Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3 and table 2.

    counter words (c0, c1, c2, c3), key words (k0, k1), ten rounds of

        c0' = hi(M1 c2) ^ c1 ^ k0        c1' = lo(M1 c2)
        c2' = hi(M0 c0) ^ c3 ^ k1        c3' = lo(M0 c0)

    and after each round k0 += W0, k1 += W1 (modulo 2^32).

The order of training depends on these bits: the golden values in the tests may never change.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF
_ROUNDS = 10

Words = NDArray[np.uint64]  # 32-bit words held in 64 bits, so that products do not overflow
Word = TypeVar("Word", int, Words)


def rounds(
    counter: tuple[Word, Word, Word, Word], key: tuple[int, int]
) -> tuple[Word, Word, Word, Word]:
    """The four random words of a counter: of one as integers, of many as broadcasting arrays."""
    words: tuple[Any, ...] = counter
    c0, c1, c2, c3 = words
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0 = c0 * _M0
        product1 = c2 * _M1
        c0 = (product1 >> 32) ^ c1 ^ k0
        c1 = product1 & _LOW
        c2 = (product0 >> 32) ^ c3 ^ k1
        c3 = product0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def key_of(seed: int) -> tuple[int, int]:
    """The key words of a 64-bit seed."""
    return seed & _LOW, (seed >> 32) & _LOW


def bits(seed: int, stream: int, high: int, count: int, *, start: int = 0) -> NDArray[np.uint32]:
    """`count` random 32-bit words of one stream, from word 4 * `start` on.

    Args:
        seed: 64-bit seed of the run (the key).
        stream: what the bits are for, 32 bits (counter word 3).
        high: which instance of it (an epoch, a block), 32 bits (counter word 2).
        count: number of words.
        start: first counter, in units of four words, 64 bits (counter words 0 and 1).
    """
    index = np.arange(start, start + -(-count // 4), dtype=np.uint64)
    low, high_words = index & np.uint64(_LOW), index >> np.uint64(32)
    counter = (low, high_words, np.full_like(index, high), np.full_like(index, stream))
    return np.stack(rounds(counter, key_of(seed)), axis=-1).reshape(-1)[:count].astype(np.uint32)


def derive(seed: int, stream: int, *path: int) -> int:
    """A 63-bit seed for (seed, stream, path): the same path gives the same seed, on any machine.

    Each element of the path is folded in by one Philox evaluation, so that seeds of different
    paths are as good as independent.
    """
    state = seed & 0xFFFFFFFFFFFFFFFF
    for element in (len(path), *path):
        state = _fold(state, stream, element)
    return state & 0x7FFFFFFFFFFFFFFF


@lru_cache(maxsize=256)  # paths of neighbouring steps differ in their last elements alone
def _fold(state: int, stream: int, element: int) -> int:
    low, high, _, _ = rounds((element & _LOW, element >> 32 & _LOW, 0, stream), key_of(state))
    return low | high << 32
