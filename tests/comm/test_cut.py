"""Slices cover a buffer once, whatever its size."""

from hypothesis import given
from hypothesis import strategies as st

from hpc_train.comm.cut import blocks, per_cache_line, portions, slices


@given(st.integers(0, 10_000), st.integers(1, 300), st.sampled_from([1, 8, 16]))
def test_slices_cover_everything_once_in_order(size, parts, align):
    cuts = slices(size, parts, align)
    assert len(cuts) == parts
    assert [i for cut in cuts for i in range(cut.start, cut.stop)] == list(range(size))
    lengths = [cut.stop - cut.start for cut in cuts]
    assert max(lengths) == lengths[0]
    assert lengths[0] <= -(-size // parts) + align - 1
    assert all(cut.start % align == 0 or cut.start == size for cut in cuts)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 64))
def test_blocks_cover_a_slice_once_and_none_is_too_long(start, length, most):
    found = list(blocks(slice(start, start + length), most))
    assert [i for b in found for i in range(b.start, b.stop)] == [*range(start, start + length)]
    assert all(0 < b.stop - b.start <= most for b in found)


def test_a_cache_line_holds_a_whole_number_of_elements():
    assert [per_cache_line(size) for size in (2, 4, 8, 128)] == [32, 16, 8, 1]


@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any),
    st.integers(1, 64),
)
def test_portions_cover_everything_once_in_proportion(size, weights, align):
    cuts = portions(size, weights, align)
    assert [at.start for at in cuts] == [0, *(at.stop for at in cuts[:-1])]
    assert (cuts[-1].stop, len(cuts)) == (size, len(weights))
    for at, weight in zip(cuts, weights, strict=True):
        assert at.start % align == 0 or at.start == size
        assert weight or at.start == at.stop
        assert abs((at.stop - at.start) - size * weight / sum(weights)) <= 2 * align
