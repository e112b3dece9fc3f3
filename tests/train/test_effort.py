"""What a step costs a rank: waiting excluded, a quota included."""

import pytest

from hpc_train.quota import Quota
from hpc_train.train.effort import Effort

STEP = {"data": 0.1, "compute": 0.5, "update": 0.1, "waiting": 3.0, "communication": 1.0}
THIRD = Quota(1 / 3, "/g", 0.1)


def test_without_a_quota_the_wall_clock_counts_and_what_lies_between_phases():
    assert Effort(None).busy(STEP, 4.7, 9.0) == pytest.approx(0.7)
    assert Effort(None).busy({**STEP, "schedule": 0.05}, 4.95, 9.0) == pytest.approx(0.95)


def test_under_a_quota_short_steps_take_what_they_cost_in_the_long_run():
    """Nine steps at full speed, then one that stands still: the truth is the mean of them."""
    effort = Effort(THIRD)
    walls = ([0.01] * 9 + [0.21]) * 5
    told = [effort.busy({"compute": wall}, wall, 0.01) for wall in walls]
    assert told == pytest.approx([sum(walls) / len(walls)] * 50)


def test_in_steps_of_many_periods_the_wall_clock_tells_when_a_rank_arrives():
    effort = Effort(Quota(1 / 3, "/g", 0.005))
    step = {"compute": 0.12, "waiting": 0.02}
    assert [effort.busy(step, 0.14, 0.043) for _ in range(20)] == pytest.approx([0.12] * 20)
    # a few long ones do not make steps long, nor the other way round
    effort = Effort(THIRD)
    told = [effort.busy({"compute": 0.06}, 0.06, 0.02) for _ in range(20)]
    told += [effort.busy({"compute": 5.0}, 5.0, 0.02) for _ in range(3)]
    assert told == pytest.approx([0.06] * 23)


def test_a_rank_that_mostly_waits_for_its_data_is_not_limited_by_its_quota():
    effort = Effort(Quota(0.5, "/g", 1.0))
    told = [effort.busy({"data": 1.0, "compute": 0.1}, 1.1, 0.12) for _ in range(20)]
    assert told == pytest.approx([1.1] * 20)


def test_a_job_that_once_stood_still_is_as_limited_as_before():
    effort = Effort(THIRD)
    for _ in range(100):
        effort.busy({"compute": 0.06}, 0.06, 0.02)
    effort.busy({"compute": 60.0}, 60.0, 0.02)
    assert effort.busy({"compute": 0.05}, 0.05, 0.02) == pytest.approx(0.06)


def test_who_is_late_to_hear_that_a_step_has_ended_begins_the_next_one_late():
    effort = Effort(Quota(1 / 3, "/g", 0.005))
    step = {"compute": 0.12, "waiting": 0.02}
    told = [effort.busy(step, 0.14, 0.043, 0.004) for _ in range(20)]
    assert told == pytest.approx([0.124] * 20)
