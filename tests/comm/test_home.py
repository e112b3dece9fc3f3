"""Each rank's part of its node's cores: disjoint, and left alone where others are busy there."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.comm.home import Home, home_of, homes


@given(st.sets(st.integers(0, 200), min_size=2, max_size=40), st.data())
def test_all_cores_are_shared_out_and_none_twice(cores, data):
    ranks = data.draw(st.integers(2, len(cores)))
    parts = homes([sorted(cores)] * ranks)
    assert sorted(core for part in parts for core in part) == sorted(cores)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@pytest.mark.parametrize("cores", [[[0, 1]], [[0], [1]], [[0, 1], [0, 1], [0, 1]], [[0, 1], [0]]])
def test_nothing_is_shared_out_where_nothing_is_common_or_too_little(cores):
    assert homes(cores) is None


class Kernel:
    """Where a thread is, and how often it was moved."""

    def __init__(self, core):
        self.core = core
        self.moves = 0

    def move(self, cores):
        self.core = min(cores)
        self.moves += 1


def test_who_is_elsewhere_comes_home_and_who_is_there_stays():
    kernel = Kernel(5)
    home = Home(frozenset({2, 3}), lambda: kernel.core, kernel.move)
    home.come()
    assert (kernel.core, kernel.moves) == (2, 1)
    home.come()
    kernel.core = 3
    home.come()
    assert kernel.moves == 1
    kernel.core = 0
    home.come()
    assert (kernel.core, kernel.moves) == (2, 2)


def test_who_is_driven_out_again_and_again_stays_away_for_longer():
    kernel = Kernel(5)
    home = Home(frozenset({2}), lambda: kernel.core, kernel.move)
    for _ in range(1000):
        home.come()
        kernel.core = 5  # something is busy at home
    assert kernel.moves <= 12
    kernel.core = 2
    for _ in range(300):
        home.come()
    kernel.core = 5
    home.come()
    assert kernel.core == 2


def test_a_thread_that_may_not_be_moved_stays():
    def refuse(cores):
        raise PermissionError

    Home(frozenset({2}), lambda: 5, refuse).come()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_thread_is_moved_and_may_go_anywhere_afterwards():
    cores = sorted(os.sched_getaffinity(0))
    found = []

    def act():
        os.sched_setaffinity(0, {cores[0]})
        os.sched_setaffinity(0, set(cores))
        home = home_of([cores, cores], 1)
        found.append(home._current())
        home.come()
        found.append(home._current())
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert found[0] in cores
    assert found[1] in homes([cores, cores])[1]
    assert found[2] == set(cores)
