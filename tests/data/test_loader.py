"""The loader: right whatever was foretold, errors arrive, threads are joined."""

import threading
import time

import numpy as np
import pytest

from hpc_train.data import agenda
from hpc_train.data.loader import Loader, batch_memory
from hpc_train.data.order import make_order
from hpc_train.data.read import delivered_hash
from hpc_train.errors import DataError
from hpc_train.plan import Course, Plan
from tests.data.files import make_dataset, rows_of


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path, [20, 13])


@pytest.fixture
def loader(dataset):
    order = make_order("window", dataset.blocks(), 1, 4)
    with Loader(dataset, order, ["x", "y"], prefetch_batches=2, cache_bytes=200) as loader:
        yield loader
    assert readers() == []


def readers():
    """The reader threads that are alive."""
    return [t for t in threading.enumerate() if t.name == "hpc_train-reader"]


def works(plan, rank, batch_size=8, stop=10):
    course = Course(33, batch_size)
    return [plan.work(batch, rank) for batch in course.batches(0, stop)]


def check(loader, work, samples):
    """`samples` are those of `work`, and their digest is theirs."""
    expected = loader.read(work)
    assert samples.ids.tolist() == expected.ids.tolist()
    assert np.array_equal(samples.arrays["x"], rows_of(0, 33)["x"][samples.ids])
    assert np.array_equal(samples.arrays["y"], samples.ids % 7)
    assert samples.digest == delivered_hash(samples.ids, samples.arrays)


def test_a_right_forecast_gives_each_work_in_turn(loader):
    wanted = works(Plan((5, 3)), 0)
    loader.follow(iter(wanted))
    for work in wanted:
        check(loader, work, loader.get(work))


def test_what_is_read_ahead_is_bounded(dataset, monkeypatch):
    monkeypatch.setattr(agenda, "HORIZON_WORKS", 5)
    asked = []

    def forecast():
        for work in works(Plan((8,)), 0):
            asked.append(work)
            yield work

    with Loader(
        dataset, make_order("none", dataset.blocks(), 0, 1), ["x"], prefetch_batches=2
    ) as loader:
        loader.follow(forecast())
        deadline = time.monotonic() + 5
        while len(asked) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(asked) == 5  # looked up; only two of them are gathered
        assert len(loader._ahead._ready) == 2


def test_every_batch_of_long_steps_wakes_a_reader_and_every_other_one_of_short_ones(dataset):
    order = make_order("none", dataset.blocks(), 0, 1)
    wanted = works(Plan((4,)), 0, batch_size=4, stop=60)
    with Loader(dataset, order, ["x"], prefetch_batches=4) as loader:
        loader.follow(iter(wanted))

        def ready(number):
            deadline = time.monotonic() + 5
            while len(loader._ahead._ready) != number and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
            return len(loader._ahead._ready)

        for work in wanted[:3]:
            assert ready(4) == 4
            loader.get(work)
        assert ready(4) == 4
        for left, work in zip((3, 4), wanted[3:5], strict=True):
            loader._ahead._taken_at = time.perf_counter()  # as if the last step were short
            loader.get(work)
            assert ready(left) == left


def test_a_wrong_forecast_costs_time_and_never_correctness(loader):
    loader.follow(iter(works(Plan((5, 3)), 0)))
    for work in works(Plan((1, 7)), 0):
        check(loader, work, loader.get(work))


def test_a_forecast_that_ends_early_is_read_on(loader):
    wanted = works(Plan((8,)), 0, stop=4)
    loader.follow(iter(wanted[:2]))
    for work in wanted:
        check(loader, work, loader.get(work))


def test_a_changed_forecast_takes_the_place_of_the_earlier(loader):
    before, after = works(Plan((5, 3)), 1), works(Plan((2, 6)), 1)
    loader.follow(iter(before))
    check(loader, before[0], loader.get(before[0]))
    loader.follow(iter(after[1:]))
    for work in after[1:]:
        check(loader, work, loader.get(work))
    assert len(readers()) <= 2  # those of the earlier forecast have ended


def test_without_a_forecast_work_is_read_at_once(loader):
    for work in works(Plan((4, 4)), 1, stop=3):
        check(loader, work, loader.get(work))


def test_a_rank_that_sits_out_gets_no_samples(loader):
    wanted = works(Plan((0, 8)), 0, stop=3)
    loader.follow(iter(wanted))
    for work in wanted:
        samples = loader.get(work)
        assert (len(samples.ids), samples.digest) == (0, 0)
        assert samples.arrays["x"].shape == (0, 3)


@pytest.mark.parametrize("foretold", [True, False])
def test_an_error_of_reading_arrives_at_get(loader, dataset, foretold):
    wanted = works(Plan((8,)), 0)
    dataset.path(1).unlink()
    if foretold:
        loader.follow(iter(wanted))
    with pytest.raises(DataError, match="cannot read rows"):
        list(map(loader.get, wanted))
    assert readers() == []


@pytest.mark.parametrize("num_readers", [1, 2, 5])
def test_closing_in_the_middle_joins_the_threads(dataset, num_readers):
    order = make_order("full", dataset.blocks(), 0, 1)
    loader = Loader(dataset, order, ["x"], prefetch_batches=1, num_readers=num_readers)
    loader.follow(iter(works(Plan((8,)), 0)))
    assert len(readers()) == num_readers
    loader.close()
    assert readers() == []
    loader.close()  # twice is as good as once


@pytest.mark.parametrize("shape", [(3, 5), (2**10, 2**9 + 1), (0, 4)])
def test_memory_of_batches_can_be_written_to_whatever_its_size(shape):
    array = batch_memory(shape, np.dtype("<i4"))
    assert array.shape == shape
    assert array.dtype == np.int32
    array[:] = 7
    assert array.sum() == 7 * array.size


def test_a_batch_keeps_its_bytes_until_the_next_get(loader):
    wanted = works(Plan((8,)), 0)
    loader.follow(iter(wanted))
    for work in wanted:
        samples = loader.get(work)
        time.sleep(0.002)  # the thread reads on meanwhile
        assert delivered_hash(samples.ids, samples.arrays) == samples.digest
