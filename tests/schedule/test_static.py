"""The static policy: proportional, exact, the same on every machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.errors import ConfigError, UsageError
from hpc_train.schedule import first_plan

shares = st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(any)


@given(shares=shares, batch_size=st.integers(1, 5000))
def test_counts_sum_up_and_lie_within_one_of_their_share(shares, batch_size):
    plan = first_plan("static", batch_size, len(shares), shares)
    assert sum(plan.counts) == batch_size
    for count, share in zip(plan.counts, shares, strict=True):
        assert abs(count - batch_size * share / sum(shares)) < 1 + 1e-6
        assert share > 0 or count == 0


@given(batch_size=st.integers(1, 500), num_ranks=st.integers(1, 1000))
def test_equal_shares_differ_by_one_at_most_and_lower_ranks_get_more(batch_size, num_ranks):
    counts = first_plan("static", batch_size, num_ranks).counts
    assert max(counts) - min(counts) <= 1
    assert list(counts) == sorted(counts, reverse=True)


@pytest.mark.parametrize("shares", [[1.0], [1.0] * 3, [0.0, 0.0], []])
def test_shares_must_fit_the_ranks(shares):
    with pytest.raises(ConfigError, match="one share for each of the 2 ranks"):
        first_plan("static", 10, 2, shares)


def test_an_unknown_policy_is_named():
    with pytest.raises(UsageError, match=r'unknown policy "fast", known: .*static'):
        first_plan("fast", 10, 2)
