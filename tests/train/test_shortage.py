"""What counts as a lack of memory, and what micro-batches become then."""

import numpy as np
import pytest
import torch

from hpc_train.train.feed import Feed
from hpc_train.train.shortage import halved, is_shortage

FEED = Feed(["x"], ["y"], torch.device("cpu"), torch.float32, "none", None)


def test_every_way_in_which_memory_is_said_to_be_missing():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert is_shortage(raised.value)
    with pytest.raises(MemoryError) as missing:
        np.empty(2**60, np.uint8)
    assert is_shortage(missing.value)
    assert is_shortage(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_shortage(RuntimeError("shapes do not fit"))
    assert not is_shortage(ValueError("out of memory"))


def test_micro_batches_are_halved_down_to_one_sample():
    sizes, feed = [], FEED
    while (feed := halved(feed, 20)) is not None:
        sizes.append(feed.micro_batch_size)
    assert sizes == [10, 5, 3, 2, 1]
