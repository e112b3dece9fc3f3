"""The ledger: whatever is lost or given back, every sample of the order is committed once."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.plan import Batch, Course
from hpc_train.schedule.ledger import Ledger

NUM_RANKS = 4


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 60),
    st.integers(1, 17),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 9)), max_size=150),
)
def test_every_sample_is_committed_once_whatever_is_lost(num_samples, batch_size, window, events):
    course = Course(num_samples, batch_size)
    end = 2 * course.per_epoch
    ledger, done = Ledger(), Counter()

    def advance():
        for number in list(range(ledger.next, min(end, ledger.next + window))):
            if number not in ledger.open and number not in ledger.closed:
                ledger.begin(course.batch(number))

    def commit(work):
        done.update((work.batch.epoch, work.batch.first + i) for i in range(work.start, work.stop))
        if ledger.commit(work):
            ledger.close(work.batch.number)
            advance()

    def hand_out(rank, size):
        number = next((n for n in ledger.open if ledger.free(n)), None)
        return None if number is None else ledger.hand_out(number, size, rank)

    advance()
    for rank, event, size in events:
        held = ledger.held(rank)
        if event == 0:
            assert set(ledger.lose(rank)) == set(held)
            assert not ledger.held(rank)
        elif event == 1 and held:
            ledger.give_back(held[0])
        elif event == 2:  # a checkpoint, and a run that goes on from it
            ledger = Ledger.from_state(json.loads(json.dumps(ledger.state())))
            assert not ledger.held()
        elif event == 3:
            hand_out(rank, size)
        elif held:
            commit(held[0])
    for rank in range(NUM_RANKS):
        ledger.lose(rank)
    while ledger.open:
        commit(hand_out(0, 7))
    assert ledger.next == end
    everything = {(epoch, sample) for epoch in (0, 1) for sample in range(num_samples)}
    assert done.keys() == everything
    assert set(done.values()) == {1}


def test_what_is_given_back_is_handed_out_first():
    ledger = Ledger()
    ledger.begin(Batch(0, 0, 0, 10))
    first, second = ledger.hand_out(0, 4, rank=1), ledger.hand_out(0, 4, rank=2)
    ledger.give_back(first)
    again = ledger.hand_out(0, 9, rank=2)
    assert (again.start, again.stop) == (0, 4)
    assert not ledger.commit(second)
    assert not ledger.commit(again)
    assert ledger.commit(ledger.hand_out(0, 9, rank=1))


def test_mistakes_are_refused():
    ledger = Ledger()
    batch = Batch(0, 0, 0, 3)
    ledger.begin(batch)
    with pytest.raises(ValueError, match="opened once"):
        ledger.begin(batch)
    work = ledger.hand_out(0, 3, rank=0)
    with pytest.raises(ValueError, match="nothing to hand out"):
        ledger.hand_out(0, 1, rank=1)
    with pytest.raises(ValueError, match="not complete"):
        ledger.close(0)
    ledger.commit(work)
    with pytest.raises(KeyError):
        ledger.commit(work)  # twice would count its samples twice
    with pytest.raises(KeyError):
        ledger.give_back(work)


def test_batches_closed_out_of_order_wait_for_those_before_them():
    ledger = Ledger()
    for number in range(3):
        ledger.begin(Batch(number, 0, number, number + 1))
    works = [ledger.hand_out(number, 1, rank=0) for number in range(3)]
    for number, following in ((2, 0), (0, 1), (1, 3)):
        ledger.commit(works[number])
        ledger.close(number)
        assert ledger.next == following
