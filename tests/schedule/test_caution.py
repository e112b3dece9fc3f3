"""Slow ranks are done earlier where steps are noisy: in the mean, the last one is then earliest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.schedule.caution import careful
from hpc_train.schedule.situation import Situation
from hpc_train.schedule.split import split

PACES = st.lists(st.floats(1e-6, 1e2), min_size=1, max_size=8).map(np.array)
BATCH = 100_000


def situation(pace, fixed=0.0):
    return Situation(BATCH, np.full(len(pace), fixed), np.array(pace, float))


def counts_of(one):
    return split(one.batch_size, one.fixed, one.pace)


def mean_end(counts, pace, errors):
    """Mean seconds of a step, and how often each rank is last."""
    ends = counts * pace * (1 + errors)
    return ends.max(axis=1).mean(), np.bincount(ends.argmax(axis=1), minlength=len(pace)) / len(
        ends
    )


@given(PACES, st.floats(0, 2))
def test_nothing_changes_without_noise_nor_among_equals(pace, noise):
    quiet = careful(situation(pace, 0.1), np.zeros(len(pace)))
    assert np.array_equal(quiet.pace, pace)
    assert np.array_equal(quiet.fixed, np.full(len(pace), 0.1))
    equal = np.full(len(pace), pace[0])
    assert np.array_equal(careful(situation(equal), noise * pace / pace.max()).pace, equal)


@given(PACES, st.floats(0.001, 2))
def test_slower_ranks_are_the_earlier_but_never_take_half_as_long_again(pace, noise):
    factor = careful(situation(pace), np.full(len(pace), noise)).pace / pace
    order = np.argsort(pace)
    assert (np.diff(factor[order]) >= -1e-12).all()
    assert factor[order[0]] == 1.0
    assert factor.max() <= 1.5 + 1e-12


@pytest.mark.parametrize("pace", [[1.0, 3.5], [1.0, 1.0, 1.0, 4.0], [1.0, 2.0, 3.0]])
@pytest.mark.parametrize("kind", ["gumbel", "normal"])
def test_each_rank_is_last_as_often_as_its_part_of_the_speed(pace, kind):
    pace, deviation = np.array(pace), 0.1
    rng = np.random.default_rng(0)
    shape = (200_000, len(pace))
    errors = (
        rng.gumbel(0, deviation * np.sqrt(6) / np.pi, shape)
        if kind == "gumbel"
        else rng.normal(0, deviation, shape)
    )
    # the scale of what is learned from is the mean absolute value of normal noise
    noise = np.full(len(pace), deviation / 1.25)
    plain = counts_of(situation(pace))
    ours = counts_of(careful(situation(pace), noise, 1.0))
    before, _ = mean_end(plain, pace, errors)
    after, last = mean_end(ours, pace, errors)
    weights = 1 / pace / (1 / pace).sum()
    assert after < 0.995 * before
    assert last == pytest.approx(weights, abs=0.03 if kind == "gumbel" else 0.06)
    # no further shift between the fastest and the slowest is better by more than chance
    best = min(
        mean_end(ours + shift * (np.eye(len(pace))[0] - np.eye(len(pace))[-1]), pace, errors)[0]
        for shift in np.linspace(-0.05, 0.05, 21) * BATCH * weights[-1]
    )
    assert after < 1.003 * best
