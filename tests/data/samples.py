"""Small data sets for tests."""

import h5py
import numpy as np

from hpc_train.data.hdf5 import pieces
from hpc_train.data.index import NAME, FieldInfo, Index
from hpc_train.data.layout import Layout
from hpc_train.data.writer import ShardWriter

FIELDS = {
    "image": FieldInfo((1, 3, 2), "uint8"),
    "label": FieldInfo((), "int64", classes=("a", "b", "c")),
}


def sample_arrays(count):
    """`count` samples of FIELDS."""
    image = np.arange(count * 6, dtype=np.uint8).reshape(count, 1, 3, 2)
    return {"image": image, "label": np.arange(count, dtype=np.int64) % 3}


def write(folder, count=50, layout=None, **about):
    """A data set of `count` samples; gives its index."""
    with ShardWriter(folder, FIELDS, layout or Layout(8, 20), **about) as writer:
        writer.append(sample_arrays(count))
    return writer.index


def read(folder):
    """All samples of a data set, by field."""
    index = Index.read(folder)
    parts = {name: [] for name in index.fields}
    for shard in index.shards:
        with h5py.File(folder / shard.file) as file:
            for name, found in parts.items():
                assert len(file[name]) == shard.samples
                found += [file[name][first:stop] for first, stop in pieces(file[name], 5)]
    return {name: np.concatenate(found) for name, found in parts.items()}


def everything(folder):
    """Name -> bytes of every file in a folder."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def write_h5(path, **arrays):
    """An HDF5 file with one contiguous dataset per array; __ in a name stands for a slash."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def flip(path, offset, mask=1):
    """Damage one byte of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    path.write_bytes(content)


__all__ = ["FIELDS", "NAME", "everything", "flip", "read", "sample_arrays", "write", "write_h5"]
