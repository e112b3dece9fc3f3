"""Whom the watchdog suspects, whom it leaves alone; simulated."""

import random

import pytest

from hpc_train.recovery.suspicion import Sight, Suspicion, suspect


def sight(rank, phase="communication", **changes):
    given = {
        "process": "S",
        "idle_seconds": 0.0,
        "silent_seconds": 0.0,
        "limit_seconds": 10.0,
        "phase": phase,
        "operations": 5,
    }
    return Sight(rank, **(given | changes))


def test_one_that_is_over_its_limit_while_another_waits_is_hung():
    late = sight(1, "data", idle_seconds=11.0, operations=4)
    assert suspect([sight(0), late, sight(2)], alone=False) == Suspicion("hung", 1, 0)
    assert suspect([sight(0), sight(1, "data", idle_seconds=9.0)], alone=False) is None


def test_ranks_that_only_wait_are_never_culprits():
    ranks = [sight(rank, idle_seconds=1000.0) for rank in range(3)]
    assert suspect(ranks, alone=False) is None
    assert suspect(ranks, alone=True) is None


def test_one_that_enters_the_phase_and_never_the_operation_is_no_waiting_rank():
    ranks = [sight(rank, idle_seconds=11.0) for rank in range(3)]
    ranks[0] = sight(0, idle_seconds=11.0, operations=4)
    assert suspect(ranks, alone=False) == Suspicion("hung", 0, 1)


def test_where_nobody_waits_nobody_is_hung():
    ranks = [sight(rank, "evaluate", idle_seconds=15.0) for rank in range(3)]
    assert suspect(ranks, alone=False) is None


def test_among_several_late_ones_it_is_the_one_that_is_furthest_behind():
    ranks = [sight(rank, "checkpoint", idle_seconds=15.0, operations=7) for rank in range(3)]
    ranks[2] = sight(2, "checkpoint", idle_seconds=15.0, operations=6)
    assert suspect(ranks, alone=False) == Suspicion("hung", 2, 0)


def test_alone_on_its_node_a_rank_gets_twice_the_time():
    assert suspect([sight(0, "data", idle_seconds=19.0)], alone=True) is None
    found = suspect([sight(0, "data", idle_seconds=21.0)], alone=True)
    assert found == Suspicion("hung", 0, None)


def test_a_stopped_process_is_named_unless_all_are():
    stopped = sight(1, "compute", process="T", silent_seconds=0.6)
    assert suspect([sight(0), stopped], alone=False) == Suspicion("stopped", 1, 0)
    both = [sight(0, process="T", silent_seconds=0.6), stopped]
    assert suspect(both, alone=False) is None
    briefly = sight(1, "compute", process="T", silent_seconds=0.3)
    assert suspect([sight(0), briefly], alone=False) is None


def test_one_under_a_debugger_is_left_alone():
    assert suspect([sight(0), sight(1, "data", process="t", idle_seconds=1e6)], False) is None


def test_a_death_that_nobody_noticed_is_told_once_all_have_waited():
    gone = sight(1, "compute", process="", silent_seconds=6.0)
    waiting = sight(0, idle_seconds=6.0)
    assert suspect([waiting, gone], alone=False) == Suspicion("gone", 1, 0)
    assert suspect([sight(0, idle_seconds=1.0), gone], alone=False) is None  # they went on
    assert suspect([waiting, sight(1, process="", silent_seconds=6.0, left=True)], False) is None


@pytest.mark.parametrize("num_ranks", [2, 8])
def test_no_false_alarm_however_ranks_are_starved(num_ranks):
    """Steps of random ranks on few cores: phases stretch, pauses of seconds happen, none hangs."""
    rng = random.Random(num_ranks)
    idle = [0.0] * num_ranks
    operations = [0] * num_ranks
    for _ in range(20000):
        step = rng.choice([0.1, 0.1, 0.2])
        running = set(rng.sample(range(num_ranks), 2))
        for rank in range(num_ranks):
            waits = operations[rank] > min(operations)
            if rank in running and not waits and rng.random() < 0.7:
                idle[rank], operations[rank] = 0.0, operations[rank] + 1
            else:
                idle[rank] += step
        low = min(operations)
        sights = [
            sight(
                rank,
                "communication" if operations[rank] > low else "compute",
                idle_seconds=idle[rank],
                limit_seconds=60.0,
                operations=operations[rank],
            )
            for rank in range(num_ranks)
        ]
        assert suspect(sights, alone=False) is None
