"""Memory of blocks: no slot is given twice while a view lives, and gathering is as from copies."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.data.arena import Arena
from hpc_train.data.cache import Block
from hpc_train.data.gather import gather_blocks, root_of
from hpc_train.data.request import Request


def test_slots_are_free_again_when_the_last_view_of_them_is_dropped():
    arena = Arena(4, 6, 2)
    first, second = arena.rows(4), arena.rows(3)
    assert first.shape == (4, 6)
    assert second.shape == (3, 6)
    assert not np.shares_memory(first, second)
    assert np.shares_memory(first, arena.whole)
    assert arena.rows(1) is None
    place, view = root_of(second, arena.whole)[1], second[1:2, 2:]
    del second
    assert arena.rows(1) is None
    del view
    assert root_of(arena.rows(2), arena.whole) == (pytest.approx(arena.whole), place)


def test_what_was_freed_last_is_used_next():
    arena = Arena(2, 8, 9)
    held = [arena.rows(2) for _ in range(3)]
    places = [root_of(rows, arena.whole)[1] for rows in held]
    del held[1]
    gc.collect()
    assert root_of(arena.rows(2), arena.whole)[1] == places[1]


def test_views_outlive_the_arena():
    rows = Arena(3, 5, 2).rows(3)
    gc.collect()
    rows[:] = 7
    assert rows.sum() == 105


@settings(max_examples=60, deadline=None)
@given(data=st.data(), width=st.integers(1, 9), num_rows=st.integers(1, 60))
def test_rows_of_any_memory_come_to_their_places(data, width, num_rows):
    """Blocks in an arena, views of a map at any offsets, and memory of their own."""
    block_rows = data.draw(st.integers(1, 8))
    numbers = -(-num_rows // block_rows)
    values = np.random.default_rng(0).integers(0, 256, (num_rows, width), dtype=np.uint8)
    arena = Arena(block_rows, width, numbers)
    mapped = np.zeros(3 * num_rows * width + 16 * numbers, np.uint8)
    place, blocks = data.draw(st.integers(0, 5)), {}
    for number in range(numbers):
        rows = values[number * block_rows : (number + 1) * block_rows]
        kind = data.draw(st.sampled_from(["arena", "map", "own"]))
        if kind == "arena":
            held = arena.rows(len(rows))
        elif kind == "map":
            held = mapped[place : place + rows.size].reshape(rows.shape)
            place += rows.size + data.draw(st.integers(0, 2 * width))
        else:
            held = np.empty_like(rows)
        held[:] = rows
        blocks[number] = Block({"x": held}, rows.size, {"x": root_of(held, arena.whole)})
    wanted = np.array(data.draw(st.lists(st.integers(0, num_rows - 1), min_size=1, max_size=40)))
    request = Request(wanted, np.zeros_like(wanted), wanted, wanted // block_rows)
    into = np.zeros((len(wanted), width), np.uint8)
    keys = [part.key[1] for part in request.parts]
    firsts = [number * block_rows for number in keys]
    gather_blocks(request.parts, [blocks[number] for number in keys], firsts, {"x": into})
    assert np.array_equal(into, values[wanted])
