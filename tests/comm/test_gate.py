"""Who has less than a core of its own, as a pure function of what ranks tell."""

from hpc_train.comm.gate import Seat, is_tight, own_cpus


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
