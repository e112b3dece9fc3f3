"""Replacements: the command line that repeats this process, and where they come in."""

import signal
import subprocess
import sys

import pytest

from hpc_train.comm.replacement import MARK, order, program

ENVIRON = {"HPC_TRAIN_JOB": "j", "PYTHONPATH": "/p", "HOME": "/h", MARK: "7"}


def started(argv):
    """The interpreter's flags and what the started one runs."""
    made = program(argv, ENVIRON, 2)
    assert made[:4] == ["env", f"{MARK}=2", "HPC_TRAIN_JOB=j", "PYTHONPATH=/p"]
    assert made[4] == sys.executable
    at = made.index("-c")
    return made[5:at], made[at + 2 :]


@pytest.mark.parametrize(
    ("argv", "flags", "rest"),
    [
        (["-m", "hpc_train", "run", "-n", "3"], [], ["-m", "hpc_train", "run", "-n", "3"]),
        (["/bin/hpc-train", "run", "x"], [], ["script", "/bin/hpc-train", "run", "x"]),
        (["-X", "dev", "-u", "s.py", "-m"], ["-X", "dev", "-u"], ["script", "s.py", "-m"]),
    ],
)
def test_it_runs_what_this_process_runs(argv, flags, rest):
    assert started(argv) == (flags, rest)


def test_the_replacement_of_a_replacement_runs_the_same():
    first = program(["-u", "-m", "hpc_train", "run"], ENVIRON, 2)
    again = program(first[first.index(sys.executable) + 1 :], ENVIRON, 2)
    assert again == first


def test_what_cannot_be_repeated_is_not():
    assert program(["-c", "print(1)"], ENVIRON, 2) == []
    assert program([], ENVIRON, 2) == []


def test_the_program_finds_its_own_folder_and_arguments(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 3\n")
    script = tmp_path / "script.py"
    script.write_text("import sys, beside\nprint(sys.argv[1:], beside.VALUE, __name__)\n")
    made = program([str(script), "a", "b"], {}, 0)
    at = made.index("-c") + 1
    made[at] = made[at].replace("from mpi4py import MPI\n", "")  # nobody starts ranks here
    ended = subprocess.run(made, capture_output=True, text=True, check=True, cwd="/")
    assert ended.stdout == "['a', 'b'] 3 __main__\n"


def test_who_coordinates_goes_on_doing_so():
    assert order([0, 2, 3], 1) == [0, 1, 2, 3]
    assert order([1, 2, 3], 0) == [1, 0, 2, 3]
    assert order([2], 1) == [2, 1]


WATCHED = """
import time
from types import SimpleNamespace
from hpc_train.comm.replacement import _watching
with _watching(SimpleNamespace(number=3, state=lambda: "ready")):
    time.sleep(1)
print("well", flush=True)
with _watching(SimpleNamespace(number=3, state=lambda: "gone")):
    time.sleep(60)
print("too late")
"""


def test_who_waits_for_one_that_has_died_as_it_joined_gives_itself_up():
    argv = [sys.executable, "-c", WATCHED]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == "well\n"
    assert "the replacement of rank 3 died as it joined" in ended.stderr
