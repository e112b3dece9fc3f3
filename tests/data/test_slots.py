"""The table of shared blocks: nothing in use is given away, nothing is there twice."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.data.slots import EMPTY, LOADING, READY, Slots, words_of


def slots(num_slots, num_ranks):
    return Slots(np.zeros(words_of(num_slots, num_ranks), np.int64), num_slots, num_ranks)


def test_a_block_is_found_from_its_claim_on():
    table = slots(3, 2)
    assert table.find((0, 5)) == -1
    slot = table.claim((0, 5), 1)
    assert table.find((0, 5)) == slot
    assert table.find((5, 0)) == -1
    assert (table.state[slot], table.owner[slot]) == (LOADING, 1)
    table.publish(slot)
    assert table.state[table.find((0, 5))] == READY


def test_what_was_abandoned_is_forgotten_and_its_slot_used_again():
    table = slots(1, 1)
    slot = table.claim((0, 0), 0)
    table.abandon(slot)
    assert table.find((0, 0)) == -1
    assert table.claim((0, 1), 0) == -1  # still pinned
    table.unpin(slot, 0)
    assert table.claim((0, 1), 0) == slot
    assert table.sequence[slot] == 2


def test_what_a_dead_rank_was_loading_is_given_back_with_its_pin():
    table = slots(1, 2)
    slot = table.claim((0, 0), 1)
    table.bury(slot)
    assert table.state[slot] == EMPTY
    assert table.claim((0, 0), 0) == slot


def test_pins_of_more_ranks_than_a_word_has_bits_do_not_mix():
    table = slots(1, 130)
    slot = table.claim((0, 0), 129)
    table.publish(slot)
    table.pin(slot, 1)
    table.pin(slot, 65)
    for rank in (129, 65):
        table.unpin(slot, rank)
        assert table.claim((0, 1), 0) == -1
    table.unpin(slot, 1)
    assert table.claim((0, 1), 0) == slot


def test_the_oldest_block_that_nobody_uses_goes_first():
    table = slots(600, 1)
    for number in range(600):
        slot = table.claim((0, number), 0)
        table.publish(slot)
        if number not in (3, 599):
            table.unpin(slot, 0)
    for number in (0, 1, 2, 4):
        table.claim((1, number), 0)
        assert table.find((0, number)) == -1
    assert table.find((0, 3)) == 3


STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), st.booleans()), max_size=60)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_a_rank_below_its_share_always_finds_a_slot_and_pinned_blocks_stay(steps):
    share, ranks = 2, 3
    table = slots(share * ranks, ranks)
    used = [{} for _ in range(ranks)]  # block -> slot, by rank
    for rank, number, is_loaded in steps:
        key = (0, number)
        if key in used[rank]:
            table.unpin(used[rank].pop(key), rank)
            continue
        if len(used[rank]) == share:
            continue
        slot = table.find(key)
        if slot < 0:
            slot = table.claim(key, rank)
            assert slot >= 0
            if is_loaded:
                table.publish(slot)
            else:
                table.abandon(slot)
                table.unpin(slot, rank)
                continue
        table.pin(slot, rank)
        used[rank][key] = slot
        held = {(block, place) for mine in used for block, place in mine.items()}
        assert all(table.find(block) == place for block, place in held)
        assert len({place for _, place in held}) == len({block for block, _ in held})
