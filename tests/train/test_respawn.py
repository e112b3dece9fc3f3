"""Respawn: who is replaced, when nobody is any more, and what is refused."""

from types import SimpleNamespace

import pytest

from hpc_train.errors import ConfigError, SetupError
from hpc_train.strategies import AllReduce
from hpc_train.train.respawn import Respawn, check_respawn


class Comm:
    """A coordinator whose replacements do as they are told."""

    def __init__(self, states=()):
        self.world = SimpleNamespace(is_coordinator=True, size=3)
        self.missing = ()
        self.members = (0, 1, 2)
        self.is_whole, self.fault_tolerant, self.invitation = True, True, None
        self.states = list(states)
        self.started, self.dismissed = [], 0

    def is_lost(self, error):
        return False

    def replace(self, number, document):
        self.started.append((number, document))
        answer = self.states.pop(0)
        if isinstance(answer, Exception) or answer is None:
            if answer is None:
                return None
            raise answer
        states = iter(answer)
        return SimpleNamespace(
            number=number, started=1e12, state=lambda: next(states), dismiss=self.dismiss
        )

    def dismiss(self):
        self.dismissed += 1

    def broadcast(self, value):
        return value

    def admit(self, newcomer, number):
        assert newcomer.number == number
        self.missing = tuple(one for one in self.missing if one != number)


def test_one_that_dies_after_it_was_told_ready_is_not_waited_for():
    comm = Comm([("ready", "gone")])
    comm.missing = (1,)
    respawn = Respawn(comm, lambda: "told")
    assert [respawn.look() for _ in range(3)] == [False, True, False]  # two phases of one batch
    assert respawn.admit() is None
    assert comm.missing == (1,)


def test_the_lowest_that_is_missing_is_replaced_once_it_is_ready_one_after_the_other():
    comm = Comm([("starting", "ready"), ("ready",)])
    respawn = Respawn(comm, lambda: "told")
    assert not respawn.look()
    comm.missing = (1, 2)
    assert [respawn.look() for _ in range(3)] == [False, False, True]
    assert comm.started == [(1, "told")]
    assert respawn.admit() == 1
    assert [respawn.look() for _ in range(2)] == [False, True]
    assert respawn.admit() == 2
    assert not respawn.look()
    respawn.close()
    assert comm.dismissed == 0


def test_none_is_started_while_its_imports_are_being_made(monkeypatch):
    comm = Comm([("ready",), ("ready",)])
    comm.missing = (1, 2)
    forks = SimpleNamespace(is_ready=False, close=lambda: closed.append(True))
    closed = []
    respawn = Respawn(comm, dict, forks)
    assert not any(respawn.look() for _ in range(5))
    assert comm.started == []
    forks.is_ready = True
    assert [respawn.look() for _ in range(2)] == [False, True]
    respawn.admit()
    forks.is_ready = False  # as of a server that imports for ever
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    assert [respawn.look() for _ in range(2)] == [False, True]
    respawn.close()
    assert closed == [True]


def test_another_rank_does_nothing():
    comm = Comm()
    comm.world.is_coordinator = False
    comm.missing = (1,)
    assert not Respawn(comm, dict).look()


def test_after_three_that_died_no_more_are_started(caplog):
    comm = Comm([("gone",), RuntimeError("no slots"), ("starting", "gone")])
    comm.missing = (1,)
    respawn = Respawn(comm, dict)
    assert not any(respawn.look() for _ in range(20))
    assert len(comm.started) == 3
    assert "cannot be started: no slots" in caplog.text
    assert "died before it was ready; no more are started" in caplog.text


def test_one_that_joins_gives_the_next_ones_new_chances():
    comm = Comm([("gone",), ("gone",), ("ready",), ("gone",), ("starting",)])
    comm.missing = (1, 2)
    respawn = Respawn(comm, dict)
    while not respawn.look():
        pass
    respawn.admit()
    for _ in range(4):
        respawn.look()
    assert len(comm.started) == 5
    respawn.close()
    assert comm.dismissed == 4  # those that died are let go as well: they may only seem dead


def test_a_command_line_that_cannot_be_repeated_is_not_tried_again(caplog):
    comm = Comm([None])
    comm.missing = (1,)
    respawn = Respawn(comm, dict)
    assert not any(respawn.look() for _ in range(5))
    assert "its command line cannot be repeated" in caplog.text


def parts(strategy=AllReduce, shrink=True, **comm):
    made = Comm()
    vars(made).update(comm)
    recovery = SimpleNamespace(respawn=True, shrink=shrink)
    names = SimpleNamespace(recovery=recovery, strategy=SimpleNamespace(name="s"))
    made_strategy = strategy.__new__(strategy)
    made_strategy.plan = made_strategy.claims = None
    return SimpleNamespace(config=names, comm=made, strategy=made_strategy)


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        (parts(shrink=False), ConfigError, r"recovery\.shrink: false"),
        (parts(strategy=SimpleNamespace), ConfigError, 'strategy "s"'),
        (parts(is_whole=False), ConfigError, "of a group"),
        (parts(fault_tolerant=False), SetupError, "needs an MPI that survives"),
    ],
)
def test_what_cannot_be_had_is_refused_on_every_rank(asked, kind, message):
    with pytest.raises(kind, match=message) as found:
        check_respawn(asked)
    assert found.value.agreed


def test_what_can_be_had_is_not_refused(caplog):
    check_respawn(parts())
    assert not caplog.text
    alone = parts(fault_tolerant=False, world=SimpleNamespace(is_coordinator=True, size=1))
    check_respawn(alone)
    assert "one rank alone" in caplog.text
