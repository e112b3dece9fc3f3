"""The lock on a run directory: held, taken over, inherited, and never by two."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from hpc_train.errors import HpcTrainError
from hpc_train.train.lock import FILE, STALE_SECONDS, Holder, Lock, judge, myself, read_holder
from tests.train.test_trainer import fit

ME = Holder("me", "a", "a boot", 10, 1, "7", 1, "s1")


@pytest.mark.parametrize(
    ("found", "age", "alive", "taken"),
    [
        ({}, 1e9, True, False),  # a living process on this machine always holds it
        ({}, 0, False, True),
        ({}, 0, None, False),
        ({}, STALE_SECONDS + 1, None, True),
        ({"supervisor": "s1"}, 0, None, True),
        ({"supervisor": "s1"}, 0, True, False),
        ({"slurm_job": "7", "slurm_restarts": 0}, 0, None, True),
        ({"slurm_job": "7", "slurm_restarts": 1}, 0, None, False),
        ({"slurm_job": "8", "slurm_restarts": 0}, 0, None, False),
    ],
)
def test_who_may_take_over(found, age, alive, taken):
    holder = replace(Holder("x", "b", "b boot", 3, 1), **found)
    assert (judge(holder, ME, age, alive) is not None) == taken


def test_no_name_is_no_common_supervisor_and_no_common_job():
    me = replace(ME, supervisor="", slurm_job="")
    assert judge(Holder("x", "b", "b boot", 3, 1), me, 0, None) is None


def plant(folder, **changes):
    """Another one's lock."""
    holder = replace(myself({}), token="other", **changes)
    (folder / FILE).write_text(json.dumps(asdict(holder)))


def test_two_jobs_cannot_have_one_directory(tmp_path):
    with Lock(tmp_path, {}).acquire():
        with pytest.raises(HpcTrainError, match=f"process {os.getpid()} on ") as caught:
            Lock(tmp_path, {}).acquire()
        assert socket.gethostname() in caught.value.message
        assert len(caught.value.lines()) == 2
    assert list(tmp_path.iterdir()) == []
    Lock(tmp_path, {}).acquire().release()


def test_that_of_a_killed_process_is_taken_over_and_the_note_says_so(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from hpc_train.train.lock import Lock;"
        "Lock(Path(sys.argv[1]), {'SLURM_JOB_ID': '5'}).acquire(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert read_holder(tmp_path).slurm_job == "5"
    with Lock(tmp_path, {}).acquire() as lock:
        assert "Slurm job 5" in lock.note
        assert "has ended" in lock.note


def test_a_number_that_another_process_has_got_since_is_not_its_holder(tmp_path):
    plant(tmp_path, started=1)
    with Lock(tmp_path, {}).acquire() as lock:
        assert "has ended" in lock.note
        assert read_holder(tmp_path).started != 1


def test_on_another_machine_the_heartbeat_counts(tmp_path):
    plant(tmp_path, machine="elsewhere", host="elsewhere")
    with pytest.raises(HpcTrainError, match="elsewhere"):
        Lock(tmp_path, {}).acquire()
    long_ago = time.time() - STALE_SECONDS - 5
    os.utime(tmp_path / FILE, (long_ago, long_ago))
    with Lock(tmp_path, {}).acquire() as lock:
        assert "no sign of life" in lock.note


def test_the_requeued_job_takes_it_at_once(tmp_path):
    plant(tmp_path, machine="elsewhere", slurm_job="9", slurm_restarts=2)
    with pytest.raises(HpcTrainError):
        Lock(tmp_path, {"SLURM_JOB_ID": "9", "SLURM_RESTART_COUNT": "2"}).acquire()
    Lock(tmp_path, {"SLURM_JOB_ID": "9", "SLURM_RESTART_COUNT": "3"}).acquire().release()


def test_of_many_that_find_a_stale_one_one_gets_it(tmp_path):
    for _ in range(10):
        plant(tmp_path, started=1)
        got, start = [], threading.Barrier(8)

        def take(got=got, start=start):
            lock = Lock(tmp_path, {})
            start.wait()
            with contextlib.suppress(HpcTrainError):
                got.append(lock.acquire())

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got[0].release()
        assert list(tmp_path.iterdir()) == []


def test_an_heir_holds_it_and_its_former_holder_leaves_it_alone(tmp_path):
    first, heir = Lock(tmp_path, {}).acquire(), Lock(tmp_path, {})
    heir.inherit()
    first.release()
    assert read_holder(tmp_path) is not None
    heir.release()
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_refused_while_another_trains_and_leaves_the_lock_of_that(tmp_path):
    fit(tmp_path)
    plant(tmp_path / "run")
    before = (tmp_path / "run/result.json").read_bytes()
    with pytest.raises(HpcTrainError, match="another job trains"):
        fit(tmp_path, run={"epochs": 9}, resume=tmp_path / "run")
    assert (tmp_path / "run/result.json").read_bytes() == before
    (tmp_path / "run" / FILE).unlink()
    fit(tmp_path, run={"epochs": 9}, resume=tmp_path / "run")
    assert read_holder(tmp_path / "run") is None


def test_a_run_that_ended_before_its_first_save_begins_again(tmp_path):
    fit(tmp_path)
    sequence = (tmp_path / "run/metrics.jsonl").read_text().count('"step"')
    for path in (tmp_path / "run/checkpoints").rglob("*"):
        if path.is_file():
            path.unlink()
    for path in list((tmp_path / "run/checkpoints").iterdir()):
        path.rmdir()
    fit(tmp_path, resume=tmp_path / "run")
    assert (tmp_path / "run/metrics.jsonl").read_text().count('"step"') == sequence
