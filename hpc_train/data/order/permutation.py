"""A keyed permutation of 0 .. n-1 that is computed where it is needed, forwards and backwards.

Up to 65,536 elements it is a table: the ranks of random 64-bit keys, so that every permutation is
equally likely. Above, a balanced Feistel network over the next larger power of four; elements that
it leads out of range are led on until they come back ("cycle walking": Black and Rogaway, "Ciphers
with arbitrary finite domains", CT-RSA 2002). Its round function is the finaliser of SplitMix64
(Steele, Lea and Flood, OOPSLA 2014) under round keys drawn by Philox.

    left  right          r rounds:  left, right = right, left ^ F(right + key[r]) mod 2^half
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpc_train import philox

Ids = NDArray[np.int64]

TABLE_LIMIT = 2**16
_ROUNDS = 8


class Permutation:
    """The permutation of 0 .. size-1 that belongs to (seed, stream, instance)."""

    def __init__(self, size: int, seed: int, stream: int, instance: int) -> None:
        self.size = size
        self._table: Ids | None = None
        if size <= TABLE_LIMIT:
            words = philox.bits(seed, stream, instance, 2 * size).astype(np.uint64)
            self._table = np.argsort(words[0::2] << np.uint64(32) | words[1::2], kind="stable")
            self._back = np.empty_like(self._table)
            self._back[self._table] = np.arange(size)
            return
        self._half = np.uint64(((size - 1).bit_length() + 1) // 2)
        self._mask = (np.uint64(1) << self._half) - np.uint64(1)
        words = philox.bits(seed, stream, instance, 2 * _ROUNDS).astype(np.uint64)
        self._keys = words[0::2] << np.uint64(32) | words[1::2]

    def forward(self, elements: Ids) -> Ids:
        """Where each element goes; values in [0, size)."""
        return self._table[elements] if self._table is not None else self._walk(elements, 1)

    def inverse(self, elements: Ids) -> Ids:
        """Where each element comes from."""
        return self._back[elements] if self._table is not None else self._walk(elements, -1)

    def _walk(self, elements: Ids, direction: int) -> Ids:
        values = elements.astype(np.uint64)
        outside = np.arange(values.size)
        while outside.size:
            values[outside] = self._rounds(values[outside], direction)
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _rounds(self, values: NDArray[np.uint64], direction: int) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        if direction < 0:
            left, right = right, left
        for key in self._keys[::direction]:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        if direction < 0:
            left, right = right, left
        return left << self._half | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: a bijection of 64 bits in which every bit depends on every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
