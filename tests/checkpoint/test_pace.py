"""When to save by the clock."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.checkpoint import Pace
from hpc_train.checkpoint.pace import daly


def loss(period, cost, failures):
    """The expected time for a second of work, exponential failures (Daly 2006, equation 20)."""
    return failures * math.expm1((period + cost) / failures) / period


@given(st.floats(0.01, 100), st.floats(1000, 1e6))
def test_no_other_period_loses_less(cost, failures):
    best = daly(cost, failures)
    for factor in (0.5, 0.8, 1.25, 2):
        assert loss(best, cost, failures) < loss(best * factor, cost, failures)


def test_for_small_costs_it_is_youngs():
    assert daly(0.01, 86400) == pytest.approx(math.sqrt(2 * 0.01 * 86400), rel=1e-3)
    assert daly(10, 4) == 4


def test_a_stated_period_holds_whatever_a_save_costs():
    assert Pace(60, 100, blocked=50, writing=500).seconds == 60


def test_the_best_one_is_no_shorter_than_the_writing():
    assert Pace(None, 3600).seconds == pytest.approx(daly(1, 3600))
    assert Pace(None, 3600, blocked=0.02).seconds == pytest.approx(daly(0.02, 3600))
    assert Pace(None, 3600, blocked=0.02, writing=90).seconds == 90
    assert Pace(None, 3600, blocked=0.0).seconds == 1
