"""Who has less than a core of its own, as a pure function of what ranks tell."""

from types import SimpleNamespace

import pytest

from hpc_train.comm import gate as module
from hpc_train.comm.gate import Gate, Seat, is_tight, own_cpus
from hpc_train.comm.yielding import Yielding

HOME = SimpleNamespace(come=lambda: None, leave=lambda: None)  # no thread is moved
NAP = 50e-6  # of a rank that looks for the others


class Clock:
    """A communicator whose ranks are all there a given time after this one has come."""

    def __init__(self, rank):
        self.now, self.until, self.naps = 0.0, 0.0, 0
        self.Get_rank = lambda: rank
        self.Ibarrier, self.Test, self.Wait = self.meet, self.is_over, self.wait

    def sleep(self, seconds):
        self.now += seconds
        self.naps += 1

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
    """Seconds until all are there, and counts -> seconds beyond them, spun, and number of naps."""

    def make(rank, cores=8, yielding=None):
        clock = Clock(rank)
        gate = Gate(clock, [Seat("a", range(cores))] * 2, yielding, HOME)
        time = SimpleNamespace(sleep=clock.sleep, perf_counter=lambda: clock.now)
        monkeypatch.setattr(module, "time", time)

        def cross(seconds, counts):
            clock.seconds, clock.spun, clock.naps, began = seconds, 0.0, 0, clock.now
            gate.pass_together(counts)
            return clock.now - began - seconds, clock.spun, clock.naps

        return cross

    return make


def looked(found, seconds):
    """Whether a rank looked for the others between naps for `seconds`, and was hardly late."""
    late, spun, naps = found
    return -1e-9 <= late <= NAP and spun == 0.0 and abs(naps - seconds / NAP) <= 2


def test_an_idle_rank_sleeps_for_most_of_the_time_that_it_waits(passing):
    cross = passing(1)
    for _ in range(8):
        assert looked(cross(0.02, [64, 0]), 0.02)  # it learns
    assert looked(cross(0.02, [64, 0]), 0.005)
    late, spun, naps = cross(0.01, [64, 0])  # steps got shorter: late once
    assert (late, spun, naps) == (pytest.approx(0.005, abs=NAP), 0.0, 1)
    for _ in range(8):
        assert looked(cross(0.01, [64, 0]), 0.01)
    assert looked(cross(0.01, [64, 0]), 0.003)


def test_a_rank_that_is_needed_at_once_does_not_sleep(passing):
    cross = passing(1)
    for _ in range(8):
        cross(0.02, [64, 0])
    assert cross(0.0, [64, 0]) == (0.0, 0.0, 0)
    assert looked(cross(0.001, [64, 0]), 0.001)


def test_what_an_idle_rank_knew_is_forgotten_when_it_computes(passing):
    cross = passing(1)
    for _ in range(8):
        cross(0.02, [64, 0])
    cross(0.0, [63, 1])
    assert looked(cross(0.005, [64, 0]), 0.005)


def test_a_rank_that_computes_spins_for_an_idle_one_only_where_mpi_yields(passing):
    late, spun, naps = passing(0, yielding=Yielding(lambda wanted: False))(0.02, [64, 0])
    assert (late, spun, naps) == (0.0, pytest.approx(0.02), 0)
    assert looked(passing(0)(0.02, [64, 0]), 0.02)


def test_ranks_that_compute_do_not_meet_unless_they_are_short_of_cores(passing):
    assert passing(0)(0.02, [32, 32]) == (-0.02, 0.0, 0)
    late, spun, _ = passing(0, cores=1)(0.02, [32, 32])
    assert spun == 0.0
    assert 0.0 <= late <= 0.003


def test_who_computes_stays_at_home_as_long_as_ranks_wait_asleep():
    calls = []
    home = SimpleNamespace(come=lambda: calls.append("come"), leave=lambda: calls.append("leave"))
    here = SimpleNamespace(Get_rank=lambda: 0, Ibarrier=lambda: here, Test=lambda: True)
    gate = Gate(here, [Seat("a", range(8))] * 2, None, home)
    for counts in ([64, 0], [0, 64], [32, 32]):
        gate.pass_together(counts)
    gate.leave()
    assert calls == ["come", "leave", "leave"]


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
