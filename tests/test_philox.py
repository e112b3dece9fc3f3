"""Philox: the published known answers, and streams that can be entered anywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train import philox

# Known answers of the reference implementation, Random123 1.09, kat_vectors, philox 4x32 10.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_integers_and_arrays_give_the_known_answers(counter, key, expected):
    assert philox.rounds(counter, key) == expected
    arrays = tuple(np.full(3, word, np.uint64) for word in counter)
    for got, word in zip(philox.rounds(arrays, key), expected, strict=True):
        assert got.tolist() == [word] * 3


@given(
    seed=st.integers(0, 2**64 - 1),
    count=st.integers(1, 50),
    start=st.integers(0, 2**40),
    skip=st.integers(0, 5),
)
def test_a_stream_can_be_entered_anywhere(seed, count, start, skip):
    whole = philox.bits(seed, 3, 9, 4 * skip + count, start=start)
    assert np.array_equal(philox.bits(seed, 3, 9, count, start=start + skip), whole[4 * skip :])


def test_derived_seeds_differ_by_every_element_of_the_path():
    paths = [(), (0,), (0, 0), (1,), (0, 1), (1, 0), (2**40,), (0, 0, 0)]
    seeds = {philox.derive(7, 1, *path) for path in paths}
    seeds |= {philox.derive(7, 2), philox.derive(8, 1)}
    assert len(seeds) == len(paths) + 2
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seeds_never_change():
    assert philox.derive(0, 16) == GOLDEN_WEIGHTS
    assert philox.derive(1, 17, 2, 3, 4) == GOLDEN_DROPOUT


GOLDEN_WEIGHTS = 4991415633910834486
GOLDEN_DROPOUT = 8612204585666856955
