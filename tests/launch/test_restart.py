"""Restarts: where they help, never where the same would only happen again, and not for ever."""

import json
import os
import sys
import time

import pytest

from hpc_train.errors import EXIT_REQUEUE
from hpc_train.launch import restart
from hpc_train.launch.banner import Death
from hpc_train.launch.restart import Limits, cause, run_attempts
from hpc_train.launch.supervise import Ended, run_ranks
from hpc_train.stop import StopFlag

KILLED = Death(1, 7, "n1", 9)


@pytest.mark.parametrize(
    ("ended", "told", "helps"),
    [
        (Ended(137, (KILLED,)), False, True),
        (Ended(0, (KILLED,)), False, True),
        (Ended(0), False, True),  # Open MPI after a node lost power
        (Ended(137), False, True),
        (Ended(1), False, False),  # an uncaught error, or exit(1)
        (Ended(2), False, False),
        (Ended(3), False, False),
        (Ended(75), True, False),
        (Ended(75), False, True),  # nobody who was left held the newest state
        (Ended(1, (KILLED,)), True, False),  # the run itself said how it ended
        (Ended(143, (), asked=True), False, False),
        (Ended(130, (), asked=True), False, False),
    ],
)
def test_when_a_restart_helps(ended, told, helps):
    assert (cause(ended, told=told) is not None) == helps


def test_the_cause_names_the_rank():
    assert cause(Ended(137, (KILLED,)), told=False) == str(KILLED)


def test_limits_forget_what_was_long_ago():
    limits = Limits(2, 100.0)
    assert limits.allow([], 0)
    assert not limits.allow([0, 50], 99)
    assert limits.allow([0, 50], 101)
    assert not Limits(0, 100.0).allow([], 0)


@pytest.fixture
def attempts(tmp_path, monkeypatch):
    """Runs a program in place of a launcher and its ranks; gives code, result and environments."""
    seen = []

    def start(argv, ranks, environ, *, fault_tolerant, hosts):
        seen.append({name: environ.get(name, "") for name in environ if "HPC_TRAIN_" in name})
        return run_ranks(argv, environ)

    monkeypatch.setattr(restart, "start_job", start)

    def run(scripts, *, most=3, stop=None, **options):
        def program(count):
            return [sys.executable, "-c", scripts[min(count, len(scripts) - 1)], str(tmp_path)]

        limits = Limits(most, 60.0)
        ended = run_attempts(program, 2, tmp_path, limits, stop or StopFlag(), **options)
        return *ended, seen

    return run


DIE = "import os; os.kill(os.getpid(), 9)"
DONE = (
    "import sys; from pathlib import Path; from hpc_train.observe import Result;"
    "Result('done', 0, 5, {}, '.').write(Path(sys.argv[1]))"
)


def test_a_killed_job_is_started_again_until_it_is_done(attempts, caplog):
    caplog.set_level("WARNING", "hpc_train")
    code, result, seen = attempts([DIE, DIE, DONE], wall_seconds=100)
    assert (code, result.status, len(seen)) == (0, "done", 3)
    assert len({environ["HPC_TRAIN_SUPERVISOR"] for environ in seen}) == 1
    assert len({environ["HPC_TRAIN_END_TIME"] for environ in seen}) == 1
    assert abs(float(seen[0]["HPC_TRAIN_END_TIME"]) - time.time() - 100) < 60
    assert len(json.loads(seen[2]["HPC_TRAIN_RESTARTS"])) == 2
    assert "HPC_TRAIN_RESTARTS" not in seen[0]


def test_not_for_ever(attempts):
    code, result, seen = attempts([DIE], most=2)
    assert (code, result, len(seen)) == (137, None, 3)


def test_not_for_an_error_and_not_where_it_shall_leave(attempts):
    assert attempts(["raise SystemExit(2)"])[0::2][0] == 2
    stop = StopFlag()
    stop.is_set = True
    code, _, seen = attempts([DIE], stop=stop)
    assert code == EXIT_REQUEUE
    assert len(seen) == 2  # one of each call


def test_a_result_of_before_says_nothing(attempts, tmp_path):
    (tmp_path / "result.json").write_text("{}")
    before = os.stat(tmp_path / "result.json").st_mtime_ns
    code, result, _ = attempts([DIE, "raise SystemExit(1)"])
    assert (code, result) == (1, None)
    assert os.stat(tmp_path / "result.json").st_mtime_ns == before
