"""Who has less than a core of its own, as a pure function of what ranks tell."""

from types import SimpleNamespace

import pytest

from hpc_train.comm import gate as module
from hpc_train.comm.gate import Gate, Seat, is_tight, own_cpus


class Clock:
    """A communicator whose ranks are all there a given time after this one has come."""

    def __init__(self, rank):
        self.now, self.until = 0.0, 0.0
        self.Get_rank = lambda: rank
        self.Ibarrier, self.Test, self.Wait = self.meet, self.is_over, self.wait

    def sleep(self, seconds):
        self.now += seconds

    def meet(self):
        self.until = self.now + self.seconds
        return self

    def is_over(self):
        return self.now >= self.until

    def wait(self):
        self.spun = max(0.0, self.until - self.now)
        self.now = max(self.now, self.until)


@pytest.fixture
def passing(monkeypatch):
    """Seconds until all are there, and counts -> seconds spent beyond them, and spinning."""

    def make(rank, cores=8):
        clock = Clock(rank)
        gate = Gate(clock, [Seat("a", range(cores))] * 2)
        time = SimpleNamespace(sleep=clock.sleep, perf_counter=lambda: clock.now)
        monkeypatch.setattr(module, "time", time)

        def cross(seconds, counts):
            clock.seconds, clock.spun, began = seconds, 0.0, clock.now
            gate.pass_together(counts)
            return clock.now - began - seconds, clock.spun

        return cross

    return make


def test_an_idle_rank_sleeps_for_most_of_the_time_that_it_waits(passing):
    cross = passing(1)
    for _ in range(8):
        assert cross(0.02, [64, 0]) == pytest.approx((0.0, 0.02))  # it learns
    assert cross(0.02, [64, 0]) == pytest.approx((0.0, 0.005))
    assert cross(0.01, [64, 0]) == pytest.approx((0.005, 0.0))  # steps got shorter: late once
    for _ in range(8):
        assert cross(0.01, [64, 0]) == pytest.approx((0.0, 0.01))
    assert cross(0.01, [64, 0]) == pytest.approx((0.0, 0.003))


def test_a_rank_that_is_needed_at_once_does_not_sleep(passing):
    cross = passing(1)
    for _ in range(8):
        cross(0.02, [64, 0])
    assert cross(0.0, [64, 0]) == (0.0, 0.0)
    assert cross(0.001, [64, 0]) == pytest.approx((0.0, 0.001))


def test_what_an_idle_rank_knew_is_forgotten_when_it_computes(passing):
    cross = passing(1)
    for _ in range(8):
        cross(0.02, [64, 0])
    cross(0.0, [63, 1])
    assert cross(0.005, [64, 0]) == pytest.approx((0.0, 0.005))


def test_a_rank_that_computes_spins_for_others_on_cores_of_its_own(passing):
    cross = passing(0)
    assert cross(0.02, [64, 0]) == pytest.approx((0.0, 0.02))
    assert cross(0.02, [32, 32])[0] == -0.02  # nobody is idle: no meeting here
    late, spun = passing(0, cores=1)(0.02, [32, 32])
    assert spun == 0.0
    assert 0.0 <= late <= 0.003


def test_ranks_with_cores_of_their_own_are_not_tight():
    assert not is_tight([Seat("a", range(4))] * 4 + [Seat("b", range(2))] * 2)
    assert not is_tight([Seat("a", range(2), 2.0, "/g")])
    assert not is_tight([Seat("a", [core]) for core in range(4)])  # bound, one core each


def test_more_ranks_than_cores_on_any_node_are_tight():
    assert is_tight([Seat("a", range(4))] * 4 + [Seat("b", range(2))] * 3)
    assert is_tight([Seat("a", [0]), Seat("a", [1]), Seat("a", [1])])  # bound, two to one core


def test_a_quota_below_the_cores_is_tight():
    assert is_tight([Seat("a", range(2)), Seat("a", range(2), 0.5, "/g")])


def test_a_quota_counts_only_for_a_rank_that_has_it_alone():
    alone = [Seat("a", range(2)), Seat("a", range(2), 0.5, "/g"), Seat("b", range(2), 0.5, "/g")]
    assert [own_cpus(alone, rank) for rank in range(3)] == [None, 0.5, 0.5]
    shared = [Seat("a", range(4), 2.0, "/g"), Seat("a", range(4), 2.0, "/g")]
    assert own_cpus(shared, 0) is None
    assert own_cpus([Seat("a", range(2), 2.0, "/g")], 0) is None  # as much as all of its cores
