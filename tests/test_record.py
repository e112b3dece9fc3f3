"""Phases and their hooks: heard, timed, and left even when something breaks."""

import threading
import time

import pytest

from hpc_train.record import Stopwatch, listening, phase


def test_hooks_hear_entry_and_exit_with_details_in_stack_order():
    heard = []

    def hook(number):
        def enter(name, detail):
            heard.append(("enter", number, name, detail))
            return lambda: heard.append(("leave", number, name))

        return enter

    with listening(hook(1)), listening(hook(2)), phase("communication", bytes=8):
        heard.append("inside")
    assert heard == [
        ("enter", 1, "communication", {"bytes": 8}),
        ("enter", 2, "communication", {"bytes": 8}),
        "inside",
        ("leave", 2, "communication"),
        ("leave", 1, "communication"),
    ]


def test_nobody_listens_after_the_block():
    heard = []

    def hook(name, detail):
        heard.append(name)
        return lambda: None

    with pytest.raises(RuntimeError, match="broken"), listening(hook):
        raise RuntimeError("broken")
    with phase("compute"):
        pass
    assert heard == []


def test_a_phase_is_left_when_its_block_raises():
    watch = Stopwatch()
    with listening(watch), pytest.raises(ValueError, match="broken"), phase("compute"):
        raise ValueError("broken")
    assert watch.take().keys() == {"compute"}


def test_inner_seconds_are_taken_from_the_outer_phase():
    watch = Stopwatch()
    with listening(watch), phase("outer"):
        with phase("inner"):
            time.sleep(0.02)
        with phase("inner"):
            pass
    seconds = watch.take()
    assert seconds["inner"] >= 0.02
    assert 0 <= seconds["outer"] < 0.02
    assert watch.take() == {}


def test_a_stopwatch_knows_the_whole_time_and_leaves_waiting_out_of_cpu_time():
    watch = Stopwatch()
    burn = time.thread_time

    def spin(name):
        with phase(name):
            until = burn() + 0.03
            while burn() < until:
                pass

    with listening(watch):
        spin("compute")
        spin("waiting")
        time.sleep(0.01)
    watch.take()
    assert watch.elapsed_seconds >= 0.07
    assert 0.03 <= watch.cpu_seconds < 0.055
    watch.take()
    assert watch.elapsed_seconds < 0.03
    assert 0 <= watch.cpu_seconds < 0.02


def test_a_stopwatch_times_only_its_own_thread():
    watch = Stopwatch()

    def other():
        with phase("data"):
            time.sleep(0.001)

    with listening(watch):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert watch.take() == {}


def test_a_phase_that_nobody_hears_costs_next_to_nothing():
    started = time.perf_counter()
    for _ in range(10_000):
        with phase("compute", batch=1):
            pass
    assert time.perf_counter() - started < 0.5  # 50 microseconds each: no benchmark, a safety net
