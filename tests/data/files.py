"""Small HDF5 data sets for tests."""

import h5py
import numpy as np

from hpc_train.data.dataset import Dataset
from hpc_train.data.index import FieldInfo, Index, Shard


def rows_of(first, stop):
    """The samples [first, stop): x is the id in three columns, y the id modulo 7."""
    ids = np.arange(first, stop)
    return {"x": np.stack([ids, ids * 2, ids * 3], 1).astype(np.float32), "y": ids % 7}


def write_shard(path, arrays, chunk=None):
    """An HDF5 file with these datasets, chunked by rows if asked."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            chunks = (chunk, *array.shape[1:]) if chunk else None
            file.create_dataset(name, data=array, chunks=chunks)


def make_dataset(folder, sizes, chunk=4, start=0, stop=None):
    """A data set of shards of `sizes` samples; samples [start, stop) of it."""
    base = 0
    shards = []
    for number, size in enumerate(sizes):
        shard = Shard(f"shard-{number:05d}.h5", size, chunk)
        write_shard(folder / shard.file, rows_of(base, base + size), min(chunk, size))
        shards.append(shard)
        base += size
    fields = {"x": FieldInfo((3,), "float32"), "y": FieldInfo((), "int64", 0, 6)}
    index = Index(fields, tuple(shards))
    return Dataset(str(folder), folder, index, start, base if stop is None else stop)
