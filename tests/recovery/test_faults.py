"""Faults: what can be asked for, when it happens and to whom; a rank that fails leaves a trace."""

import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import hpc_train
from hpc_train.errors import UsageError
from hpc_train.record import PHASES, listening, phase
from hpc_train.recovery import check_ranks, hooks, parse
from hpc_train.recovery.faults import Fault, InjectedError, RandomFaults, Striker


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kill:1@50", Fault("kill", 1, 50)),
        ("stop:2@30", Fault("stop", 2, 30)),
        ("hang:1@40:data", Fault("hang", 1, 40, "data")),
        ("exit:0@20", Fault("exit", 0, 20)),
        ("raise:3@10:communication", Fault("raise", 3, 10, "communication")),
        ("preempt@80", Fault("preempt", None, 80)),
        ("disk-full@ckpt2", Fault("disk-full", None, 2, "checkpoint")),
        ("preempt:any@30s", RandomFaults("preempt", 30.0)),
        ("disk-full:any@30s:seed=2", RandomFaults("disk-full", 30.0, 2)),
        ("kill:any@30s", RandomFaults("kill", 30.0, 0)),
        ("stop:any@0.5s:seed=7", RandomFaults("stop", 0.5, 7)),
    ],
)
def test_what_can_be_asked_for(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill:1", "a fault must read kill"),
        ("kill:1@", "a fault must read"),
        ("kill:@50", "a fault must read"),
        ("kill:any@50", "a fault must read"),
        ("kill:1@5s", "a fault must read"),
        ("kill:any@0s", "must be above 0 s"),
        ("preempt:1@80", "a fault must read"),
        ("disk-full@2", "a fault must read"),
        ("disk-full@ckpt0", "a fault must read"),
        ("hang:1@40:dtaa", r'unknown phase "dtaa".*did you mean .data.'),
        ("kil:1@50", "must read slow"),
    ],
)
def test_mistakes_are_explained(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_a_rank_that_does_not_exist_is_named():
    check_ranks([parse("kill:1@5"), parse("kill:any@5s")], 2)
    with pytest.raises(UsageError, match=r"below the number of ranks, 2 \(rank: 2\)"):
        check_ranks([parse("kill:2@5")], 2)


def step(batch):
    with phase("data", batch=batch):
        pass
    with phase("compute", batch=batch):
        pass
    with phase("communication", operation="reduce"):
        pass


def steps(count):
    for batch in range(count):
        step(batch)


def test_it_happens_in_that_batch_and_phase_and_to_that_rank_alone():
    with listening(Striker([parse("raise:1@3:communication")], 0, 2)):
        for batch in range(5):
            step(batch)
    with listening(Striker([parse("raise:1@3:communication")], 1, 2)):
        for batch in range(3):
            step(batch)
        with phase("data", batch=3), phase("compute", batch=3):
            pass
        with pytest.raises(InjectedError), phase("communication"):
            raise AssertionError("the phase must not begin")
        step(3)  # once only


def test_random_faults_come_with_the_stated_mean_and_hit_all_ranks():
    found = list(itertools.islice(RandomFaults("kill", 30.0, 5).schedule(4), 2000))
    assert found == list(itertools.islice(RandomFaults("kill", 30.0, 5).schedule(4), 2000))
    assert found != list(itertools.islice(RandomFaults("kill", 30.0, 6).schedule(4), 2000))
    assert found[-1][0] / 2000 == pytest.approx(30.0, rel=0.1)
    assert [time for time, _ in found] == sorted(time for time, _ in found)
    hit = [sum(rank == r for _, rank in found) for r in range(4)]
    assert min(hit) > 400


def test_a_random_exception_is_raised_at_the_next_phase_after_the_first_batch():
    with listening(Striker([RandomFaults("raise", 1e-6)], 0, 1)):
        with phase("checkpoint"):
            pass  # before the first batch nothing happens
        with pytest.raises(InjectedError):
            steps(10**7)


CHILD = """
import sys
from hpc_train.record import listening, phase
from hpc_train.recovery import hooks, parse
(hook,) = hooks([parse(sys.argv[1])], 1, 2)
with listening(hook):
    for batch in range(9):
        print(batch, flush=True)
        with phase("compute", batch=batch):
            pass
"""


@pytest.mark.parametrize(
    ("kind", "code"), [("kill", -signal.SIGKILL), ("exit", 1), ("stop", -signal.SIGSTOP)]
)
def test_a_process_ends_or_stops_in_that_batch(kind, code):
    argv = [sys.executable, "-c", CHILD, f"{kind}:1@4"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            found = -os.WSTOPSIG(status)
            child.kill()
        else:
            found = os.waitstatus_to_exitcode(status)
            child.returncode = found
        assert found == code
        assert child.stdout.read().split() == [b"0", b"1", b"2", b"3", b"4"]


def save():
    """A checkpoint, whose parts a thread writes."""
    problems = []

    def write():
        try:
            with phase("checkpoint", operation="write"):
                pass
        except OSError as error:
            problems.append(error.errno)

    with phase("checkpoint", operation="begin"):
        thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    return problems


@pytest.mark.parametrize("rank", [0, 3])
def test_the_disk_is_full_for_whoever_writes_that_checkpoint(rank):
    with listening(Striker([parse("disk-full@ckpt2")], rank, 4)):
        assert [save() for _ in range(4)] == [[], [errno.ENOSPC], [], []]


def test_a_disk_that_is_full_at_a_random_time_fails_the_next_checkpoint():
    with listening(Striker([RandomFaults("disk-full", 1e-6)], 0, 1)):
        assert save() == []  # before the first batch nothing happens
        steps(1)
        found, until = [], time.monotonic() + 60
        while not found and time.monotonic() < until:
            found = save()
        assert found == [errno.ENOSPC]


def test_all_ranks_are_told_to_leave_in_that_batch():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        with listening(Striker([parse("preempt@3")], 2, 4)):
            steps(3)
            assert not heard
            steps(5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [1]


def test_one_that_takes_the_place_of_another_fails_at_other_times():
    faults = [parse("kill:1@5"), parse("preempt@9"), parse("kill:any@5s:seed=3")]
    (first,) = hooks(faults, 1, 4)
    (second,) = hooks(faults, 1, 4, again=1)
    (third,) = hooks(faults, 1, 4, again=2)
    assert [len(one._exact) for one in (first, second, third)] == [2, 0, 0]
    assert len({one._random[0].seed for one in (first, second, third)}) == 3
    assert hooks([parse("kill:1@5")], 1, 4, again=1) == []


def test_every_phase_of_the_package_is_known():
    package = Path(hpc_train.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        found |= set(re.findall(r'(?<!``)\bphase\("([a-z_]+)"', path.read_text(encoding="utf-8")))
    assert found <= set(PHASES)
    assert found >= {"data", "compute", "communication"}
