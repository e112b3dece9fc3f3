"""The autopsy: with which rank it began, in simulated records."""

from dataclasses import replace

from hpc_train.recovery.autopsy import diverged, fate, judge
from hpc_train.recovery.flight import Event, Flight, State


def flight(rank, operations=("gather", "reduce", "sum"), *, last=10.0, status="running", **state):
    events = tuple(
        Event("operation", last - len(operations) + n + 1, 4, 0, n + 1, -1, "communication", name)
        for n, name in enumerate(operations)
    )
    now = State(9, len(operations), 4, 100.0, 30.0, "communication", operations[-1])
    return Flight(rank, 1000 + rank, "n1", 0.0, status, replace(now, **state), last, events)


def fates(*names):
    return dict(enumerate(names))


def test_how_a_rank_is():
    running = flight(0, phase="compute")
    assert fate(replace(running, status="left"), "", 0.0) == "left"
    assert fate(running, "", 0.0) == "died"
    assert fate(running, "T", 0.0) == "stopped"
    assert fate(running, "S", 131.0) == "hung"
    assert fate(running, "S", 129.0) == "running"
    assert fate(running, "?", 1e9) == "running"  # of another host, whose clock is its own
    assert fate(flight(0), "S", 1e9) == "waiting"
    assert fate(flight(0), "S", 1e9, ahead=4) == "hung"  # the others are in the next operation


def test_the_first_rank_that_named_another_operation():
    flights = [flight(0), flight(1), flight(2, ("gather", "sum", "reduce"))]
    found = diverged(flights)
    assert (found[0].rank, *found[1:]) == (2, 2, "sum", "reduce")
    verdict = judge(flights, fates("died", "died", "died"))
    assert (verdict.what, verdict.rank, verdict.operation) == ("diverged", 2, "sum")
    assert "named its operation 2 sum, where others named theirs reduce" in verdict.text


def test_records_that_begin_and_end_at_different_operations_agree():
    cut = flight(1)
    cut = replace(cut, events=cut.events[1:2])
    assert diverged([flight(0), cut]) is None


def test_the_first_to_die_is_the_one_with_the_oldest_sign_of_life():
    flights = [flight(0), flight(1, phase="compute", last=9.0), flight(2)]
    verdict = judge(flights, fates("died", "died", "died"))
    assert (verdict.what, verdict.rank, verdict.phase, verdict.batch) == ("died", 1, "compute", 4)
    assert "died, 1.00 s before the next: batch 4, in phase compute" in verdict.text


def test_what_happens_now_comes_before_what_has_happened():
    flights = [flight(0), flight(1, ("gather",), phase="data"), flight(2)]
    assert judge(flights, fates("waiting", "hung", "died")).rank == 1
    assert judge(flights, fates("waiting", "hung", "stopped")).rank == 2


def test_one_that_was_hung_before_it_was_killed_is_told_so():
    hung = replace(flight(1, phase="data", limit_seconds=2.0), heard=15.0)
    verdict = judge([flight(0, status="left"), hung], fates("left", "died"))
    assert "was hung before it was killed" in verdict.text
    assert (verdict.rank, verdict.phase) == (1, "data")


def test_failures_and_good_ends():
    flights = [flight(0, status="left"), flight(1, status="failed")]
    assert judge(flights, fates("left", "failed")).what == "failed"
    assert judge(flights[:1], fates("left")).what == "well"
    assert judge(flights[:1], fates("left")).document()["rank"] == -1
