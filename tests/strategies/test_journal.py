"""The journal: whatever a rank had done when it was killed, the others find how far it was."""

import numpy as np
import torch

from hpc_train.strategies.journal import Journal, Slot

LENGTH, BLOCK_BYTES = 5, 512


def slot():
    return Slot(np.zeros(Journal.num_bytes(LENGTH, BLOCK_BYTES), np.uint8), LENGTH)


def test_a_fresh_slot_has_begun_nothing():
    fresh = slot()
    fresh.reset()
    assert (fresh.update, fresh.done, fresh.is_open) == (0, 0, False)


def test_an_update_is_told_with_its_vector_and_the_blocks_that_are_done():
    one = slot()
    one.reset()
    one.begin(7, np.arange(4.0))
    assert (one.update, one.done, one.is_open) == (7, 0, False)
    assert one.vector(4).tolist() == [0, 1, 2, 3]
    parts = (torch.arange(6.0), torch.ones(6, dtype=torch.float64))
    for done in range(3):
        one.save(one.copies(parts))
        assert (one.is_open, one.done) == (True, done)
        one.close()
        assert (one.is_open, one.done) == (False, done + 1)
    one.begin(8, np.full(LENGTH, 9.0))
    assert (one.update, one.done, one.is_open) == (8, 0, False)
    assert one.vector(LENGTH).tolist() == [9] * LENGTH


def test_only_a_block_that_is_open_is_restored():
    one = slot()
    one.reset()
    one.begin(1, np.zeros(1))
    parts = (torch.arange(6.0), torch.ones(3, dtype=torch.float64))
    before = [part.clone() for part in parts]
    one.save(one.copies(parts))
    for part in parts:
        part[:2] = -1  # killed in the middle
    one.restore(parts)
    assert all(torch.equal(part, old) for part, old in zip(parts, before, strict=True))
    one.close()
    parts[0].fill_(5)
    one.restore(parts)
    assert parts[0].tolist() == [5] * 6


def test_killed_while_an_update_begins_the_one_before_stays_whole():
    one = slot()
    one.reset()
    one.begin(1, np.full(LENGTH, 1.0))
    one.save(())
    one.close()
    one._vectors[0] = 2.0  # of update 2, which was never told
    assert (one.update, one.done) == (1, 1)
    assert one.vector(LENGTH).tolist() == [1] * LENGTH


def test_blocks_are_copied_to_where_a_cache_line_begins():
    for length in range(40):
        memory = np.zeros(Journal.num_bytes(length, BLOCK_BYTES) + 64, np.uint8)
        start = -memory.ctypes.data % 64
        one = Slot(memory[start : start + Journal.num_bytes(length, BLOCK_BYTES)], length)
        ((kept, _),) = one.copies([torch.zeros(BLOCK_BYTES // 4)])
        assert kept.ctypes.data % 64 == 0
        assert kept.nbytes == BLOCK_BYTES
        assert kept.ctypes.data - memory.ctypes.data - start >= 64 + 16 * length
