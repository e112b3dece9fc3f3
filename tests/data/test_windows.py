"""Windows of a series: what a slice of the whole series holds, by every route and order."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.data import Dataset, Loader, Windows, make_order, open_dataset
from hpc_train.data.blocks import Extent
from hpc_train.data.index import FieldInfo
from hpc_train.data.layout import Layout
from hpc_train.data.writer import ShardWriter
from hpc_train.errors import ConfigError, DataError
from hpc_train.plan import Batch, Work

SERIES = {"token": np.arange(103, dtype=np.uint8), "x": np.arange(309.0).reshape(103, 3)}


@pytest.fixture
def series(tmp_path):
    """103 rows in shards of 40, with chunks of 8 rows."""
    fields = {n: FieldInfo(a.shape[1:], a.dtype.name) for n, a in SERIES.items()}
    with ShardWriter(tmp_path / "series", fields, Layout(8, 40)) as writer:
        writer.append(SERIES)
    return str(tmp_path / "series")


@pytest.mark.parametrize("stride", [1, 4, 8, 11])
@pytest.mark.parametrize("shuffle", ["none", "window", "full"])
def test_samples_are_slices_of_the_series(series, stride, shuffle):
    windows = Windows(9, stride, 2)
    dataset = open_dataset(f"{series}[3:]", list(SERIES), 8, windows)
    assert dataset.num_samples == (100 - 11) // stride + 1
    assert dataset.fields["x"].shape == (9, 3)
    order = make_order(shuffle, dataset.blocks(), 1, 2)
    seen = []
    with Loader(dataset, order, list(SERIES)) as loader:
        batches = [
            Batch(k, 0, a, min(a + 7, dataset.num_samples))
            for k, a in enumerate(range(0, dataset.num_samples, 7))
        ]
        works = [Work(batch, 0, batch.size) for batch in batches]
        loader.follow(iter(works))
        for work in works:
            samples = loader.get(work)
            for place, number in enumerate(samples.ids):
                begin = 3 + number * stride
                for name, whole in SERIES.items():
                    assert np.array_equal(samples.arrays[name][place], whole[begin : begin + 11])
            seen += samples.ids.tolist()
    assert sorted(seen) == list(range(dataset.num_samples))


def test_plain_files_have_windows(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(20, dtype=np.int32)
    dataset = open_dataset(str(tmp_path / "a.h5"), ["x"], 4, Windows(5, 5))
    with Loader(dataset, make_order("none", dataset.blocks(), 0, 1), ["x"]) as loader:
        arrays = loader.read(Work(Batch(0, 0, 0, 4), 0, 4)).arrays
    assert np.array_equal(arrays["x"], np.arange(20).reshape(4, 5))


def test_windows_are_shared_with_other_ranks(series):
    dataset = open_dataset(series, ["x"], 8, Windows(4, 2, 1))
    assert Dataset.from_description(dataset.describe()) == dataset


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 6),
)
def test_every_sample_begins_in_one_extent(sizes, rows, stride, block_rows):
    windows = Windows(rows, stride)
    extents = [Extent(shard, 0, size, block_rows) for shard, size in enumerate(sizes)]
    found = windows.extents(extents)
    assert sum(extent.size for extent in found) == windows.count(sum(sizes))


def test_a_series_must_fill_a_window(series):
    with pytest.raises(DataError, match="a window needs 104 rows"):
        open_dataset(series, ["x"], 8, Windows(103, 1, 1))
    with pytest.raises(ConfigError, match="must be positive"):
        Windows(0, 1)


@pytest.mark.parametrize("stride", [1, 5])
def test_windows_that_reach_into_a_lost_shard_are_skipped(series, stride):
    Path(series, "shard-00001.h5").unlink()  # rows 40 .. 79
    windows = Windows(6, stride, 1)
    dataset = open_dataset(series, ["token"], 8, windows)
    order = make_order("none", dataset.blocks(), 0, 1)
    begins = np.arange(dataset.num_samples) * stride
    good = np.flatnonzero((begins + 6 < 40) | (begins >= 80))
    with Loader(dataset, order, ["token"], skip_damage=True) as loader:
        samples = loader.read(Work(Batch(0, 0, 0, len(begins)), 0, len(begins)))
        assert samples.ids.tolist() == good.tolist()
        assert samples.skipped == len(begins) - len(good)
        expected = SERIES["token"][begins[good][:, None] + np.arange(7)]
        assert np.array_equal(samples.arrays["token"], expected)
