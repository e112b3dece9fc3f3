"""List scheduling keeps Graham's bounds, and longest-first its own."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.schedule.listing import first_free, list_schedule, longest_first, next_rank

sizes = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def makespan(placed):
    return max(one.finish for one in placed)


def best(sizes, slope):
    """The smallest makespan of all assignments."""
    found = []
    for ranks in itertools.product(range(len(slope)), repeat=len(sizes)):
        busy = [0.0] * len(slope)
        for rank, size in zip(ranks, sizes, strict=True):
            busy[rank] += slope[rank] * size
        found.append(max(busy))
    return min(found)


@settings(deadline=None)
@given(sizes, st.integers(1, 3))
def test_bounds_on_equal_ranks(sizes, p):
    optimum = best(sizes, [1.0] * p)
    zero, one = [0.0] * p, [1.0] * p
    assert makespan(longest_first(sizes, zero, one)) <= (4 / 3 - 1 / (3 * p)) * optimum + 1e-9
    for rule in (list_schedule, first_free):
        assert makespan(rule(sizes, zero, one)) <= (2 - 1 / p) * optimum + 1e-9


@settings(deadline=None)
@given(sizes, st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_every_item_once_and_no_two_at_a_time(sizes, slope):
    for rule in (list_schedule, longest_first, first_free):
        placed = rule(sizes, [0.5] * len(slope), slope)
        assert sorted(one.item for one in placed) == list(range(len(sizes)))
        for one in placed:
            assert one.finish - one.start == pytest.approx(slope[one.rank] * sizes[one.item])
        for rank in range(len(slope)):
            mine = [one for one in placed if one.rank == rank]
            edges = [0.5, *(t for one in mine for t in (one.start, one.finish))]
            assert edges == sorted(edges)


def test_a_slow_rank_that_is_idle_waits_rather_than_hold_all_others_back():
    # rank 1 is free, and would need 8 s for what rank 0 has done in 2
    assert [one.rank for one in list_schedule([1, 1], [0, 0], [1, 8])] == [0, 0]
    assert [one.rank for one in first_free([1, 1], [0, 0], [1, 8])] == [0, 1]


def test_longest_first_beats_the_given_order():
    sizes = [1, 1, 1, 3]
    assert makespan(list_schedule(sizes, [0, 0], [1, 1])) == 4
    assert makespan(longest_first(sizes, [0, 0], [1, 1])) == 3


def test_the_next_rank_is_the_one_that_finishes_first():
    assert next_rank([5, 0], [1, 4], 2) == 0
    assert next_rank([5, 0], [1, 4], 1) == 1
    assert next_rank([5, 0], [1, 4], None) == 1
