"""The order: every sample once, golden values, even draws, cuts that stay on their blocks."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.data.blocks import Blocks, Extent
from hpc_train.data.order import ORDERS, VERSION, auto_window, make_order
from hpc_train.data.order.permutation import TABLE_LIMIT, Permutation
from hpc_train.data.order.streams import BLOCKS, OFFSET, ROWS
from hpc_train.data.order.window import _merged
from hpc_train.errors import UsageError
from hpc_train.philox import bits, key_of, rounds
from hpc_train.plan import Course, Plan

extents = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 90), st.integers(1, 25)), min_size=1, max_size=6
).map(lambda rows: [Extent(i, a, a + n, b) for i, (a, n, b) in enumerate(rows)])


def epoch_ids(order, course, epoch=0):
    numbers = range(epoch * course.per_epoch, (epoch + 1) * course.per_epoch)
    return [order.ids(course.batch(number)) for number in numbers]


@settings(deadline=None)
@given(extents=extents)
def test_blocks_cover_every_sample_once_and_respect_the_chunk_grid(extents):
    blocks = Blocks(extents)
    starts, rows = blocks.locate(np.arange(len(blocks)))
    ids = np.concatenate([np.arange(s, s + r) for s, r in zip(starts, rows, strict=True)])
    assert sorted(ids.tolist()) == list(range(blocks.num_samples))
    base = 0
    grid = {}
    for extent in extents:
        for row in range(extent.first, extent.stop):
            grid[base + row - extent.first] = (extent.shard, row // extent.block_rows)
        base += extent.size
    for start, length in zip(starts.tolist(), rows.tolist(), strict=True):
        assert len({grid[i] for i in range(start, start + length)}) == 1


@settings(max_examples=60, deadline=None)
@given(
    extents=extents,
    name=st.sampled_from(sorted(ORDERS)),
    window=st.integers(1, 12),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 2**63 - 1),
    weights=st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any),
)
def test_every_sample_exactly_once_per_epoch_for_any_sizes(
    extents, name, window, batch_size, seed, weights
):
    blocks = Blocks(extents)
    order = make_order(name, blocks, seed, window)
    course = Course(blocks.num_samples, batch_size)
    plan = Plan(tuple(weights))
    for epoch in (0, 3):
        seen = []
        for number in range(epoch * course.per_epoch, (epoch + 1) * course.per_epoch):
            batch = course.batch(number)
            ids = order.ids(batch)
            works = [plan.work(batch, rank) for rank in range(len(weights))]
            seen += [i for work in works for i in ids[work.start : work.stop].tolist()]
        assert sorted(seen) == list(range(blocks.num_samples))


@settings(max_examples=60, deadline=None)
@given(
    extents=extents, window=st.integers(1, 12), seed=st.integers(0, 2**63), epoch=st.integers(0, 9)
)
def test_a_window_is_sorted_by_the_keys_of_its_samples(extents, window, seed, epoch):
    """As the docstring has it, written down plainly: one key a sample, and one sort."""
    blocks = Blocks(extents)
    order = make_order("window", blocks, seed, window)
    permutation = Permutation(len(blocks), seed, BLOCKS, epoch)
    for index in range(-(-len(blocks) // window)):
        slots = np.arange(index * window, min((index + 1) * window, len(blocks)))
        offset = bits(seed, OFFSET, epoch, 1, start=index)[0] / 2**32
        samples = []
        for place, block in enumerate(permutation.forward(slots).tolist()):
            (start,), (rows,) = blocks.locate(np.array([block]))
            stratum = (offset + place * 0.6180339887498949) % 1.0
            words = row_words(seed, epoch, block, int(rows))
            for k, row in enumerate(np.argsort(words, kind="stable")):
                samples.append(((k + stratum) / rows, place, start + row))
        ids, places = order._mix(epoch, index)
        assert [(p, i) for _, p, i in sorted(samples)] == list(zip(places, ids, strict=True))


def row_words(seed, epoch, block, count):
    """The random words by which the rows of a block are sorted."""
    words = np.arange(-(-count // 4), dtype=np.uint64)
    other = [np.full_like(words, value) for value in (block, epoch, ROWS)]
    return np.stack(rounds((words, *other), key_of(seed)), axis=-1).reshape(-1)[:count]


def test_equal_keys_go_by_place():
    one = np.array([7, 8]), np.array([0.25, 0.75]), np.array([3, 3], np.uint16)
    other = np.array([5, 6]), np.array([0.25, 0.5]), np.array([1, 1], np.uint16)
    ids, places = _merged([one, other])
    assert ids.tolist() == [5, 7, 6, 8]
    assert places.tolist() == [1, 3, 1, 3]


@pytest.mark.parametrize("name", ["window", "full"])
def test_epochs_and_seeds_give_different_orders(name):
    blocks = Blocks([Extent(0, 0, 1000, 50)])
    course = Course(1000, 1000)
    firsts = []
    for seed in (0, 1):
        order = make_order(name, blocks, seed, 4)
        # one batch of all samples is cut in block order: compare the draws batch by batch
        course = Course(1000, 100)
        firsts += [tuple(epoch_ids(order, course, epoch)[0].tolist()) for epoch in (0, 1)]
    assert len(set(firsts)) == 4


def test_sampling_is_stratified_over_the_blocks_of_the_window():
    blocks = Blocks([Extent(0, 0, 64 * 32, 32)])
    order = make_order("window", blocks, 5, 16)
    course = Course(blocks.num_samples, 64)
    for ids in epoch_ids(order, course):
        drawn = np.bincount(ids // 32, minlength=64)
        assert np.count_nonzero(drawn) == 16
        assert drawn[drawn > 0].min() >= 3
        assert drawn.max() <= 5


def test_a_rank_reads_each_block_of_its_part_once():
    blocks = Blocks([Extent(0, 0, 128 * 64, 64)])
    order = make_order("window", blocks, 5, 32)
    course = Course(blocks.num_samples, 256)
    plan = Plan((64, 64, 64, 64))
    reads = 0
    for rank in range(4):
        held: dict[int, None] = {}
        for number in range(course.per_epoch):
            work = plan.work(course.batch(number), rank)
            ids = order.ids(course.batch(number))[work.start : work.stop]
            for block in np.unique(ids // 64).tolist():
                reads += block not in held
                held.pop(block, None)
                held[block] = None
                while len(held) > 10:  # a quarter of a window, and a little
                    held.pop(next(iter(held)))
    assert reads <= 1.02 * len(blocks)


def test_golden_order():
    """What version 1 gives may never change: checkpoints in the middle of an epoch depend on it."""
    assert VERSION == 1
    blocks = Blocks([Extent(0, 0, 10, 4), Extent(1, 2, 9, 4)])
    got = {name: epoch_ids(make_order(name, blocks, 11, 2), Course(17, 6), 1) for name in ORDERS}
    assert {name: [ids.tolist() for ids in batches] for name, batches in got.items()} == GOLDEN
    big = Permutation(10**6, 3, 1, 2)
    assert big.forward(np.array([0, 1, 999_999])).tolist() == GOLDEN_FEISTEL


GOLDEN = {
    "full": [[0, 1, 8, 10, 15, 16], [3, 5, 7, 9, 13, 14], [2, 4, 6, 11, 12]],
    "none": [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16]],
    "window": [[1, 0, 3, 2, 8, 9], [14, 13, 12, 4, 6, 5], [15, 11, 10, 7, 16]],
}
GOLDEN_FEISTEL = [394678, 626722, 780415]


@given(
    size=st.one_of(st.integers(1, 300), st.integers(TABLE_LIMIT + 1, 10**12)),
    seed=st.integers(0, 2**64 - 1),
    instance=st.integers(0, 2**31),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_permutations_are_undone_by_their_inverse(size, seed, instance, data):
    permutation = Permutation(size, seed, 1, instance)
    elements = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    images = permutation.forward(elements)
    assert images.min() >= 0
    assert images.max() < size
    assert permutation.inverse(images).tolist() == elements.tolist()


def test_a_large_permutation_is_one_and_looks_random():
    size = TABLE_LIMIT + 12_345
    images = Permutation(size, 9, 1, 0).forward(np.arange(size))
    assert np.array_equal(np.sort(images), np.arange(size))
    assert abs(np.corrcoef(images, np.arange(size))[0, 1]) < 0.02
    assert abs(np.corrcoef(images[1:], images[:-1])[0, 1]) < 0.02


def test_a_billion_samples_materialise_no_more_than_a_window():
    blocks = Blocks([Extent(i, 0, 10**6 + 7, 100) for i in range(1000)])
    order = make_order("window", blocks, 1, 64)
    course = Course(blocks.num_samples, 4096)
    begun = time.perf_counter()
    ids = order.ids(course.batch(course.per_epoch // 2))
    assert len(ids) == 4096
    assert len(np.unique(ids)) == 4096
    assert time.perf_counter() - begun < 5  # not a benchmark: a listing of all would take minutes


def test_the_automatic_window_is_bounded():
    small = Blocks([Extent(0, 0, 100, 10)])
    assert auto_window(small, 32, 10) == 10
    many = Blocks([Extent(0, 0, 10**7, 1)])
    assert auto_window(many, 32, 10) == 8192
    huge = Blocks([Extent(0, 0, 10**6, 1000)])
    assert auto_window(huge, 32, 10**6) == 4


def test_unknown_orders_are_named():
    with pytest.raises(UsageError, match="known: full, none, window"):
        make_order("windows", Blocks([Extent(0, 0, 4, 2)]), 0, 1)


@pytest.mark.parametrize(("window", "most"), [(64, 9.1), (128, 6.8), (256, 5.4), (512, 5.1)])
def test_windows_mix_sorted_classes_as_well_as_the_readme_says(window, most):
    blocks, course = Blocks([Extent(0, 0, 100_000, 64)]), Course(100_000, 256)
    order = make_order("window", blocks, 0, window)
    batches = [order.ids(course.batch(number)) // 10_000 for number in range(390)]
    batches += [order.ids(course.batch(391 + number)) // 10_000 for number in range(390)]
    counts = np.array([np.bincount(batch, minlength=10) for batch in batches])
    assert np.std(counts - 25.6) == pytest.approx(most, abs=0.1)
