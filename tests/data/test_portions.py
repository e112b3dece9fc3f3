"""What shuffling costs: bounds that hold for any blocks, windows, batches and ranks."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.data.dataset import Dataset
from hpc_train.data.index import FieldInfo, Index, Shard
from hpc_train.data.portions import find_portions

SAMPLE_BYTES = 12


def dataset(sizes, block_rows):
    """Shards that need not be there: nothing is read."""
    shards = tuple(Shard(f"{i}.h5", size, block_rows) for i, size in enumerate(sizes))
    index = Index({"x": FieldInfo((3,), "float32")}, shards)
    return Dataset("x", Path(), index, 0, sum(sizes))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    block_rows=st.integers(1, 12),
    window=st.integers(1, 8),
    batch_size=st.integers(1, 90),
    num_ranks=st.integers(1, 9),
)
def test_no_rank_needs_more_than_a_window_and_none_reads_less_than_it_uses(
    sizes, block_rows, window, batch_size, num_ranks
):
    found = find_portions(dataset(sizes, block_rows), batch_size, num_ranks, window)
    most = window * min(block_rows, max(sizes)) * SAMPLE_BYTES
    assert 0 < found.rank_bytes <= found.window_bytes + 1 <= most + 2
    assert 1 <= found.node_read_per_used <= found.read_per_used
    assert found.read_per_used <= num_ranks * found.node_read_per_used + 1e-9


@settings(max_examples=20, deadline=None)
@given(window=st.integers(1, 4), more=st.integers(1, 12))
def test_a_window_of_fewer_blocks_than_ranks_is_cut_in_the_middle_of_blocks(window, more):
    """Each rank needs a block at least, and each cut makes one be read twice at most."""
    num_ranks = window + more
    found = find_portions(dataset([16 * 24], 16), 16 * window, num_ranks, window)
    assert found.window_bytes == window * 16 * SAMPLE_BYTES
    assert found.rank_bytes >= 16 * SAMPLE_BYTES
    assert found.node_read_per_used == 1
    assert num_ranks <= found.read_per_used * window <= window + num_ranks - 1
