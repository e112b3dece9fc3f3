"""Reading ahead, decided: in order, within the budget, never stuck; and the cache it relies on."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.data.agenda import Agenda
from hpc_train.data.cache import Block, Cache

keys = st.tuples(st.just(0), st.integers(0, 9))
SIZE = 10  # bytes of every block here


class Bench:
    """Readers that finish tasks in any order, and a trainer, without threads."""

    def __init__(self, needs, capacity, depth):
        self.needs, self.depth = needs, depth
        self.cache = Cache(capacity)
        self.agenda = Agenda(depth, self.cache.has_room, self.cache.is_wanted, lambda _: SIZE)
        self.running, self.fetched, self.gathered, self.loads = [], [], [], 0
        self.taken = 0

    def load(self, key):
        if key not in self.cache:
            self.loads += 1
            self.cache.put(key, Block({}, SIZE, {}))

    def finish(self, task):
        if task.kind == "fetch":
            self.load(task.key)
            self.agenda.fetched(task.key)
            self.fetched.append(task.key)
        elif task.kind == "gather":
            for key in self.needs[task.number]:
                self.load(key)
            self.cache.unwant(self.agenda.gathered(task.number))
            self.gathered.append(task.number)
        elif task.number == len(self.needs):
            self.agenda.exhausted()
        else:
            blocks = set(self.needs[task.number])
            self.cache.want(blocks)
            missing = [key for key in sorted(blocks) if key not in self.cache]
            self.agenda.looked_up(blocks, missing, 1)

    def run(self, data, num_readers):
        """Until everything was taken; the test ends if nothing can happen."""
        while self.taken < len(self.needs):
            while len(self.running) < num_readers and (task := self.agenda.next()):
                self.running.append(task)
            can_take = self.taken in self.gathered
            assert self.running or can_take, "stuck"
            if can_take and (not self.running or data.draw(st.booleans())):
                self.taken += 1
                self.agenda.taken()
            else:
                self.finish(self.running.pop(data.draw(st.integers(0, len(self.running) - 1))))
            assert len(self.gathered) - self.taken <= self.depth
            assert self.cache._held_bytes <= self.cache.capacity


@given(
    data=st.data(),
    needs=st.lists(st.sets(keys, max_size=5), max_size=12),
    capacity=st.integers(0, 12).map(lambda blocks: blocks * SIZE),
    depth=st.integers(1, 3),
    num_readers=st.integers(1, 3),
)
def test_everything_is_gathered_once_whatever_the_budget_and_timing(
    data, needs, capacity, depth, num_readers
):
    bench = Bench(needs, capacity, depth)
    bench.run(data, num_readers)
    assert sorted(bench.gathered) == list(range(len(needs)))
    # nothing that the budget could hold is read twice
    if capacity >= 10 * SIZE:
        assert bench.loads == len(set().union(*needs))


@given(data=st.data(), needs=st.lists(st.sets(keys, min_size=1, max_size=5), max_size=12))
def test_blocks_are_fetched_in_the_order_of_first_use(data, needs):
    bench = Bench(needs, 10 * SIZE, 2)
    bench.run(data, 1)
    first_use = {key: n for n, blocks in reversed(list(enumerate(needs))) for key in blocks}
    assert all(first_use[a] <= first_use[b] for a, b in pairwise(bench.fetched))
    assert set(bench.fetched) == set(first_use)


def test_a_window_is_fetched_while_the_one_before_is_used():
    windows = [{(0, n) for n in range(3)}] * 8 + [{(0, n) for n in range(3, 6)}] * 8
    bench = Bench(windows, 6 * SIZE, 2)
    while task := bench.agenda.next():
        bench.finish(task)
    assert bench.gathered == [0, 1]
    assert bench.fetched == [(0, n) for n in range(6)]


@pytest.mark.parametrize("num_readers", [1, 2, 3])
@given(data=st.data())
def test_a_budget_of_one_window_is_enough_to_read_each_block_once(num_readers, data):
    needs = [{(0, n + 3 * window) for n in range(3)} for window in range(3) for _ in range(4)]
    bench = Bench(needs, 3 * SIZE, 2)
    bench.run(data, num_readers)
    assert bench.loads == 9


def test_a_batch_larger_than_the_budget_is_gathered_all_the_same():
    bench = Bench([{(0, n) for n in range(5)}], 2 * SIZE, 1)
    while task := bench.agenda.next():
        bench.finish(task)
    assert bench.gathered == [0]
    assert bench.loads == 5


def cached(capacity, *numbers):
    cache = Cache(capacity * SIZE)
    for number in numbers:
        cache.put((0, number), Block({}, SIZE, {}))
    return cache


def held(cache):
    return [n for n in range(10) if (0, n) in cache]


def test_the_block_unused_for_longest_goes_first():
    cache = cached(3, 1, 2, 3)
    cache.get((0, 1))
    cache.put((0, 4), Block({}, SIZE, {}))
    assert held(cache) == [1, 3, 4]


def test_what_is_wanted_stays_and_a_block_without_room_is_not_kept():
    cache = cached(2, 1, 2)
    cache.want([(0, 1), (0, 2)])
    assert not cache.has_room(1)
    cache.put((0, 3), Block({}, SIZE, {}))
    assert held(cache) == [1, 2]
    cache.unwant([(0, 1)])
    cache.put((0, 3), Block({}, SIZE, {}))
    assert held(cache) == [2, 3]


@pytest.mark.parametrize("first", ["want", "put"])
def test_wanting_counts_whether_it_comes_before_the_block_or_after(first):
    cache = cached(1)
    actions = {"want": lambda: cache.want([(0, 1)]), "put": lambda: cache.put((0, 1), BLOCK)}
    for name in sorted(actions, key=lambda name: name != first):
        actions[name]()
    assert not cache.has_room(SIZE)
    cache.unwant([(0, 1)])
    assert cache.has_room(SIZE)
    cache.clear()
    assert held(cache) == []


BLOCK = Block({}, SIZE, {})


def test_a_new_forecast_of_what_is_in_memory_is_looked_up_little_by_little():
    agenda = Agenda(2, lambda _: True, lambda _: True, lambda _: SIZE)
    numbers = []
    for taken in range(30):
        while (task := agenda.next()) is not None:
            if task.kind == "gather":
                agenda.gathered(task.number)
            else:
                numbers.append(task.number)
                agenda.looked_up([(0, task.number)], [], 1)
        assert len(numbers) <= 2 + 1 + 1.25 * (taken + 1)
        agenda.taken()
    assert len(numbers) > 36
