"""Buckets cover an arena, cut no parameter, and begin and end with a small one."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hpc_train.strategies.buckets import Bucket, cut

SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=40)


def layout(sizes):
    return [(f"p{place}", sum(sizes[:place])) for place in range(len(sizes))], sum(sizes)


@given(SIZES, st.integers(1, 1000), st.integers(1, 300))
def test_every_parameter_is_in_one_bucket_and_every_element_too(sizes, bucket, small):
    starts, size = layout(sizes)
    found = cut(starts, size, bucket, small)
    assert found[0].stop == size
    assert found[-1].start == 0
    assert all(one.start == other.stop for one, other in pairwise(found))
    in_order = [name for one in reversed(found) for name in one.names]
    assert in_order == [name for name, _ in starts]
    where = dict(starts)
    assert all(where[one.names[0]] == one.start for one in found)


@given(SIZES, st.integers(1, 1000), st.integers(1, 300))
def test_no_bucket_is_longer_than_it_needs_to_be(sizes, bucket, small):
    starts, size = layout(sizes)
    for place, one in enumerate(cut(starts, size, bucket, small)):
        first = sizes[int(one.names[0][1:])]
        assert one.stop - one.start - first < max(small, bucket if place else small)


def test_the_first_and_the_last_are_small():
    starts, size = layout([10] * 20)
    found = cut(starts, size, 60, 10)
    assert found[0] == Bucket(190, 200, ("p19",))
    assert found[-1] == Bucket(0, 10, ("p0",))
    assert max(one.stop - one.start for one in found) <= 60
