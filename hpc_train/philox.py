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

import numpy as np
from numpy.typing import NDArray

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = 0x9E3779B9
_W1 = 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ROUNDS = 10

Words = NDArray[np.uint64]  # 32-bit words held in 64 bits, so that products do not overflow


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> Words:
    """Random 32-bit words for each counter.

    Args:
        counter: four arrays of 32-bit words that broadcast against each other, shape S.
        key: two 32-bit words.

    Returns:
        Words of shape (*S, 4), each in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0 = c0 * _M0
        product1 = c2 * _M1
        c0 = (product1 >> _HALF) ^ c1 ^ np.uint64(k0)
        c1 = product1 & _LOW
        c2 = (product0 >> _HALF) ^ c3 ^ np.uint64(k1)
        c3 = product0 & _LOW
        k0 = (k0 + _W0) & 0xFFFFFFFF
        k1 = (k1 + _W1) & 0xFFFFFFFF
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1)


def bits(seed: int, stream: int, high: int, count: int, *, start: int = 0) -> NDArray[np.uint32]:
    """`count` random 32-bit words of one stream, from word 4 * `start` on.

    Args:
        seed: 64-bit seed of the run (the key).
        stream: what the bits are for, 32 bits (counter word 3).
        high: which instance of it (an epoch, a block), 32 bits (counter word 2).
        count: number of words.
        start: first counter, in units of four words, 64 bits (counter words 0 and 1).
    """
    blocks = -(-count // 4)
    index = np.arange(start, start + blocks, dtype=np.uint64)
    words = philox4x32(
        (index & _LOW, index >> _HALF, np.uint64(high), np.uint64(stream)),  # type: ignore[arg-type]
        (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF),
    )
    return words.reshape(-1)[:count].astype(np.uint32)


def derive(seed: int, stream: int, *path: int) -> int:
    """A 63-bit seed for (seed, stream, path): the same path gives the same seed, on any machine.

    Each element of the path is folded in by one Philox evaluation, so that seeds of different
    paths are as good as independent.
    """
    state = seed & 0xFFFFFFFFFFFFFFFF
    for element in (len(path), *path):
        low, high = element & 0xFFFFFFFF, (element >> 32) & 0xFFFFFFFF
        counter = tuple(np.asarray(word, np.uint64) for word in (low, high, 0, stream))
        word = philox4x32(counter, (state & 0xFFFFFFFF, state >> 32))  # type: ignore[arg-type]
        state = int(word[0]) | int(word[1]) << 32
    return state & 0x7FFFFFFFFFFFFFFF
