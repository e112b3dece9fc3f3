"""Each rank's part of its node's cores: disjoint, and left where others are busy there."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train import cores as module
from hpc_train.comm.home import Home, home_of, homes
from hpc_train.cores import roam, stay, usable_cores

SECOND = 10**9


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
    assert home_of(cores, 0, None) is None


class Kernel:
    """Where a thread may run, and for how long it has run and waited."""

    def __init__(self):
        self.ran = self.waited = 0
        self.is_home = False
        self.moves = 0

    def stay(self, cores):
        assert cores == {2}
        self.is_home = True
        self.moves += 1

    def roam(self):
        self.is_home = False

    def step(self, home, part):
        """A second, of which it runs for `part`."""
        self.ran += int(part * SECOND)
        self.waited += int((1 - part) * SECOND)
        home.come()
        return self.is_home


def home_in(kernel, due=1.0):
    return Home(frozenset({2}), due, lambda: (kernel.ran, kernel.waited), kernel.stay, kernel.roam)


def test_who_gets_what_it_is_due_stays():
    kernel = Kernel()
    home = home_in(kernel)
    assert all(kernel.step(home, 0.9) for _ in range(100))
    assert kernel.moves == 1
    home.leave()
    assert not kernel.is_home
    assert kernel.step(home, 0.9)


def test_a_quota_is_no_neighbour():
    kernel = Kernel()
    home = home_in(kernel, due=1 / 3)
    assert all(kernel.step(home, 0.32) for _ in range(100))
    assert not kernel.step(home, 0.2)


def test_who_is_driven_out_again_and_again_stays_away_for_longer():
    kernel = Kernel()
    home = home_in(kernel)
    there = [kernel.step(home, 0.5 if kernel.is_home else 1.0) for _ in range(5000)]
    assert kernel.moves <= 9
    assert sum(there) <= 9
    for _ in range(5000):
        kernel.step(home, 1.0)
    assert kernel.is_home
    assert not kernel.step(home, 0.5)
    assert [kernel.step(home, 1.0) for _ in range(34)][-1]  # not long this time


def test_a_thread_that_may_not_be_moved_roams():
    asked = []

    def refuse(cores):
        asked.append(cores)
        raise PermissionError

    home = Home(frozenset({2}), 1.0, lambda: (0, 0), refuse, lambda: asked.append("roams"))
    for _ in range(100):
        home.come()
    home.leave()
    assert asked == [{2}]  # once, and it was never tied down


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_thread_stays_and_those_that_it_starts_may_roam(monkeypatch):
    monkeypatch.setattr(module, "_usable", None)
    cores = usable_cores()
    found = {}

    def look():
        found["inherited"] = os.sched_getaffinity(0)
        roam()
        found["roaming"] = os.sched_getaffinity(0)

    def act():
        home = home_of([cores, cores], 1, None)
        home.come()
        found["home"] = os.sched_getaffinity(0)
        found["usable"] = usable_cores()
        other = threading.Thread(target=look)
        other.start()
        other.join()
        home.come()
        home.leave()
        found["left"] = os.sched_getaffinity(0)

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    part = homes([cores, cores])[1]
    assert found["home"] == found["inherited"] == part
    assert found["usable"] == cores
    assert found["roaming"] == found["left"] == set(cores)


def test_staying_where_nobody_may_be_is_refused():
    with pytest.raises(OSError, match="Invalid argument"):
        stay([4000])
