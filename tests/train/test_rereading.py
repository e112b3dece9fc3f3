"""The warning before compressed blocks are decoded again and again."""

import h5py
import numpy as np
import pytest

from hpc_train.config import load
from hpc_train.data import open_dataset
from hpc_train.train.rereading import rereading


@pytest.mark.parametrize(
    ("compression", "cache", "num_ranks", "warns"),
    [("gzip", 4000, 1, True), ("gzip", 4000, 2, False), (None, 4000, 1, False)],
)
def test_only_compressed_windows_beyond_the_cache_warn(
    tmp_path, compression, cache, num_ranks, warns
):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.zeros(2000), chunks=(100,), compression=compression)
    dataset = open_dataset(str(tmp_path / "x.h5"), ["x"], 100)
    data = {"train": str(tmp_path / "x.h5"), "inputs": "x", "cache_bytes": cache}
    config = load(None, sections={"model": {"name": "mlp"}, "data": data}).config
    found = rereading(config, dataset, 10, num_ranks)
    assert bool(found) == warns
    assert all("data.shuffle_window = 5" in text for text in found)
