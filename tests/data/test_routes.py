"""Routes: the same bytes whatever the storage, errors in place of crashes, other writers' files."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_train.data import open_shard, open_shards
from hpc_train.data.dataset import Dataset, open_dataset
from hpc_train.data.index import FieldInfo, Index, Shard
from hpc_train.data.layout import Layout
from hpc_train.data.open_shard import OpenShard
from hpc_train.data.read import Reader
from hpc_train.data.routes import chunk_table
from hpc_train.errors import DataError
from tests.data import samples

DTYPES = ["?", "i1", "<u2", "<i4", "<f2", "<f4", "<f8", ">i2", ">f4"]
FILTERS = {
    "none": {},
    "shuffle": {"shuffle": True},
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "gzip+shuffle": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "fletcher32": {"fletcher32": True},
}


@pytest.fixture(autouse=True)
def no_delays(monkeypatch):
    monkeypatch.setattr(open_shards, "_DELAYS", (0.0,) * 3)


def values(dtype, shape, seed=0):
    """Half noise, half zeros, so that gzip leaves some chunks as they are and shrinks others."""
    data = np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
    data[len(data) // 2 :] = 0
    return data


def one_shard(path, name="x", block_rows=4):
    """The data set of one field of one file."""
    with h5py.File(path) as file:
        dataset = file[name]
        info = FieldInfo(dataset.shape[1:], dataset.dtype.newbyteorder("=").name)
        shards = (Shard(path.name, len(dataset), block_rows),)
    index = Index({name: info}, shards)
    return Dataset(str(path), path.parent, index, 0, index.num_samples)


def gather(dataset, ids, cache=10**6, name="x"):
    reader = Reader(dataset, [name], cache)
    into = reader.buffers(len(ids))
    try:
        reader.read(np.array(ids, np.int64), into)
    finally:
        reader.close()
    return into[name]


def attempt(dataset, ids, name):
    """What was gathered, or the text of the error."""
    try:
        return gather(dataset, ids, name=name), ""
    except DataError as error:
        return None, str(error)


def route_of(path, name="x"):
    """Name of the route that is chosen for a dataset."""
    dataset = one_shard(path, name)
    shard = OpenShard(path, path.parent, dataset.num_samples)
    try:
        return shard.route(name, dataset.fields[name]).name
    finally:
        shard.close()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_every_storage_gives_the_bytes_that_were_written(tmp_path, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    options = {}
    if data.draw(st.booleans(), "chunked"):
        options["chunks"] = tuple(data.draw(st.integers(1, n + 1)) for n in shape)
        options |= FILTERS[data.draw(st.sampled_from(sorted(FILTERS)))]
        options["maxshape"] = (None,) * len(shape)
    written = values(data.draw(st.sampled_from(DTYPES)), shape, seed=shape[0])
    path = tmp_path / "x.h5"
    libver = data.draw(st.sampled_from(["earliest", "latest", ("v110", "v110")]))
    userblock = data.draw(st.sampled_from([0, 512]))
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        file.create_dataset("x", data=written, **options)
    ids = data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=20))
    cache = data.draw(st.sampled_from([0, 50, 10**6]))
    dataset = one_shard(path, block_rows=data.draw(st.integers(1, 12)))
    assert np.array_equal(gather(dataset, ids, cache), written[np.array(ids, int)])


@pytest.mark.parametrize(
    ("options", "route"),
    [
        ({}, "contiguous"),
        ({"chunks": (3, 4)}, "chunked"),
        ({"chunks": (3, 4), "maxshape": (None, 4)}, "chunked"),
        ({"chunks": (3, 2)}, "decoded"),
        ({"chunks": (3, 4), **FILTERS["gzip"]}, "decoded"),
        ({"chunks": (3, 3), **FILTERS["gzip+shuffle"]}, "decoded"),
        ({"chunks": (3, 4), **FILTERS["lzf"]}, "decoded"),
        ({"chunks": (3, 4), **FILTERS["fletcher32"]}, "plain"),
        ({"chunks": (3, 4), "dtype": ">f4"}, "plain"),
        ({"dtype": ">f4"}, "plain"),
    ],
)
def test_the_route_follows_from_the_storage(tmp_path, options, route):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(40, dtype=np.float32).reshape(10, 4), **options)
    assert route_of(path) == route


def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for name, options in {"chunked": {"chunks": (2, 3)}, "whole": {}}.items():
            file.create_dataset(name, (8, 3), "f4", fillvalue=7, **options)
        file["chunked"][4:6] = 1
    assert (route_of(path, "chunked"), route_of(path, "whole")) == ("decoded", "plain")
    found = gather(one_shard(path, "chunked"), range(8), name="chunked")
    assert found[:, 0].tolist() == [7] * 4 + [1] * 2 + [7] * 2
    assert (gather(one_shard(path, "whole"), range(8), name="whole") == 7).all()


def test_chunks_beyond_the_end_of_a_shrunk_dataset_are_not_read(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        data = np.arange(30).reshape(10, 3)
        file.create_dataset("x", data=data, chunks=(4, 3), maxshape=(None, 3))
        file["x"].resize(5, axis=0)
        file["x"].resize(9, axis=0)
    expected = np.where(np.arange(9)[:, None] < 5, data[:9], 0)
    assert np.array_equal(gather(one_shard(path), range(9)), expected)


def test_compact_and_tracked_datasets_of_other_writers(tmp_path):
    path = tmp_path / "x.h5"
    expected = np.arange(12, dtype=np.int16).reshape(6, 2)
    with h5py.File(path, "w", track_order=True) as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(expected.shape)
        made = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT16, space, settings)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, expected)
        group = file.create_group("deep", track_order=True)
        dataset = group.create_dataset("y", data=expected, track_order=True)
        dataset.dims[0].label = "time"  # as netCDF4 does
        group.create_dataset("time", data=np.arange(6)).make_scale("time")
        dataset.dims[0].attach_scale(group["time"])
    assert route_of(path) == "plain"
    assert np.array_equal(gather(one_shard(path), range(6)), expected)
    assert np.array_equal(
        gather(one_shard(path, "deep/y"), [5, 0], name="deep/y"), expected[[5, 0]]
    )


def test_numbers_of_unusual_size_are_converted_by_hdf5(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.STD_I32LE.copy()
        kind.set_precision(20)  # the upper bits of each number are not part of it
        kind.set_offset(4)
        space = h5py.h5s.create_simple((5,))
        h5py.h5d.create(file.id, b"x", kind, space).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.arange(5, dtype=np.int32) - 2
        )
    assert route_of(path) == "plain"
    assert gather(one_shard(path), range(5)).tolist() == [-2, -1, 0, 1, 2]


def test_tables_that_are_too_large_or_unknown_leave_it_to_h5py(tmp_path, monkeypatch):
    path = samples.write_h5(tmp_path / "x.h5", y=np.zeros(3))
    with h5py.File(path, "a") as file:
        file.create_dataset("x", data=np.arange(10), chunks=(2,))
    assert route_of(path) == "chunked"
    monkeypatch.setattr(chunk_table, "MOST_CHUNKS", 4)
    assert route_of(path) == "plain"
    assert gather(one_shard(path), [9, 3]).tolist() == [9, 3]


# what refers to other files


def virtual(path, source, name="x"):
    layout = h5py.VirtualLayout((4,), "i8")
    layout[:] = h5py.VirtualSource(source, name, (4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)


def virtual_pattern(path, pattern):
    """Two rows of each of as many files as there are."""
    settings, unlimited = h5py.h5p.create(h5py.h5p.DATASET_CREATE), (h5py.h5s.UNLIMITED,)
    space = h5py.h5s.create_simple((4,), unlimited)
    space.select_hyperslab((0,), unlimited, (2,), (2,))
    settings.set_virtual(space, pattern.encode(), b"x", h5py.h5s.create_simple((2,)))
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((4,), unlimited)
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT64, space, settings)


def test_a_pattern_of_virtual_sources_is_read(tmp_path):
    for number in range(2):
        samples.write_h5(tmp_path / f"part-{number}.h5", x=np.arange(2) + 2 * number)
    virtual_pattern(tmp_path / "x.h5", "part-%b.h5")
    assert gather(one_shard(tmp_path / "x.h5"), [3, 0]).tolist() == [3, 0]


def test_virtual_and_linked_datasets_within_the_folder_are_read(tmp_path):
    samples.write_h5(tmp_path / "source.h5", x=np.arange(4))
    virtual(tmp_path / "virtual.h5", "source.h5")
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["x"] = h5py.ExternalLink("source.h5", "x")
    for name in ("virtual.h5", "linked.h5"):
        assert route_of(tmp_path / name) == "plain"
        assert gather(one_shard(tmp_path / name), range(4)).tolist() == [0, 1, 2, 3]


def outside(tmp_path, kind):
    """A file within `tmp_path/data` that refers to something outside of it."""
    folder = tmp_path / "data"
    folder.mkdir()
    secret = samples.write_h5(tmp_path / "secret.h5", x=np.arange(4))
    path = folder / "x.h5"
    if kind == "virtual":
        virtual(path, "../secret.h5")
    elif kind == "twice virtual":
        virtual(folder / "inner.h5", str(secret))
        virtual(path, "inner.h5")
    elif kind == "pattern":
        virtual_pattern(path, "../secret-%b.h5")
    else:
        with h5py.File(path, "w") as file:
            if kind == "linked":
                file["x"] = h5py.ExternalLink("../secret.h5", "x")
            else:
                raw = [(str(secret), 0, h5py.h5f.UNLIMITED)]
                file.create_dataset("x", (4,), "i8", external=raw)
    return path


@pytest.mark.parametrize("kind", ["virtual", "twice virtual", "pattern", "linked", "external"])
def test_nothing_outside_the_folder_is_read(tmp_path, kind):
    path = outside(tmp_path, kind)
    index = Index({"x": FieldInfo((), "int64")}, (Shard("x.h5", 4, 4),))
    with pytest.raises(DataError, match="must lie within the folder") as caught:
        gather(Dataset("x", path.parent, index, 0, 4), [1])
    assert "secret" in caught.value.message


def test_a_virtual_source_that_is_missing_is_an_error_and_no_zeros(tmp_path):
    virtual(tmp_path / "x.h5", "gone.h5")
    index = Index({"x": FieldInfo((), "int64")}, (Shard("x.h5", 4, 4),))
    with pytest.raises(DataError, match="cannot read rows"):
        gather(Dataset("x", tmp_path, index, 0, 4), [1])


# damage


@pytest.mark.parametrize("compression", ["none", "gzip", "lzf"])
def test_a_damaged_chunk_with_a_checksum_is_never_delivered(tmp_path, compression):
    samples.write(tmp_path / "data", 50, Layout(8, 20, compression))
    whole = samples.read(tmp_path / "data")
    dataset = open_dataset(str(tmp_path / "data"), ["image", "label"], 8)
    shard = dataset.path(1)
    content = shard.read_bytes()
    generator = np.random.default_rng(5)
    refused = 0
    for _ in range(70):
        place = int(generator.integers(len(content)))
        samples.flip(shard, place, 1 << int(generator.integers(8)))
        for name in ("image", "label"):
            found, error = attempt(dataset, range(50), name)
            assert "shard-00001.h5" in error or np.array_equal(found, whole[name])
            refused += bool(error)
        shard.write_bytes(content)
    assert refused > 0


@pytest.mark.parametrize("options", [{}, {"chunks": (4, 5)}, {"chunks": (4, 5), "compression": 1}])
def test_a_truncated_file_is_an_error_at_any_length(tmp_path, options):
    path = tmp_path / "x.h5"
    written = values("<i4", (40, 5))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=written, **options)
    dataset, content = one_shard(path), path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        found, error = attempt(dataset, range(40), "x")
        assert "x.h5" in error or np.array_equal(found, written)


@pytest.mark.parametrize("options", [{}, {"chunks": (4, 1000)}])
def test_a_file_that_shrinks_while_it_is_mapped_is_an_error_and_no_signal(tmp_path, options):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones((40, 1000)), **options)
    reader = Reader(one_shard(path), ["x"], 0)
    into = reader.buffers(2)
    reader.read(np.array([0, 39]), into)
    os.truncate(path, 8192)
    with pytest.raises(DataError, match="truncated"):
        reader.read(np.array([0, 39]), into)
    reader.close()


# failures of the system


def test_a_read_that_fails_is_tried_again_and_told_of(tmp_path, monkeypatch, caplog):
    path = samples.write_h5(tmp_path / "x.h5", x=np.arange(9))
    real, failures = open_shard.OpenShard.route, [2]

    def flaky(self, name, info):
        if failures[0]:
            failures[0] -= 1
            raise OSError(5, "Input/output error")
        return real(self, name, info)

    monkeypatch.setattr(open_shard.OpenShard, "route", flaky)
    assert gather(one_shard(path), [3, 8]).tolist() == [3, 8]
    assert caplog.text.count("trying again") == 2
    failures[0] = 99
    with pytest.raises(DataError, match=r"cannot read rows 0\.\.3 of x: .*rrno 5") as caught:
        gather(one_shard(path), [3])
    assert caught.value.where == str(path)
    assert failures[0] > 80  # three more attempts for each question, and no more


def test_a_missing_file_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(open_shards, "_DELAYS", (60.0,))
    dataset = one_shard(samples.write_h5(tmp_path / "x.h5", x=np.arange(9)))
    Path(tmp_path / "x.h5").unlink()
    with pytest.raises(DataError, match="cannot read rows"):
        gather(dataset, [3])


def test_a_file_of_another_type_than_its_index_says(tmp_path):
    path = samples.write_h5(tmp_path / "x.h5", x=np.arange(9))
    dataset = one_shard(path)
    samples.write_h5(path, x=np.arange(9.0))
    with pytest.raises(DataError, match="must be int64 as its index says"):
        gather(dataset, [3])
