"""Disturbances: what can be asked for, whom it befalls, and for how long a rank sleeps."""

import pytest

from hpc_train.errors import UsageError
from hpc_train.record import Stopwatch, listening, phase
from hpc_train.recovery import Disturbance, check_ranks, disturb, hooks, parse
from hpc_train.recovery.scarce import Shortage


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slow:2=3x", Disturbance(2, 3.0)),
        ("slow:1=2.5x@100-200", Disturbance(1, 2.5, 0.0, 100, 200)),
        ("jitter:10%", Disturbance(None, 1.0, 0.1)),
        ("jitter:10%@5-5", Disturbance(None, 1.0, 0.1, 5, 5)),
        ("oom:1>32", Shortage(1, 32)),
        ("oom:0>4@5-9", Shortage(0, 4, 5, 9)),
        ("oom:1@20", Shortage(1, 0, 20, 20, once=True)),
    ],
)
def test_what_can_be_asked_for(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slow:2=3", "must read slow:RANK=FACTORx, jitter:PERCENT% or oom:RANK>SAMPLES"),
        ("oom:1", "must read"),
        ("oom:any@30s", "must read"),
        ("oom:1>8@9-3", "must not end before it begins"),
        ("slow:a=3x", "must read"),
        ("fast:1=2x", "must read"),
        ("jitter:10", "must read"),
        ("slow:1=0.5x", "can only be made slower"),
        ("slow:1=2x@9-3", "must not end before it begins"),
    ],
)
def test_mistakes_are_explained(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_a_rank_that_does_not_exist_is_named():
    check_ranks([Disturbance(1, 2.0), Disturbance(jitter=0.1)], 2)
    with pytest.raises(UsageError, match=r"below the number of ranks, 2 \(rank: 2\)"):
        check_ranks([Disturbance(2, 2.0)], 2)


def test_only_the_named_rank_and_batches_are_slow():
    slow = parse("slow:1=3x@10-20")
    assert [slow.extra(1, batch) for batch in (9, 10, 20, 21)] == [0, 2, 2, 0]
    assert slow.extra(0, 15) == 0


def test_jitter_has_the_stated_mean_and_is_the_same_again():
    jitter = parse("jitter:10%")
    found = [jitter.extra(rank, batch) for rank in range(4) for batch in range(500)]
    assert sum(found) / len(found) == pytest.approx(0.1, rel=0.1)
    assert min(found) >= 0
    assert len(set(found)) > 1900
    assert jitter.extra(3, 7) == jitter.extra(3, 7)


def test_a_rank_sleeps_in_proportion_to_what_it_computed():
    now, slept = [0.0], []
    hook = disturb(
        [parse("slow:0=3x"), parse("slow:0=2x@5-9")], 0, clock=lambda: now[0], sleep=slept.append
    )
    with listening(hook):
        for batch in (4, 5):
            with phase("compute", batch=batch):
                now[0] += 2.0
        with phase("update"):
            now[0] += 2.0
    assert slept == [4.0, 6.0]


def test_a_watch_hung_up_earlier_sees_the_sleep_as_computing():
    watch = Stopwatch()
    with listening(watch), listening(disturb([parse("slow:0=400x")], 0)):
        with phase("compute", batch=0):
            sum(range(5000))
        plain = watch.take()["compute"]
        with phase("compute", batch=1):
            sum(range(5000))
    assert plain > 0.005


def refused(hook, batch, samples):
    """Whether there is no memory for a phase of computing."""
    try:
        with listening(hook), phase("compute", batch=batch, samples=samples):
            return False
    except MemoryError:
        return True


def test_memory_runs_short_for_what_is_too_large_on_the_named_rank():
    (hook,) = hooks([parse("oom:1>8@5-6")], 1, 2)
    found = [refused(hook, batch, n) for batch, n in ((4, 9), (5, 8), (5, 9), (6, 9), (7, 9))]
    assert found == [False, False, True, True, False]
    (other,) = hooks([parse("oom:1>8")], 0, 2)
    assert not refused(other, 5, 9)
    with listening(hook), phase("compute", batch=5), phase("update", batch=5, samples=9):
        pass  # neither what adds up nor what updates


def test_memory_that_runs_short_once_is_there_again_and_for_a_replacement_at_once():
    (hook,) = hooks([parse("oom:1@20")], 1, 2)
    assert [refused(hook, batch, 1) for batch in (19, 20, 20, 21)] == [False, True, False, False]
    assert hooks([parse("oom:1@20")], 1, 2, again=1) == []
