"""Progress on a stream: plain lines now and then, one live line on a terminal."""

import io
import re

import pytest

from hpc_train.observe import Progress, Start, progress
from hpc_train.observe.progress import clock, terminal_columns

START = Start(0, 100, 2, ("run        here", "ranks      2"))


@pytest.fixture
def clocked(monkeypatch):
    """A clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("NO_COLOR", raising=False)
    return now


def step(batch, **changes):
    return {
        "kind": "step",
        "batch": batch,
        "epoch": batch // 50,
        "loss": 1.25,
        "metrics": {"accuracy": 0.5},
        "samples_per_second": 1000.0,
    } | changes


def shown(columns=0):
    stream = io.StringIO()
    return stream, Progress(stream, columns)


def test_plain_lines_come_every_five_seconds(clocked):
    stream, bar = shown()
    bar.start(START)
    for batch in range(1, 31):
        clocked[0] += 1
        bar.record(step(batch))
    bar.close()
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["run        here", "ranks      2"]
    assert len(lines) == 2 + 6
    expected = "epoch 1/2  step 5/100  loss 1.2500  accuracy 0.500  1,000 samples/s  ETA 1:35"
    assert lines[2] == expected
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_a_live_line_is_redrawn_and_erased(clocked):
    stream, bar = shown(columns=60)
    bar.start(START)
    for batch in range(1, 51):
        clocked[0] += 0.0625
        bar.record(step(batch))
    bar.close()
    frames = stream.getvalue().split("\r\x1b[K")[1:]
    assert len(frames) == 25 + 1
    assert frames[-1] == ""  # erased
    texts = [re.sub(r"\x1b\[\d*m", "", frame) for frame in frames[:-1]]
    assert all(len(text) < 60 for text in texts)
    assert texts[-1].count("━") == 12
    assert all(frame.startswith("\x1b[36m") for frame in frames[:-1])


def test_no_color_has_no_colours(clocked, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stream, bar = shown(columns=80)
    bar.start(START)
    clocked[0] += 1
    bar.record(step(1))
    bar.record({"kind": "evaluation", "epoch": 1.0, "data": "test", "metrics": {"loss": 0.5}})
    assert not re.search(r"\x1b\[\d+m", stream.getvalue())


def test_evaluations_and_events_are_always_lines_of_their_own(clocked):
    stream, bar = shown(columns=80)
    bar.start(START)
    clocked[0] += 1
    bar.record(step(1))
    bar.record({"kind": "evaluation", "epoch": 0.5, "data": "test", "metrics": {"loss": 0.5}})
    bar.record({"kind": "event", "text": "something happened"})
    bar.record({"kind": "event", "text": ""})
    tail = stream.getvalue().rsplit("\r\x1b[K", 1)[1]
    lines = re.sub(r"\x1b\[\d*m", "", tail).splitlines()
    assert lines == ["epoch 0.5  test        loss 0.5000", "something happened"]


def test_a_loss_that_is_not_a_number_and_a_resumed_run(clocked):
    stream, bar = shown()
    bar.start(Start(90, 100, None, ()))
    clocked[0] += 10
    bar.record(step(95, loss=float("nan"), metrics={}, epoch=3))
    assert stream.getvalue() == "epoch 4  step 95/100  loss nan  1,000 samples/s  ETA 0:10\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (6.6, "0:07"),
        (754, "12:34"),
        (3723, "1:02:03"),
        (-5, "0:00"),
        (360000, "100:00:00"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_the_width_of_the_terminal_is_told_by_who_started_the_ranks(monkeypatch):
    monkeypatch.setenv("HPC_TRAIN_TERMINAL", "132")
    assert terminal_columns() == 132
    monkeypatch.setenv("HPC_TRAIN_TERMINAL", "")
    assert terminal_columns() == 0  # standard output is captured here
