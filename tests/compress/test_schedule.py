"""The cubic schedule: when more is pruned, and how much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.compress import Gradual


def test_the_curve_is_zhu_and_guptas():
    gradual = Gradual(begin=100, end=300, every=50, final=0.8)
    assert gradual.part(100) == 0
    assert gradual.part(200) == pytest.approx(1 - 0.5**3)
    assert gradual.part(300) == gradual.part(999) == 1


def test_due_batches():
    gradual = Gradual(begin=10, end=33, every=10, final=0.8)
    found = [gradual.due(batch) for batch in (9, 10, 19, 20, 32, 33, 50)]
    assert found == [None, 10, 10, 20, 30, 33, 33]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20))
def test_it_only_ever_prunes_more(begin, length, every):
    gradual = Gradual(begin, begin + length, every, 0.5)
    parts = [gradual.part(batch) for batch in range(begin + length + 5)]
    assert parts == sorted(parts)
    assert parts[-1] == 1
    due = [gradual.due(batch) for batch in range(begin, begin + length + 5)]
    assert due == sorted(due)
    assert due[-1] == gradual.end
