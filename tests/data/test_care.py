"""Inspect, verify and split."""

import dataclasses

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.data.advice import advise
from hpc_train.data.dataset import BUILTIN
from hpc_train.data.hdf5 import Stored
from hpc_train.data.index import Index
from hpc_train.data.inspect import inspect
from hpc_train.data.layout import Layout
from hpc_train.data.sources import open_source
from hpc_train.data.split import assign, count_samples, labels_of, write_parts
from hpc_train.data.verify import Damage, verify
from hpc_train.errors import DataError, UsageError
from tests.data.samples import FIELDS, everything, flip, read, sample_arrays, write, write_h5


def test_inspect_of_a_data_set(tmp_path):
    write(tmp_path / "set", 50, source="here")
    report = inspect(tmp_path / "set")
    assert (report.num_samples, report.is_dataset, report.has_checksums) == (50, True, True)
    assert [(s.file, s.samples) for s in report.shards][2] == ("shard-00002.h5", 10)
    assert report.fields["image"].stored == Stored((20, 1, 3, 2), "uint8", (8, 1, 3, 2), None)
    assert report.fields["image"].balance is None
    assert report.fields["label"].balance == {"a": 17, "b": 17, "c": 16}
    assert report.is_fast
    (tmp_path / "set" / "shard-00001.h5").unlink()
    with pytest.raises(DataError, match="cannot open: No such file"):
        inspect(tmp_path / "set")


def test_inspect_of_foreign_files(tmp_path):
    write_h5(tmp_path / "a.h5", x=np.zeros((4, 2)), y=np.array([0, 1, 1, 3]), s=["t"])
    write_h5(tmp_path / "b.h5", x=np.zeros((2, 2)), y=np.array([5, 5]))
    report = inspect(tmp_path)
    assert (report.num_samples, report.is_dataset, report.has_checksums) == (6, False, False)
    assert report.fields["s"].info is None
    assert report.fields["y"].balance == {"0": 1, "1": 2, "2": 0, "3": 1, "4": 0, "5": 2}
    write_h5(tmp_path / "c.h5", x=np.zeros(4), y=np.zeros(3))
    assert inspect(tmp_path / "c.h5").num_samples == -1


@pytest.mark.parametrize(
    ("stored", "is_fast", "reason"),
    [
        (((10**6, 28, 28), "uint8", None, None), True, "contiguous"),
        (((10**6, 28, 28), "uint8", (1024, 28, 28), None), True, "1,024 of them"),
        (((10000, 28, 28), "uint8", (1250, 4, 7), None), False, "in 28 chunks"),
        (((10**6, 28, 28), "uint8", (10**6, 28, 28), None), False, "748 MiB"),
        (((10**6, 8), "uint8", (1, 8), None), False, "1,000,000 chunks of 8 bytes"),
        (((10**6, 28, 28), "uint8", (1024, 28, 28), "gzip"), False, "gzip: decompressing"),
        (((20,), "int64", (64,), None), True, "20 of them"),
        (((0, 3), "int64", (64, 3), None), True, "whole samples"),
    ],
)
def test_advice(stored, is_fast, reason):
    advice = advise(Stored(*stored))
    assert advice.is_fast == is_fast
    assert reason in advice.reason


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_damaged_chunk_is_named(tmp_path, compression):
    write(tmp_path / "set", 50, Layout(8, 20, compression))
    good = verify(tmp_path / "set")
    assert good.is_good
    assert good.has_checksums
    assert (good.num_shards, good.num_chunks) == (3, 2 * (3 + 3 + 2))
    shard = tmp_path / "set" / "shard-00001.h5"
    with h5py.File(shard) as file:
        place = file["label"].id.get_chunk_info_by_coord((16,)).byte_offset
    flip(shard, place)
    told = []
    found = verify(tmp_path / "set", told.append)
    problem = "checksum does not match"
    assert found.damages == (Damage("shard-00001.h5", problem, "label", 2, (16, 20)),)
    assert told == [1, 2, 3]


def test_any_flipped_byte_of_data_is_found(tmp_path):
    write(tmp_path / "set", 8, Layout(8, 8))
    shard = tmp_path / "set" / "shard-00000.h5"
    with h5py.File(shard) as file:
        info = file["image"].id.get_chunk_info(0)
    for offset in range(info.byte_offset, info.byte_offset + info.size):
        flip(shard, offset, 0x80)
        assert not verify(tmp_path / "set").is_good
        flip(shard, offset, 0x80)
    assert verify(tmp_path / "set").is_good


def test_damage_of_files(tmp_path):
    write(tmp_path / "set", 70)
    shards = sorted((tmp_path / "set").glob("*.h5"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:300])
    with h5py.File(shards[2], "r+") as file:
        del file["image"]
        file["label"].resize(19, 0)
    write(tmp_path / "other", 20, Layout(8, 20))
    with h5py.File(shards[3], "r+") as file:
        del file["_checksums/label"]
        file["_checksums/label"] = np.zeros(9, np.uint32)
    problems = {(d.shard, d.field): d.problem for d in verify(tmp_path / "set").damages}
    names = [shard.name for shard in shards]
    assert "No such file" in problems[names[0], None]
    assert "cannot open" in problems[names[1], None]
    assert problems[names[2], "image"] == "field is missing"
    assert "int64 (20,), as the index says (int64 (19,))" in problems[names[2], "label"]
    assert "one checksum per chunk" in problems[names[3], "label"]
    assert len(problems) == 5


def test_foreign_files_are_read_through(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        x = np.random.default_rng(0).random((64, 64))
        file.create_dataset("x", data=x, chunks=(8, 64), compression="gzip")
        file["s"] = ["text"] * 3
        place = file["x"].id.get_chunk_info_by_coord((24, 0)).byte_offset
    found = verify(tmp_path / "a.h5")
    assert found.is_good
    assert not found.has_checksums
    flip(tmp_path / "a.h5", place + 40, 0xFF)
    (damage,) = verify(tmp_path / "a.h5").damages
    assert (damage.shard, damage.field) == ("a.h5", "x")
    assert "cannot be read" in damage.problem
    assert damage.rows[0] <= 24 < damage.rows[1]


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    seed=st.integers(0, 2**64 - 1),
    how=st.sampled_from(["random", "sequential", "stratified"]),
    num_classes=st.integers(1, 5),
)
def test_splits_are_complete_and_have_the_sizes_asked_for(sizes, seed, how, num_classes):
    counts = {str(part): size for part, size in enumerate(sizes)}
    total = sum(sizes)
    labels = np.arange(total) * 7 % num_classes if how == "stratified" else None
    parts = assign(counts, seed, sequential=how == "sequential", labels=labels)
    assert np.bincount(parts, minlength=len(sizes)).tolist() == sizes
    assert np.array_equal(
        parts, assign(counts, seed, sequential=how == "sequential", labels=labels)
    )
    if how == "sequential":
        assert np.all(np.diff(parts.astype(int)) >= 0)
    if labels is not None:
        for label in range(num_classes):
            mine = parts[labels == label]
            for part, size in enumerate(sizes):
                share = np.count_nonzero(mine == part)
                assert abs(share - len(mine) * size / total) < 2


def test_golden_split():
    """The same seed divides alike for all time."""
    assert assign({"a": 6, "b": 3}, 5).tolist() == GOLDEN_RANDOM
    labels = np.array([0, 1, 0, 1, 0, 1, 1, 1, 1])
    assert assign({"a": 6, "b": 3}, 5, labels=labels).tolist() == GOLDEN_STRATIFIED
    assert assign({"a": 100, "b": 100}, 1).tolist() != assign({"a": 100, "b": 100}, 2).tolist()


GOLDEN_RANDOM = [0, 1, 1, 0, 0, 0, 0, 1, 0]
GOLDEN_STRATIFIED = [0, 0, 0, 1, 1, 0, 0, 0, 1]


def test_split_parts_are_disjoint_and_complete(tmp_path):
    write(tmp_path / "set", 50, source="here", licence="CC0-1.0")
    source = open_source("auto", tmp_path / "set")
    parts = assign({"train": 35, "test": 15}, 3, labels=labels_of(source, "label"))
    told = []
    indices = write_parts(
        source, tmp_path / "out", ["train", "test"], parts, note="split", told=told.append
    )
    assert {part: index.num_samples for part, index in indices.items()} == {
        "train": 35,
        "test": 15,
    }
    everything_there = sample_arrays(50)
    for number, part in enumerate(("train", "test")):
        found = read(tmp_path / "out" / part)
        assert np.array_equal(found["image"], everything_there["image"][parts == number])
        assert np.array_equal(found["label"], everything_there["label"][parts == number])
        index = Index.read(tmp_path / "out" / part)
        assert (index.source, index.licence) == ("here; split", "CC0-1.0")
        assert index.fields["label"].classes == FIELDS["label"].classes
        assert verify(tmp_path / "out" / part).is_good
    assert told[-1] == 50


def test_a_split_that_fails_leaves_nothing(tmp_path):
    write(tmp_path / "set", 50)
    with h5py.File(tmp_path / "set" / "shard-00002.h5", "r+") as file:
        del file["label"]
    source = open_source("auto", tmp_path / "set")
    with pytest.raises(DataError, match="cannot read"):
        write_parts(source, tmp_path / "out", ["train", "test"], assign({"a": 25, "b": 25}, 0))
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"train": 0.8, "validation": 0.1, "test": 0.1}, [8, 1, 1]),
        ({"train": 1 / 3, "test": 2 / 3}, [3, 7]),
        ({"train": 7, "test": 3}, [7, 3]),
        ({"train": 1.0}, [10]),
        ({"train": 7, "test": 2}, "counts must sum up to the 10 samples"),
        ({"train": 0.5, "test": 0.2}, "fractions must sum up to 1"),
        ({"train": 0.5, "test": 5}, "all fractions or all counts"),
        ({"train": 0.99, "test": 0.01}, "test would get none of the 10 samples"),
        ({"train": 1.5, "test": -0.5}, "must be positive"),
        ({}, "must be positive"),
    ],
)
def test_shares(shares, expected):
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            count_samples(10, shares)
    else:
        assert list(count_samples(10, shares).values()) == expected


def test_fields_to_stratify_by(tmp_path):
    write(tmp_path / "set", 50)
    source = open_source("auto", tmp_path / "set")
    assert labels_of(source, "label").tolist() == sample_arrays(50)["label"].tolist()
    with pytest.raises(UsageError, match="did you mean 'label'"):
        labels_of(source, "labels")
    with pytest.raises(UsageError, match="one integer per sample"):
        labels_of(source, "image")


def test_the_digits_that_ship(tmp_path):
    """They are what `data split` makes of their union, with every class in both parts."""
    train, test = (inspect(BUILTIN / "digits" / part) for part in ("train", "test"))
    assert (train.num_samples, test.num_samples) == (1437, 360)
    assert [s.samples for s in train.shards] == [479, 479, 479]
    for name, count in {"0": 178, "1": 182, "2": 177, "8": 174, "9": 180}.items():
        both = train.fields["label"].balance[name] + test.fields["label"].balance[name]
        assert both == count
        assert abs(test.fields["label"].balance[name] - count * 360 / 1797) < 1
    for part in ("train", "test"):
        assert verify(BUILTIN / "digits" / part).is_good
        assert read(BUILTIN / "digits" / part)["image"].max() == 16
    total = sum(
        len(b) for p in ("train", "test") for b in everything(BUILTIN / "digits" / p).values()
    )
    assert total < 2**18
    assert dataclasses.asdict(train)["licence"] == "CC BY 4.0"
