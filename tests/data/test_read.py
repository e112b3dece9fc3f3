"""Reading by id: any ids in any order, each block once, clear errors, and the delivered hash."""

from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_train.data import open_shards
from hpc_train.data.read import Reader, delivered_hash
from hpc_train.errors import DataError
from tests.data.files import make_dataset, rows_of, write_shard

FIELDS = ["x", "y"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def dataset(folder):
    return make_dataset(folder, [10, 3, 8, 1], start=2, stop=21)


def gather(reader, ids):
    into = reader.buffers(len(ids))
    reader.read(np.array(ids, np.int64), into)
    return into


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 18), max_size=30), cache=st.integers(0, 400))
def test_any_ids_in_any_order_with_any_cache(dataset, ids, cache):
    reader = Reader(dataset, FIELDS, cache)
    found = gather(reader, ids)
    reader.close()
    expected = rows_of(2, 21)
    for name in FIELDS:
        assert np.array_equal(found[name], expected[name][np.array(ids, int)])


def test_a_block_is_read_once_while_it_is_held(dataset):
    reader = Reader(dataset, ["x"], 10**6)
    gather(reader, [0, 1, 0])
    first = reader.bytes_read
    assert first == 4 * 12  # one block of four rows, of which the data set holds two
    gather(reader, [1, 0])
    assert reader.bytes_read == first
    tight = Reader(dataset, ["x"], 0)
    for _ in range(2):
        gather(tight, [0, 2])
    assert tight.bytes_read == 4 * first  # two blocks, twice
    reader.close()
    tight.close()


def test_files_open_when_needed_and_few_stay_open(tmp_path, monkeypatch):
    opened = []
    real = h5py.File

    def counting(path, *arguments, **options):
        opened.append(path)
        return real(path, *arguments, **options)

    dataset = make_dataset(tmp_path, [2] * 12)
    monkeypatch.setattr(h5py, "File", counting)
    monkeypatch.setattr(open_shards, "OPEN_FILES", 3)
    reader = Reader(dataset, FIELDS, 0)
    assert opened == []
    gather(reader, [23])
    assert [path.name for path in opened] == ["shard-00011.h5"]
    found = gather(reader, range(24))
    assert np.array_equal(found["x"], rows_of(0, 24)["x"])
    assert len(reader._shards._files) == 3
    reader.close()
    assert not reader._shards._files


@pytest.mark.parametrize(("options", "part"), [({}, 1 / 8), ({"compression": 1}, 1)])
def test_pages_of_a_mapped_file_count_an_eighth_in_the_budget(tmp_path, options, part):
    dataset = make_dataset(tmp_path, [4, 4])
    for number in range(2):
        with h5py.File(tmp_path / f"shard-{number:05d}.h5", "w") as file:
            for name, array in rows_of(4 * number, 4 * number + 4).items():
                chunks = (4, *array.shape[1:])
                file.create_dataset(name, data=array, chunks=chunks, **options)
    with_x = 4 * 12
    reader = Reader(dataset, ["x"], 1000)
    assert reader.block_bytes((0, 0)) == with_x  # nobody knows yet
    reader.fetch((0, 0))
    assert reader.block_bytes((0, 0)) == with_x * part
    assert reader.block_bytes((1, 0)) == with_x
    reader.cache.want([(0, 0)])
    assert not reader.cache.has_room(int(1000 - with_x * part) + 1)
    assert reader.cache.has_room(int(1000 - with_x * part))
    reader.close()


def test_big_endian_numbers_arrive_in_native_order(tmp_path):
    dataset = make_dataset(tmp_path, [4])
    arrays = rows_of(0, 4)
    write_shard(
        tmp_path / "shard-00000.h5",
        {n: a.astype(a.dtype.newbyteorder(">")) for n, a in arrays.items()},
    )
    reader = Reader(dataset, FIELDS, 100)
    found = gather(reader, [3, 1])
    reader.close()
    assert found["x"].dtype.isnative
    assert np.array_equal(found["x"], arrays["x"][[3, 1]])


def test_a_file_that_is_gone_is_named(tmp_path):
    dataset = make_dataset(tmp_path, [4, 4])
    (tmp_path / "shard-00001.h5").unlink()
    reader = Reader(dataset, FIELDS, 100)
    gather(reader, [0, 3])
    with pytest.raises(DataError, match=r"cannot read rows 0\.\.3") as caught:
        gather(reader, [5])
    assert caught.value.where.endswith("shard-00001.h5")
    assert "data verify" in caught.value.hint


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": rows_of(0, 2)["x"], "y": rows_of(0, 2)["y"]}, "must have shape"),
        ({"x": np.zeros((4, 5), np.float32), "y": np.zeros(4)}, "must have shape"),
        ({"x": rows_of(0, 4)["x"]}, r"cannot read rows 0\.\.3 of y"),
        ({"x": rows_of(0, 4)["x"], "y": np.float32(3)}, "must have shape"),
        ({"x": np.float32(3), "y": np.zeros(4)}, "must have shape"),
    ],
)
def test_a_file_that_is_not_what_its_index_says(tmp_path, arrays, message):
    dataset = make_dataset(tmp_path, [4])
    write_shard(tmp_path / "shard-00000.h5", arrays)
    with pytest.raises(DataError, match=message):
        gather(Reader(dataset, FIELDS, 100), [0])


def test_a_group_in_place_of_a_dataset_is_an_error_of_the_data(tmp_path):
    dataset = make_dataset(tmp_path, [4])
    with h5py.File(tmp_path / "shard-00000.h5", "w") as file:
        file.create_group("x")
        file.create_dataset("y", data=np.zeros(4))
    with pytest.raises(DataError, match=r"cannot read rows 0\.\.3 of x"):
        gather(Reader(dataset, FIELDS, 100), [0])


@given(
    order=st.permutations(range(9)),
    cuts=st.lists(st.integers(0, 9), max_size=3).map(sorted),
)
def test_the_delivered_hash_sums_up_over_any_split_and_order(order, cuts):
    arrays = rows_of(100, 109)
    ids = np.arange(100, 109)
    whole = delivered_hash(ids, arrays)
    edges = [0, *cuts, 9]
    parts = [np.array(order[a:b], int) for a, b in pairwise(edges)]
    hashes = [delivered_hash(ids[p], {n: a[p] for n, a in arrays.items()}) for p in parts]
    assert sum(hashes) & 0xFFFFFFFF == whole


@given(sample=st.integers(0, 8), byte=st.integers(0, 11), flip=st.integers(1, 255))
def test_the_delivered_hash_changes_with_any_byte_and_any_id(sample, byte, flip):
    arrays, ids = rows_of(0, 9), np.arange(9)
    before = delivered_hash(ids, arrays)
    other = ids.copy()
    other[sample] += flip
    assert delivered_hash(other, arrays) != before
    arrays["x"].view(np.uint8)[sample, byte] ^= flip
    assert delivered_hash(ids, arrays) != before


def test_the_delivered_hash_of_nothing_is_zero_and_swapped_samples_are_seen():
    arrays, ids = rows_of(0, 4), np.arange(4)
    assert delivered_hash(ids[:0], {n: a[:0] for n, a in arrays.items()}) == 0
    swapped = ids[[1, 0, 2, 3]]
    assert delivered_hash(swapped, arrays) != delivered_hash(ids, arrays)
