"""Who can sum by NCCL: ranks that each have a GPU of their own."""

import pytest

from hpc_train.comm.nccl import have_their_own


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([["a", "g0"], ["a", "g1"]], True),
        ([["a", "g0"]], True),
        ([["a", "g0"], ["a", "g0"]], False),  # shared
        ([["a", "g0"], ["b", "g0"]], True),  # ids are unique in a node
        ([["a", "g0"], ["a", None]], False),  # one computes on the CPU
        ([["a", None], ["b", None]], False),
    ],
)
def test_each_rank_needs_a_gpu_of_its_own(told, expected):
    assert have_their_own(told) is expected
