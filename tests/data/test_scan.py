"""Foreign HDF5 files: found, checked, indexed, remembered."""

import os

import h5py
import numpy as np
import pytest

from hpc_train.data.hdf5 import Stored, available, pieces
from hpc_train.data.index import FieldInfo, Shard
from hpc_train.data.scan import cached_scan, find_files, scan
from hpc_train.errors import DataError
from tests.data.samples import write_h5


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "one.h5", "w") as opened:
        opened.create_dataset("g/images", (10, 4, 4), "f4", chunks=(3, 4, 4), compression="gzip")
        opened["labels"] = np.arange(10, dtype=np.int16) - 2
        opened["names"] = ["x"] * 10
        opened["scalar"] = 3
        opened["short"] = np.zeros(4)
    return tmp_path / "one.h5"


def test_what_is_available(file):
    found = available(file)
    assert found["g/images"] == Stored((10, 4, 4), "float32", (3, 4, 4), "gzip")
    assert found["labels"] == Stored((10,), "int16", None, None)
    assert found["scalar"].shape == ()
    assert set(found) == {"g/images", "labels", "names", "scalar", "short"}


def test_scan_of_one_file(file):
    index = scan([file], ["g/images", "labels"], 100)
    assert index.fields == {
        "g/images": FieldInfo((4, 4), "float32"),
        "labels": FieldInfo((), "int16", -2, 7),
    }
    assert index.shards == (Shard("one.h5", 10, 3),)
    assert scan([file], ["labels"], 100).shards == (Shard("one.h5", 10, 100),)


def test_scan_of_several_files_spans_their_ranges(tmp_path):
    (tmp_path / "sub").mkdir()
    write_h5(tmp_path / "a.h5", y=np.arange(3))
    write_h5(tmp_path / "sub" / "b.h5", y=np.arange(5, 9))
    index = scan([tmp_path / "sub" / "b.h5", tmp_path / "a.h5"], ["y"], 2)
    assert [s.file for s in index.shards] == ["sub/b.h5", "a.h5"]
    assert (index.fields["y"].low, index.fields["y"].high) == (0, 8)
    elsewhere = scan([tmp_path / "a.h5"], ["y"], 2, root=tmp_path / "sub")
    assert elsewhere.shards[0].file == str(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["label"], "unknown dataset \"label\", known: .*did you mean 'labels'"),
        (["labels", "short"], r"same length .*labels: 10, short: 4"),
        (["names"], "must hold booleans.*strings"),
        (["scalar"], "must have a first axis"),
        ([], "must be named"),
    ],
)
def test_datasets_that_cannot_be_used(file, fields, message):
    with pytest.raises(DataError, match=message):
        scan([file], fields, 1)


def test_files_that_cannot_be_used(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="not an HDF5 file"):
        scan([tmp_path / "text.h5"], ["x"], 1)
    with pytest.raises(DataError, match="No such file"):
        scan([tmp_path / "none.h5"], ["x"], 1)
    with pytest.raises(DataError, match="no such file") as caught:
        find_files(tmp_path / "test.h5")
    assert "text.h5" in caught.value.hint
    with pytest.raises(DataError, match="no file matches"):
        find_files(tmp_path / "*.hdf5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="folder must hold HDF5 files"):
        find_files(tmp_path / "empty")


@pytest.mark.parametrize("other", [np.zeros((3, 2)), np.zeros(3, "f4")])
def test_files_that_differ(tmp_path, other):
    write_h5(tmp_path / "a.h5", x=np.zeros(3))
    write_h5(tmp_path / "b.h5", x=other)
    with pytest.raises(DataError, match=r"must be as in a\.h5, float64 \(\)"):
        scan(find_files(tmp_path), ["x"], 1)


def test_an_index_is_remembered_until_files_or_the_question_change(tmp_path, monkeypatch):
    import hpc_train.data.scan as module

    scans = []
    real = module.scan
    monkeypatch.setattr(module, "scan", lambda *a: scans.append(a) or real(*a))
    path = write_h5(tmp_path / "a.h5", x=np.arange(4), y=np.arange(4))
    first = cached_scan(path, ["x"], 2)
    assert (tmp_path / ".a.h5.hpc_train-index.json").is_file()
    assert cached_scan(path, ["x"], 2) == first
    assert len(scans) == 1
    cached_scan(path, ["y"], 2)
    cached_scan(path, ["y"], 3)
    assert len(scans) == 3
    os.utime(path, ns=(1, 1))
    cached_scan(path, ["y"], 3)
    assert len(scans) == 4
    (tmp_path / ".a.h5.hpc_train-index.json").write_text("{")
    assert cached_scan(path, ["y"], 3).num_samples == 4
    assert [p.name for p in find_files(tmp_path)] == ["a.h5"]


def test_where_nothing_can_be_kept_nothing_is(tmp_path, monkeypatch):
    from hpc_train.data.index import Index

    def refuse(*_):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(Index, "write", refuse)
    path = write_h5(tmp_path / "a.h5", x=np.arange(4))
    assert cached_scan(path, ["x"], 2).num_samples == 4
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.parametrize("pattern", ["?.h5", "*/x.h5"])
def test_patterns_give_paths_that_can_be_found_from_the_root(tmp_path, pattern):
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        write_h5(tmp_path / folder / "x.h5", x=np.arange(3))
    write_h5(tmp_path / "z.h5", x=np.arange(2))
    place = tmp_path / pattern
    index = cached_scan(place, ["x"], 2)
    assert index.num_samples == (2 if pattern == "?.h5" else 6)
    assert all((place.parent / shard.file).is_file() for shard in index.shards)


@pytest.mark.parametrize(("chunks", "rows"), [(None, 7), ((4, 2), 3), ((4, 2), 9), ((64, 1), 5)])
def test_pieces_follow_the_chunks_and_cover_all(tmp_path, chunks, rows):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", (70, 2), "f4", chunks=chunks)
        found = list(pieces(dataset, rows))
        assert [i for a, b in found for i in range(a, b)] == list(range(70))
        if chunks:
            assert all(first % chunks[0] == 0 for first, _ in found)
