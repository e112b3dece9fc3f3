"""Leaving: a shell tells a rank that ends on purpose from one that ends without a word."""

import os
import signal
import subprocess
import sys

import pytest

from hpc_train.leaving import GUARD


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("arrive()", 0),
        ("arrive(); raise SystemExit(75)", 75),
        ("arrive(); raise ValueError", 1),
        ("arrive(); take_leave(); os._exit(3)", 3),
        ("os._exit(2)", 2),  # before it had met anybody
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("arrive(); raise SystemExit(130)", 130),
        ("arrive(); os._exit(0)", -signal.SIGKILL),
        ("arrive(); os._exit(3)", -signal.SIGKILL),
        ("arrive(); os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("arrive(); os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_an_end_without_a_word_becomes_one_by_a_signal(tmp_path, program, code):
    text = f"import os, signal\nfrom hpc_train.leaving import arrive, take_leave\n{program}"
    argv = [*GUARD, sys.executable, "-c", text]
    env = {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert ("ValueError" in ended.stderr) == ("ValueError" in program)
    assert "illed" not in ended.stderr  # which shells like to say
    assert not list(tmp_path.iterdir())


def test_a_signal_to_all_of_them_leaves_no_file(tmp_path):
    text = "import time; from hpc_train.leaving import arrive; arrive(); print(); time.sleep(60)"
    argv = [*GUARD, sys.executable, "-u", "-c", text]
    env = {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, start_new_session=True) as job:
        assert job.stdout.readline() == b"\n"
        assert len(list(tmp_path.iterdir())) == 1
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(30) == -signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_without_a_shell_nothing_is_said(tmp_path):
    text = "import os; from hpc_train.leaving import arrive; arrive(); os._exit(3)"
    argv = [sys.executable, "-c", text]
    ended = subprocess.run(argv, env={"TMPDIR": str(tmp_path)}, check=False)
    assert ended.returncode == 3
    assert not list(tmp_path.iterdir())
