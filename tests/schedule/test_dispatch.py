"""Ranges to whoever is free: everything once, in time, and never staler than allowed."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.plan import Course
from hpc_train.schedule import Dispatcher
from hpc_train.schedule.dispatch import simulate


def play(paces, staleness, num_batches, *, batch_size=16, measures=True, quantum=1, leaves=None):
    """Let ranks of known pace work; gives (finish, staleness of each update, samples done).

    `leaves`: a rank, and the time at which it gives back what it has and never asks again.
    """
    course = Course(num_batches * batch_size - 3, batch_size)
    dispatcher = Dispatcher(
        dict.fromkeys(range(len(paces)), 1.0), staleness, measures=measures, quantum=quantum
    )
    dispatcher.begin(course.batches(0, num_batches))
    busy, done, stale, version, now = {}, Counter(), [], 0, 0.0
    seen = {}
    gone = set()
    while not dispatcher.is_over:
        if leaves is not None and now >= leaves[1] and leaves[0] not in gone:
            gone.add(leaves[0])
            busy.pop(leaves[0], None)
            dispatcher.lose(leaves[0])
        for rank in set(range(len(paces))) - busy.keys() - gone:
            work = dispatcher.ask(rank, now)
            if work is not None:
                busy[rank] = now + paces[rank] * work.size, work, version
        assert busy, "everybody waits"
        rank = min(busy, key=lambda r: busy[r][0])
        now, work, had = busy.pop(rank)
        seen[work.batch.number] = min(had, seen.get(work.batch.number, had))
        done.update(work.batch.first + i for i in range(work.start, work.stop))
        dispatcher.done(rank, work, paces[rank] * work.size)
        while (number := dispatcher.ready()) is not None:
            stale.append(version - seen[number])
            dispatcher.updated(number)
            version += 1
    return now, stale, done, course.num_samples


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(0, 4)),
    st.integers(1, 12),
    st.booleans(),
    st.integers(1, 5),
    st.floats(0.0, 50.0),
)
def test_the_bound_holds_nobody_waits_for_ever_and_every_sample_is_done_once(
    paces, staleness, num_batches, measures, quantum, when
):
    leaves = (len(paces) - 1, when) if len(paces) > 1 else None
    _, stale, done, num_samples = play(
        paces, staleness, num_batches, measures=measures, quantum=quantum, leaves=leaves
    )
    assert len(stale) == num_batches
    assert done == Counter(range(num_samples))
    if staleness is not None:
        assert max(stale) <= staleness


def test_synchronous_shares_follow_speeds():
    equal, *_ = play([1.0, 0.25], 0, 50, batch_size=20, measures=False)
    measured, *_ = play([1.0, 0.25], 0, 50, batch_size=20)
    assert equal == pytest.approx(50 * 10, rel=0.02)  # the slow rank's half
    assert measured == pytest.approx(50 * 4, rel=0.05)  # all end together


def test_without_a_bound_a_slow_rank_holds_nobody_back():
    free, stale, *_ = play([1.0, 0.1, 0.1], None, 60, measures=False, batch_size=30)
    # 21 samples a second together; equal ranges in lock step would make 3
    assert free < 1.15 * 60 * 30 / 21
    assert max(stale) > 0


def test_a_slow_rank_leaves_the_last_range_to_a_fast_one():
    dispatcher = Dispatcher({0: 1.0, 1: 1.0}, 1)
    dispatcher.begin(Course(30, 10).batches(0, 3))
    for rank, seconds in ((0, 5.0), (1, 0.5)):  # 1 s and 0.1 s a sample
        dispatcher.done(rank, dispatcher.ask(rank, 0.0), seconds)
    for number in (0,):
        assert dispatcher.ready() == number
        dispatcher.updated(number)
    now = 6.0
    held = [dispatcher.ask(1, now)]  # most of batch 1
    held.append(dispatcher.ask(0, now))  # the rest of it
    dispatcher.done(1, held[0], 0.1 * held[0].size)
    fast = dispatcher.ask(1, now + 0.9)
    assert fast.batch.number == 2
    dispatcher.done(0, held[1], 1.0 * held[1].size)
    dispatcher.updated(dispatcher.ready())
    assert dispatcher.ask(0, now + 1.0) is None  # the other one ends it in 0.1 s more


def test_staleness_hides_jitter():
    dice = random.Random(1)
    durations = [[dice.lognormvariate(0.0, 0.2) for _ in range(200)] for _ in range(8)]
    synchronous = simulate(durations, 200, 0)[-1]
    slowest = sum(max(rank[turn] for rank in durations) for turn in range(200))
    assert synchronous == pytest.approx(slowest, rel=0.05)
    bounded = simulate(durations, 200, 3)[-1]
    mean = sum(map(sum, durations)) / 8
    assert synchronous / bounded > 1.2
    assert bounded > 0.99 * mean


@given(
    st.integers(0, 5),
    st.sets(st.integers(1, 9)),
    st.integers(0, 6),
)
def test_a_segment_that_was_broken_off_goes_on_with_what_has_no_update(first, done, closed_after):
    done = {first + number for number in done}
    dispatcher = Dispatcher({0: 1.0}, None)
    dispatcher.begin(Course(20 * 4, 4).batches(first, first + 12), done)
    updated = []
    while not dispatcher.is_over:
        if len(updated) == closed_after:
            dispatcher.close()
        work = dispatcher.ask(0, 0.0)
        if work is None:
            continue
        dispatcher.done(0, work, 0.1)
        while (number := dispatcher.ready()) is not None:
            dispatcher.updated(number)
            updated.append(number)
    # wherever it ends, no batch before that is without its update, and none is made again
    assert not done & set(updated)
    assert dispatcher.ledger.closed == set()
    reached = dispatcher.ledger.next
    assert sorted(done | set(updated)) == list(range(first, reached))
