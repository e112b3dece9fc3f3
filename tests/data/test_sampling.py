"""Sampling by weight and epochs of any length: exact counts, every epoch drawn anew, no state."""

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpc_train.data.blocks import Blocks, Extent
from hpc_train.data.order import ORDERS, make_order
from hpc_train.data.order.weighted import comb
from hpc_train.data.weights import balancing, stated
from hpc_train.errors import DataError
from hpc_train.plan import Batch, Course
from tests.data.test_order import epoch_ids, extents
from tests.data.test_routes import one_shard

BLOCKS = Blocks([Extent(0, 0, 90, 8), Extent(1, 3, 40, 8)])


def epoch(order, length, number=0, batch_size=16):
    return np.concatenate(epoch_ids(order, Course(length, batch_size), number))


@settings(max_examples=80, deadline=None)
@example(weights=[1.0], length=1, shift=0.9999999999999999)
@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=40).filter(lambda w: sum(w) > 1e-3),
    length=st.integers(1, 300),
    shift=st.floats(0, 1, exclude_max=True),
)
def test_uses_are_the_expected_ones_rounded_up_or_down(weights, length, shift):
    weights = np.array(weights)
    uses = comb(weights, length, shift)
    assert uses.sum() == length
    expected = weights / weights.sum() * length
    assert (np.abs(uses - expected) < 1 + 1e-6).all()
    assert (uses[weights == 0] == 0).all()


def test_uses_are_right_on_average():
    weights = np.random.default_rng(0).random(BLOCKS.num_samples)
    order = make_order("window", BLOCKS, 3, 4, weights=weights, length=50)
    found = sum(np.bincount(epoch(order, 50, e), minlength=weights.size) for e in range(400)) / 400
    expected = weights / weights.sum() * 50
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected.max() / 400)
    assert not np.array_equal(np.sort(epoch(order, 50, 0)), np.sort(epoch(order, 50, 1)))


@settings(max_examples=40, deadline=None)
@given(
    extents=extents,
    name=st.sampled_from(sorted(ORDERS)),
    length=st.integers(1, 200),
    batch_size=st.integers(1, 70),
    by_weight=st.booleans(),
)
def test_an_epoch_is_the_same_however_it_is_asked_for(extents, name, length, batch_size, by_weight):
    blocks = Blocks(extents)
    weights = np.arange(1.0, blocks.num_samples + 1) if by_weight else None

    def order():
        return make_order(name, blocks, 7, 3, length=length, weights=weights)

    one = order()
    course = Course(length, batch_size)
    there = [one.ids(course.batch(n)) for n in range(3 * course.per_epoch)]
    for number in reversed(range(3 * course.per_epoch)):  # a fresh order, in the middle
        assert np.array_equal(order().ids(course.batch(number)), there[number])
    for ids in there:
        assert set(ids.tolist()) <= set(range(blocks.num_samples))
    assert sum(map(len, there)) == 3 * length


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("length", [10, 127, 400])
def test_epochs_of_any_length_use_all_samples_equally_often(name, length):
    order = make_order(name, BLOCKS, 1, 4, length=length)
    uses = np.zeros(BLOCKS.num_samples, int)
    for number in range(7):
        uses += np.bincount(epoch(order, length, number), minlength=BLOCKS.num_samples)
        assert uses.max() - uses.min() <= 1


def test_epochs_that_are_as_long_as_the_data_are_the_ones_without_a_length():
    size = BLOCKS.num_samples
    one, other = make_order("window", BLOCKS, 1, 4, length=size), make_order("window", BLOCKS, 1, 4)
    assert np.array_equal(epoch(one, size, 2), epoch(other, size, 2))


def test_what_is_drawn_from_a_block_stays_together():
    weights = np.ones(BLOCKS.num_samples)
    weights[:8] = 30  # one block, a third of all
    ids = make_order("window", BLOCKS, 1, 3, weights=weights).ids(Batch(0, 0, 0, 20))
    assert len(np.unique(ids // 8)) <= 3 * 2  # a window, blocks of two shards apart


def test_classes_are_balanced(tmp_path):
    dataset = one_shard(_rare(tmp_path / "rare.h5"), "y")
    weights = balancing(dataset, "y")
    order = make_order("window", dataset.blocks(), 0, 4, weights=weights, length=90)
    for number in range(5):
        classes = _labels()[epoch(order, 90, number)]
        assert (
            np.abs(np.bincount(classes)[[0, 3, 8]] - 30).max() <= 3
        )  # of 90; unweighted: 85, 2, 3


def _labels():
    return np.array([0] * 95 + [3] * 2 + [8] * 3)[np.random.default_rng(0).permutation(100)]


def _rare(path):
    with h5py.File(path, "w") as file:
        file["y"] = _labels()
        file["w"] = np.where(_labels() == 3, 2.0, 0.5)
        file["bad"] = np.where(_labels() == 3, np.nan, 1.0)
        file["none"] = np.zeros(100)
    return path


def test_weights_are_read_and_checked(tmp_path):
    path = _rare(tmp_path / "x.h5")
    assert np.array_equal(stated(one_shard(path, "w"), "w"), np.where(_labels() == 3, 2.0, 0.5))
    with pytest.raises(DataError, match=r"finite and >= 0 \(sample \d+: nan\)"):
        stated(one_shard(path, "bad"), "bad")
    with pytest.raises(DataError, match="some weight must be positive"):
        stated(one_shard(path, "none"), "none")
