"""Tensors are divided among ranks: each once, evenly, and the same way everywhere."""

from hypothesis import given
from hypothesis import strategies as st

from hpc_train.checkpoint.divide import divide, num_parts, writer

SIZES = st.dictionaries(st.text(max_size=3), st.integers(0, 1000), max_size=30)


@given(SIZES, st.integers(1, 9))
def test_each_tensor_is_in_one_part_and_parts_are_even(sizes, parts):
    found = divide(sizes, parts)
    assert sorted(name for part in found for name in part) == sorted(sizes)
    loads = [sum(sizes[name] for name in part) for part in found]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)
    assert divide(dict(reversed(sizes.items())), parts) == found


@given(st.integers(0, 10**12), st.integers(1, 4096))
def test_parts_are_worth_a_writer_and_writers_differ(total, ranks):
    parts = num_parts(total, ranks)
    writers = [writer(part, parts, ranks) for part in range(parts)]
    assert writers[0] == 0
    assert len(set(writers)) == parts <= ranks
    assert max(writers) < ranks
    assert parts == 1 or total / parts >= 64 * 2**20


def test_small_states_have_one_part():
    assert num_parts(100 * 2**20, 1000) == 1
    assert num_parts(256 * 2**20, 2) == 2
