"""The thread that sums: in order, with the first error for whoever waits, and an end."""

import threading

import pytest

from hpc_train.comm import Background


class Told:
    """An operation that writes down its name, after a gate has opened, or fails."""

    def __init__(self, name, found, gate=None, error=None):
        self._name, self._found, self._gate, self._error = name, found, gate, error

    def launch(self):
        if self._gate is not None:
            assert self._gate.wait(20)
        if self._error is not None:
            raise self._error
        self._found.append(("launch", self._name, threading.current_thread().name))

    def finish(self):
        self._found.append(("finish", self._name, threading.current_thread().name))


def test_operations_go_on_behind_the_caller_in_their_order():
    found, gate, thread = [], threading.Event(), Background()
    thread.put(Told("a", found, gate))
    thread.put(Told("b", found))
    assert found == []  # nobody waited
    gate.set()
    thread.wait()
    expected = [("launch", "a"), ("finish", "a"), ("launch", "b"), ("finish", "b")]
    assert found == [(*one, "communication") for one in expected]
    assert thread.close()


def test_the_caller_marks_what_is_computed_before_the_thread_launches_it():
    class Marked(Told):
        def mark(self):
            self._found.append(("mark", self._name, threading.current_thread().name))

    found, gate, thread = [], threading.Event(), Background()
    thread.put(Marked("a", found, gate))
    assert found == [("mark", "a", threading.current_thread().name)]
    gate.set()
    thread.wait()
    assert [what for what, *_ in found] == ["mark", "launch", "finish"]
    assert thread.close()


def test_the_first_error_reaches_whoever_waits_and_nothing_follows_it():
    found, thread = [], Background()
    thread.put(Told("a", found, error=OSError("first")))
    thread.put(Told("b", found, error=OSError("second")))
    thread.put(Told("c", found))
    for _ in range(2):
        with pytest.raises(OSError, match="first"):
            thread.wait()
    assert found == []
    assert thread.close()
