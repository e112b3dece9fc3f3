"""The end of the job's time: known from whoever tells, and left before."""

import pytest

from hpc_train.stop import StopFlag
from hpc_train.train.walltime import MARGIN_SECONDS, TimedStop, end_of_job, is_due
from tests.train.test_trainer import fit


@pytest.mark.parametrize(
    ("environ", "wall", "end"),
    [
        ({}, None, None),
        ({}, 60.0, 160.0),
        ({"SLURM_JOB_END_TIME": "150"}, None, 150.0),
        ({"SLURM_JOB_END_TIME": "150"}, 60.0, 150.0),
        ({"SLURM_JOB_END_TIME": "170"}, 60.0, 160.0),
        ({"SLURM_JOB_END_TIME": "Unknown"}, None, None),
        ({"HPC_TRAIN_END_TIME": "120"}, 60.0, 120.0),  # counted by the supervisor, over restarts
    ],
)
def test_the_earliest_end_that_anybody_tells(environ, wall, end):
    assert end_of_job(environ, wall, 100.0) == end


def test_a_step_and_a_save_must_fit():
    assert not is_due(MARGIN_SECONDS + 15 + 8, 10, 4)
    assert is_due(MARGIN_SECONDS + 15 + 7.9, 10, 4)


@pytest.mark.parametrize(("step", "save"), [(1, 0), (10, 2), (30, 30), (0.1, 100)])
def test_a_run_leaves_before_the_end_and_not_much_too_early(step, save):
    now = 0.0
    stop = TimedStop(StopFlag(), 1000.0, clock=lambda: now)
    stop.save_seconds = lambda: save
    while not stop.is_set:
        now += step
    assert now + step + save <= 1000.0
    assert now > 1000.0 - 3 * step - 2 * save - MARGIN_SECONDS


def test_the_longest_of_the_recent_steps_counts():
    now = 0.0
    stop = TimedStop(StopFlag(), 1000.0, clock=lambda: now)
    for seconds in (1, 200, 1, 1):  # one of them with an evaluation
        assert not stop.is_set
        now += seconds
    now = 720.0
    assert stop.is_set


def test_without_an_end_and_by_the_signal_it_is_the_flag_it_wraps():
    flag = StopFlag()
    stop = TimedStop(flag, None)
    assert not stop.is_set
    flag.is_set = True
    assert stop.is_set


def test_a_run_saves_and_leaves_in_time_and_goes_on_to_the_same_end(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole, _ = fit(tmp_path / "whole")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000")  # long ago: at the first look
    found, _ = fit(tmp_path, run={"wall_time": "1 day"})
    assert (found.status, found.exit_code) == ("preempted", 75)
    assert 0 < found.step < whole.step
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    again, _ = fit(tmp_path, run={"wall_time": "1 day"}, resume=tmp_path / "run")
    assert (again.status, again.step) == ("done", whole.step)
