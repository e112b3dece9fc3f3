"""World: nodes and local ranks of any layout; errors that all ranks agree on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.errors import ConfigError, DataError
from hpc_train.world import RankError, World, agree, on_coordinator, together
from tests.groups import Solo, run_ranks


def test_uneven_and_interleaved_nodes():
    worlds = [World.from_hosts(["b", "a", "b", "c", "a", "b"], rank) for rank in range(6)]
    assert worlds[0].nodes == (0, 1, 0, 2, 1, 0)
    assert [w.node for w in worlds] == [0, 1, 0, 2, 1, 0]
    assert [w.local_rank for w in worlds] == [0, 0, 1, 0, 1, 2]
    assert [w.local_size for w in worlds] == [3, 2, 3, 1, 2, 3]
    assert worlds[3].num_nodes == 3
    assert worlds[0].mesh == (6, 1, 1)


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=30))
def test_local_ranks_number_each_node_from_zero(keys):
    worlds = [World.from_hosts(keys, rank) for rank in range(len(keys))]
    for node in range(worlds[0].num_nodes):
        mates = [w for w in worlds if w.node == node]
        assert [w.local_rank for w in mates] == list(range(len(mates)))
        assert all(w.local_size == len(mates) for w in mates)
        assert len({keys[w.rank] for w in mates}) == 1


def test_a_rank_outside_the_world_is_a_mistake():
    with pytest.raises(ValueError, match="rank must lie in"):
        World.from_hosts(["a"], 1)


def test_the_lowest_rank_that_fails_is_named_on_all():
    def work(group):
        def fail_on_some():
            if group.world.rank in (1, 2):
                raise DataError(f"broken {group.world.rank}", hint="mend it")
            return group.world.rank

        with pytest.raises(RankError) as caught:
            together(group, fail_on_some)
        return caught.value

    errors = run_ranks(4, work)
    for error in errors:
        assert error.lines()[0].startswith("rank 1 on ")
        assert error.lines()[0].endswith("broken 1")
        assert error.lines()[1] == "hint: mend it"
        assert error.agreed
        assert error.exit_code == DataError.exit_code
        assert not error.is_bug


def test_a_bug_keeps_its_traceback_on_all_ranks():
    def work(group):
        with pytest.raises(RankError) as caught:
            together(group, lambda: 1 / group.world.rank)
        return caught.value

    for error in run_ranks(3, work):
        assert error.is_bug
        assert "ZeroDivisionError" in error.trace
        assert "rank 0 on" in error.lines()[0]


def test_the_coordinator_decides_and_its_errors_reach_all():
    def fail():
        raise ConfigError("wrong", where="here")

    def work(group):
        value = on_coordinator(group, lambda: {"answer": 42})
        with pytest.raises(RankError) as caught:
            on_coordinator(group, fail)
        return value, caught.value.lines(), caught.value.exit_code

    assert run_ranks(3, work) == [({"answer": 42}, ["here: wrong"], 2)] * 3


def test_nothing_wrong_is_nothing_raised():
    assert together(Solo(), lambda: 5) == 5
    agree(Solo(), None)
