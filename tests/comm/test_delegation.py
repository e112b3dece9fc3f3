"""Who makes the sums of ranks that are short of CPU time, as a function of what ranks tell."""

from hpc_train.comm.delegation import delegates_of
from hpc_train.comm.gate import Seat

FREE = Seat("a", range(4))


def limited(cpus, group="/own", node="a"):
    return Seat(node, range(4), cpus, group)


def test_ranks_with_a_core_make_the_sums_of_those_without():
    assert delegates_of([FREE, limited(0.3), FREE, limited(0.9, "/other")]) == [0, 2]
    assert delegates_of([limited(0.3), limited(1.5, "/wide")]) == [1]


def test_a_quota_that_ranks_share_makes_none_of_them_short():
    assert delegates_of([limited(0.9, "/both"), limited(0.9, "/both"), FREE]) == []
    assert delegates_of([limited(2.0, "/both"), limited(2.0, "/both"), limited(0.5)]) == [0, 1]
    assert delegates_of([limited(0.8, "/both"), limited(0.8, "/both"), limited(0.9)]) == []


def test_nobody_delegates_to_few_that_could_not_bear_it():
    many = [limited(0.9, f"/{rank}") for rank in range(3)]
    assert delegates_of([FREE, *many]) == []
    assert delegates_of([FREE, FREE, FREE, *many]) == [0, 1, 2]
    assert delegates_of([limited(0.9, "/both"), limited(0.9, "/both"), *many[:2]]) == []


def test_nobody_delegates_where_all_are_alike_or_on_several_nodes():
    assert delegates_of([FREE, FREE]) == []
    assert delegates_of([limited(0.3, "/a"), limited(0.3, "/b")]) == []
    assert delegates_of([FREE, limited(0.3, node="b")]) == []
