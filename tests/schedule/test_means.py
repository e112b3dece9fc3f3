"""Means over many steps: those of numpy, within their error of the truth, over ever more steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.schedule.means import Means

TIMES = st.lists(
    st.lists(st.floats(1e-3, 10), min_size=3, max_size=3), min_size=16, max_size=40
).map(np.array)


@given(TIMES)
def test_they_are_of_each_ranks_part_of_its_step(times):
    means = Means(3)
    for seconds in times:
        means.take((5, 7, 9), seconds)
    parts = times / times.mean(axis=1, keepdims=True)
    assert means.parts == pytest.approx(parts.mean(axis=0))
    slowest = int(np.argmax(means.parts))
    error = parts[:, slowest].std(ddof=1) / np.sqrt(len(times)) / means.parts[slowest]
    assert means.error == pytest.approx(error, abs=1e-9)


def test_they_are_due_after_sixteen_steps_and_then_after_twice_as_many_up_to_512():
    means, spans = Means(2), []
    for _ in range(7):
        steps = 0
        while not means.are_due:
            means.take((1, 1), (1.0, 2.0))
            steps += 1
        spans.append(steps)
        means = means.next()
    assert spans == [16, 32, 64, 128, 256, 512, 512]


def test_who_has_no_samples_has_no_part_and_a_step_that_was_not_told_does_not_count():
    means = Means(3, span=2)
    means.take((4, 0, 4), (1.0, 9.0, 3.0))
    means.take((4, 0, 4), (1.0, 9.0, 0.0))
    assert not means.are_due
    means.take((4, 0, 4), (2.0, 0.0, 6.0))
    assert means.are_due
    assert means.parts == pytest.approx([0.5, 0.0, 1.5])
