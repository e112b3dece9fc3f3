"""Turns: one program at a time, none left behind."""

import subprocess
import sys
from itertools import pairwise

import pytest

from hpc_train.bench.turns import take_turns

# counts to 300 in steps of a millisecond, in a child, and says when each step was
COUNT = """
import subprocess, sys, time
child = "import time, sys\\nfor _ in range(300):\\n time.sleep(0.001); print(time.perf_counter())"
sys.exit(subprocess.call([sys.executable, "-c", child]))
"""


def starter(folder, name):
    def start():
        with (folder / name).open("wb") as out:
            return subprocess.Popen([sys.executable, "-c", COUNT], stdout=out)

    return start


def test_each_waits_for_the_other_and_runs_to_its_end(tmp_path):
    pauses = take_turns([starter(tmp_path, "a"), starter(tmp_path, "b")], [lambda: True] * 2, 0.05)
    times = {name: [*map(float, (tmp_path / name).read_text().split())] for name in "ab"}
    assert all(len(found) == 300 for found in times.values())
    # whoever begins to count first is stopped for a turn of the other while it does
    assert max(b - a for found in times.values() for a, b in pairwise(found)) > 0.04
    # a signal takes a moment to act
    inside = [
        when
        for name, paused in zip("ab", pauses, strict=True)
        for when in times[name]
        if any(start + 0.02 < when < end - 0.02 for start, end in paused)
    ]
    assert not inside
    assert all(len(paused) > 1 for paused in pauses)


def test_nothing_is_left_of_programs_after_an_error():
    started = []

    def start():
        started.append(subprocess.Popen([sys.executable, "-c", COUNT], stdout=subprocess.DEVNULL))
        return started[0]

    def fails():
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        take_turns([start], [fails])
    assert started[0].poll() is not None
