"""The hash of what was delivered: which samples, with which bytes.

    word sum    s = sum over fields f and words w of key[f, w] * word[f, w]   mod 2^32, keys odd
    sample      mix(s + id * odd)                                             a bijection of 32 bits
    batch       the sum of its samples                                        mod 2^32

Words are the 32-bit words of a sample's bytes. Since keys are odd and the mixing is a bijection,
any one word or id that differs changes the sample's value for certain, anything else with
probability 1 - 2^-31 or so: multilinear hashing (Lemire and Kaser, "Strongly universal string
hashing is fast", 2014), whose inner product costs a small part of a CRC and holds no lock. Its
finaliser is that of MurmurHash3 (Appleby, 2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train import philox
from hpc_train.data.blocks import Ids

Hashes = NDArray[np.uint32]

_STREAM = 0xD16E57  # apart from every stream of the order
_ID_FACTOR = np.uint32(0x9E3779B1)


def delivered_hash(ids: Ids, arrays: Mapping[str, NDArray[Any]]) -> int:
    """A number below 2^32 that tells which samples were delivered, with which bytes.

    Sums of it, modulo 2^32, do not depend on how a batch is split or in which order it comes.

    Args:
        ids: sample ids, shape (n,).
        arrays: one array per field, shape (n, *field shape), rows contiguous in memory.
    """
    return digest_of(sample_hashes(ids, arrays))


def digest_of(hashes: Hashes) -> int:
    """The sum of what `sample_hashes` gives, modulo 2^32; shape (n,)."""
    return int(hashes.sum(dtype=np.uint64)) & 0xFFFFFFFF


def sample_hashes(ids: Ids, arrays: Mapping[str, NDArray[Any]]) -> Hashes:
    """A number below 2^32 for each sample, shape (n,); arguments as above."""
    if len(ids) == 0:
        return np.zeros(0, np.uint32)
    values = ids.astype(np.uint32) * _ID_FACTOR
    for number, name in enumerate(sorted(arrays)):
        words = _words(arrays[name])
        if words.shape[1]:
            values += np.einsum("ij,j->i", words, _keys(number, words.shape[1]))
    return _mix(values)


def _words(array: NDArray[Any]) -> NDArray[np.uint32]:
    """The 32-bit words of each sample, zeros added where bytes lack; shape (n, words)."""
    data = array.reshape(len(array), -1).view(np.uint8)
    rest = -data.shape[1] % 4
    if rest:  # `np.pad` would take longer than all the rest
        padded = np.zeros((len(data), data.shape[1] + rest), np.uint8)
        padded[:, : data.shape[1]] = data
        data = padded
    return data.view(np.uint32)


@lru_cache(maxsize=32)
def _keys(number: int, count: int) -> NDArray[np.uint32]:
    """Odd random factors of the words of field `number`."""
    return philox.bits(0, _STREAM, number, count).astype(np.uint32) | np.uint32(1)


def _mix(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A bijection of 32 bits in which every bit depends on every other."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
