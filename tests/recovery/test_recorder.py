"""The flight recorder: what it tells of a rank, also of one that was killed; what it costs."""

import os
import signal
import struct
import subprocess
import sys
import time

import pytest

from hpc_train.errors import HpcTrainError
from hpc_train.record import hearing, listening, operation, phase
from hpc_train.recovery.flight import Tape, path_of
from hpc_train.recovery.patience import Patience
from hpc_train.recovery.recorder import Recorder, place_for
from hpc_train.recovery.records import read_flights


def step(batch):
    with phase("data", batch=batch):
        pass
    with phase("compute", batch=batch):
        pass
    with phase("communication", operation="reduce"):
        operation("reduce", 4096)
        operation("sum", 80, 0)


@pytest.fixture
def recorder(tmp_path):
    with (
        Recorder(Tape.create(path_of(tmp_path, 3), 3)) as recorder,
        listening(recorder),
        hearing(recorder.hear),
    ):
        yield recorder


def test_it_tells_what_a_rank_does_now(recorder):
    other = Tape.open(recorder.tape.path)
    assert (other.rank, other.pid) == (3, os.getpid())
    step(7)
    with phase("compute", batch=8):
        state = other.state()
        assert (state.phase, state.batch, state.operations) == ("compute", 8, 2)
        assert 0 <= time.monotonic() - state.since_seconds < 5
        with phase("checkpoint", operation="copy"):
            assert (other.state().phase, other.state().operation) == ("checkpoint", "copy")
        assert other.state().phase == "compute"
    assert other.state().phase == ""
    with phase("communication", operation="reduce"):
        operation("gather")
        assert (other.state().phase, other.state().operation) == ("communication", "gather")


def test_messages_between_two_ranks_are_no_operations_of_all(recorder):
    step(1)
    with phase("communication", operation="push"):
        operation("send", 100, 0)
        assert recorder.tape.state().operation == "send"
        operation("receive", 100, 0)
    assert recorder.tape.state().operations == 2
    named = [event.operation for event in recorder.tape.events() if event.kind == "operation"]
    assert named == ["reduce", "sum"]


def test_batches_of_an_evaluation_are_its_own(recorder):
    step(7)
    with phase("evaluate"), phase("data", batch=1):
        assert recorder.tape.state().batch == 7
    step(8)
    assert recorder.tape.state().batch == 8


def test_events_keep_their_order_sizes_and_numbers_and_the_oldest_are_overwritten(tmp_path):
    recorder = Recorder(Tape.create(path_of(tmp_path, 0), 0, slots=50))
    with listening(recorder), hearing(recorder.hear):
        for batch in range(40):
            step(batch)
    events = list(Tape.open(recorder.tape.path).events())
    assert len(events) == 50
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert [event.kind for event in events[-4:]] == ["enter", "operation", "operation", "leave"]
    reduce, total = events[-3:-1]
    assert (reduce.operation, reduce.num_bytes, reduce.peer, reduce.number) == (
        "reduce",
        4096,
        -1,
        79,
    )
    assert (total.operation, total.num_bytes, total.peer, total.number) == ("sum", 80, 0, 80)
    assert {event.batch for event in events} == set(range(33, 40))  # 8 a step


def test_before_its_first_event_a_rank_may_take_its_time(tmp_path):
    Tape.create(path_of(tmp_path, 0), 0)
    state = Tape.open(path_of(tmp_path, 0)).state()
    assert (state.events, state.batch, state.limit_seconds) == (0, -1, float("inf"))


def test_names_for_which_there_is_no_room_are_others(tmp_path):
    tape = Tape.create(path_of(tmp_path, 0), 0)
    for number in range(200):
        code = tape.codes[f"operation {number}"]
        tape.write(number + 1, 2, 0, 0, number, -1, 0, code, 5, 5, 1e300, 0, code)
    events = list(Tape.open(tape.path).events())
    assert [event.operation for event in events[:126]] == [f"operation {n}" for n in range(126)]
    assert {event.operation for event in events[126:]} == {"other"}


CHILD = """
import os, signal, sys
from pathlib import Path
from hpc_train.record import listening, phase
from hpc_train.recovery.flight import Tape
from hpc_train.recovery.recorder import Recorder
recorder = Recorder(Tape.create(Path(sys.argv[1]), 5))
with listening(recorder), phase("compute", batch=11):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_survives_sigkill(tmp_path):
    path = path_of(tmp_path / "flight", 5)
    ended = subprocess.run([sys.executable, "-c", CHILD, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    ((flight,), missing) = read_flights(tmp_path)
    assert (flight.rank, flight.status, missing) == (5, "running", [])
    assert (flight.state.batch, flight.state.phase) == (11, "compute")
    assert flight.events[-1].kind == "enter"


def test_a_torn_event_is_left_out(recorder):
    step(1)
    before = list(recorder.tape.events())
    last = recorder.tape.state().events
    struct.pack_into("<Q", recorder.tape._view, 4096 + last * 64, 12345)
    assert list(recorder.tape.events()) == before[:-1]


def test_other_threads_are_not_recorded(recorder):
    import threading

    before = recorder.tape.state()
    thread = threading.Thread(target=step, args=(9,))
    thread.start()
    thread.join()
    assert recorder.tape.state() == before


def test_leaving_is_told(tmp_path):
    with Recorder(Tape.create(path_of(tmp_path / "flight", 0), 0)):
        pass
    failing = Recorder(Tape.create(path_of(tmp_path / "flight", 1), 1))
    with pytest.raises(ZeroDivisionError), failing:
        raise ZeroDivisionError
    flights, _ = read_flights(tmp_path)
    assert [flight.status for flight in flights] == ["left", "failed"]


def test_a_file_of_another_kind_is_refused(tmp_path):
    for content in (b"", b"x" * 9000):
        (tmp_path / "odd.flight").write_bytes(content)
        with pytest.raises(HpcTrainError, match="not a flight record"):
            Tape.open(tmp_path / "odd.flight")


def test_on_a_network_file_system_it_lies_elsewhere(tmp_path, monkeypatch):
    assert place_for(tmp_path / "run", 2) == tmp_path / "run/flight/rank-0002.flight"
    monkeypatch.setattr("hpc_train.recovery.recorder.type_of", lambda path: "nfs4")
    place = place_for(tmp_path / "run", 2, tmp_path / "local")
    assert place == tmp_path / "local/hpc_train-run/rank-0002.flight"


def test_a_step_costs_far_less_than_a_hundredth_of_ten_milliseconds(recorder):
    def seconds():
        started = time.perf_counter()
        for batch in range(100):
            step(batch)
        return (time.perf_counter() - started) / 100

    assert min(seconds() for _ in range(20)) < 1e-4


def test_patience_grows_with_what_phases_took():
    patience = Patience(10.0)
    assert patience.limit("compute") == 100.0  # the first times may be anything
    for _ in range(3):
        patience.learn("compute", 0.1)
    assert patience.limit("compute") == 10.0
    patience.learn("compute", 4.0)
    assert patience.limit("compute") == 80.0
    for _ in range(3000):
        patience.learn("compute", 0.1)
    assert patience.limit("compute") == 10.0
    assert patience.limit("data") == 100.0


WRITER = """\
import math, sys
from pathlib import Path
from hpc_train.recovery.flight import Tape

tape, count = Tape.create(Path(sys.argv[1]), 0), 0
data, sum = tape.codes["data"], tape.codes["sum"]
while True:
    count += 1
    tape.write(count, 0, 1, 0, count, -1, data, sum, 5, 5, math.inf, data, sum)
    tape.beat()
    if count == 1:
        print(flush=True)
"""


def test_at_no_instant_of_writing_a_reader_finds_zeros(tmp_path):
    """A rank that is interrupted while it writes would look like one whose time is over."""
    path = tmp_path / "rank"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout.readline()
            tape = Tape.open(path)
            for _ in range(30_000):
                state = tape.state()
                assert state.events > 0
                assert (state.limit_seconds, state.phase) == (float("inf"), "data")
                assert tape.beat_seconds > 0
        finally:
            writer.kill()
