"""The ring as a simulation: every rank ends with the sum, for any number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.comm.ring import hops


def simulate(num_ranks, size, segment):
    """All ranks in one process, messages in queues; gives what every rank holds in the end."""
    held = [np.arange(size, dtype=float) * (rank + 1) for rank in range(num_ranks)]
    queues = [[] for _ in range(num_ranks)]  # what is on its way to each rank
    plans = [hops(rank, num_ranks, size, segment) for rank in range(num_ranks)]
    for rank, (first, _) in enumerate(plans):
        queues[(rank + 1) % num_ranks] += [held[rank][place].copy() for place in first]
    sent = [sum(place.stop - place.start for place in first) for first, _ in plans]
    waiting = [list(gets) for _, gets in plans]
    while any(waiting):
        able = [rank for rank in range(num_ranks) if waiting[rank] and queues[rank]]
        assert able, "all wait for each other"
        for rank in able:
            hop, message = waiting[rank].pop(0), queues[rank].pop(0)
            assert message.size == hop.place.stop - hop.place.start <= segment
            if hop.adds:
                held[rank][hop.place] += message
            else:
                held[rank][hop.place] = message
            if hop.passes:
                queues[(rank + 1) % num_ranks].append(held[rank][hop.place].copy())
                sent[rank] += message.size
    assert not any(queues), "messages that nobody got"
    return held, sent


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(1, 200), st.integers(1, 60))
def test_every_rank_ends_with_the_sum(num_ranks, size, segment):
    held, sent = simulate(num_ranks, size, segment)
    expected = np.arange(size) * (num_ranks * (num_ranks + 1) / 2)
    assert all((values == expected).all() for values in held)
    chunk = -(-size // num_ranks)
    assert max(sent) <= 2 * (num_ranks - 1) * chunk


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(1, 200), st.integers(1, 60))
def test_every_element_is_used_first_once_and_completed_once(num_ranks, size, segment):
    for rank in range(num_ranks):
        first, gets = hops(rank, num_ranks, size, segment)
        begun = [*first, *(hop.place for hop in gets if hop.adds)]
        ended = [hop.place for hop in gets if hop.completes]
        for places in (begun, ended):
            assert sorted(i for p in places for i in range(p.start, p.stop)) == list(range(size))
        # what is complete is added to no more
        late = [hop.completes for hop in gets]
        assert late == sorted(late)


@pytest.mark.parametrize("num_ranks", [64, 129])
def test_many_ranks(num_ranks):
    held, sent = simulate(num_ranks, 1000, 3)
    assert (held[-1] == held[0]).all()
    assert held[7][1] == num_ranks * (num_ranks + 1) / 2
    assert sum(sent) <= 2 * (num_ranks - 1) * 1000


def test_a_message_is_never_longer_than_a_segment():
    first, gets = hops(1, 3, 1000, 100)
    assert max(p.stop - p.start for p in [*first, *(h.place for h in gets)]) <= 100
    assert [h.passes for h in gets].count(False) == len(first)
