"""Data sets by name: folders, files, patterns, ranges; described to other ranks."""

from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.data.blocks import Extent
from hpc_train.data.dataset import Dataset, open_dataset, share_dataset
from hpc_train.data.index import FieldInfo, Index, Shard
from hpc_train.errors import DataError
from hpc_train.world import RankError
from tests.data.files import make_dataset, rows_of, write_shard
from tests.groups import run_ranks


@pytest.fixture
def folder(tmp_path):
    make_dataset(tmp_path, [10, 3, 8]).index.write(tmp_path)
    return tmp_path


def test_a_folder_with_an_index_opens_no_shard(folder, monkeypatch):
    for path in folder.glob("*.h5"):
        path.unlink()
    monkeypatch.setattr(h5py, "File", None)
    dataset = open_dataset(str(folder), ["x", "y"], 1024)
    assert dataset.num_samples == 21
    assert dataset.fields["y"].num_classes == 7
    assert dataset.sample_bytes == 12 + 8


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [("[:]", 0, 21), ("[4:]", 4, 21), ("[:5]", 0, 5), ("[9:14]", 9, 14), ("", 0, 21)],
)
def test_ranges_take_samples_across_shards(folder, text, start, stop):
    dataset = open_dataset(f"{folder}{text}", ["x"], 1024)
    assert (dataset.start, dataset.stop) == (start, stop)
    rows = [(e.shard, row) for e in dataset.extents() for row in range(e.first, e.stop)]
    every = [(s, row) for s, size in enumerate([10, 3, 8]) for row in range(size)]
    assert rows == every[start:stop]


@pytest.mark.parametrize("text", ["[5:5]", "[6:5]", "[0:22]", "[21:]"])
def test_ranges_must_lie_within_the_data_set(folder, text):
    with pytest.raises(DataError, match="range must lie within the 21 samples") as caught:
        open_dataset(f"{folder}{text}", ["x"], 1024)
    assert caught.value.where == f"{folder}{text}"


def test_a_plain_file_is_a_data_set(tmp_path):
    write_shard(tmp_path / "plain.h5", rows_of(0, 30), chunk=8)
    dataset = open_dataset(f"{tmp_path / 'plain.h5'}[3:]", ["x", "y"], 1024)
    assert dataset.num_samples == 27
    assert dataset.path(0) == tmp_path / "plain.h5"
    assert dataset.extents() == [Extent(0, 3, 30, 8)]


def test_a_pattern_is_a_data_set_of_all_its_files(tmp_path):
    for number in (1, 0):
        write_shard(tmp_path / f"part-{number}.h5", rows_of(number, number + 4))
    dataset = open_dataset(str(tmp_path / "part-*.h5"), ["x"], 2)
    assert dataset.num_samples == 8
    assert dataset.path(0).name == "part-0.h5"


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("nowhere.h5", ["x"], "no such file"),
        ("plain.h5", ["X"], 'unknown dataset "X", known: x, y'),
        ("builtin:digit", ["x"], 'unknown built-in data set "digit"'),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path, name, fields, message):
    write_shard(tmp_path / "plain.h5", rows_of(0, 3))
    path = name if name.startswith("builtin:") else str(tmp_path / name)
    with pytest.raises(DataError, match=message):
        open_dataset(path, fields, 1024)


def test_an_empty_data_set_says_so(tmp_path):
    Index({"x": FieldInfo((3,), "float32")}, ()).write(tmp_path)
    with pytest.raises(DataError, match="data set holds no samples"):
        open_dataset(str(tmp_path), ["x"], 1024)


def test_a_missing_field_of_an_index_is_named(folder):
    with pytest.raises(DataError, match="unknown dataset"):
        open_dataset(str(folder), ["x", "z"], 1024)


shards = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any)


@given(sizes=shards, block=st.integers(1, 5), data=st.data())
def test_extents_hold_every_sample_once_and_a_description_tells_all(sizes, block, data):
    total = sum(sizes)
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    index = Index(
        {"x": FieldInfo((2, 3), "uint8"), "y": FieldInfo((), "int64", -1, 4, ("a", "b"))},
        tuple(Shard(f"{n}.h5", size, block) for n, size in enumerate(sizes)),
    )
    dataset = Dataset("name", Path("/nowhere"), index, start, stop)
    assert sum(extent.size for extent in dataset.extents()) == dataset.num_samples
    assert dataset.blocks().num_samples == dataset.num_samples
    assert Dataset.from_description(dataset.describe()) == dataset


def test_rank_0_opens_for_all(folder, monkeypatch):
    opened = []
    real = Index.read.__func__

    def counting(*arguments):
        opened.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(Index, "read", classmethod(counting))
    found = run_ranks(3, lambda group: share_dataset(group, f"{folder}[2:20]", ["x"], 8))
    assert found[0] == found[1] == found[2]
    assert found[0].num_samples == 18
    assert len(opened) == 1


def test_what_rank_0_cannot_open_fails_on_all(tmp_path):
    def attempt(group):
        with pytest.raises(RankError, match="no such file") as caught:
            share_dataset(group, str(tmp_path / "nowhere"), ["x"], 8)
        return caught.value.lines()

    found = run_ranks(2, attempt)
    assert found[0] == found[1]
