"""Skipping damage: what is delivered is right, what is left out is counted, whoever reads it."""

import h5py
import numpy as np
import pytest

from hpc_train.data import Loader, make_order, open_shards
from hpc_train.data.dataset import open_dataset
from hpc_train.data.layout import Layout
from hpc_train.data.order.partners import partners
from hpc_train.errors import DataError
from hpc_train.plan import Course, Plan
from tests.data import samples

COUNT = 50


@pytest.fixture(autouse=True)
def no_delays(monkeypatch):
    monkeypatch.setattr(open_shards, "_DELAYS", (0.0,))


def dataset_at(folder, compression="gzip"):
    samples.write(folder, COUNT, Layout(4, 20, compression))
    return open_dataset(str(folder), ["image", "label"], 4)


def epoch(dataset, counts=(1,), *, ahead=True, skip=True, mixed=False):
    """All samples of an epoch as the ranks of a plan get them, and how many were skipped."""
    plan = Plan(counts)
    batches = list(Course(COUNT, 8).batches(0, 7))
    found = []
    for rank in range(len(counts)):
        order = make_order("window", dataset.blocks(), 1, 3)
        other = (lambda batch: partners(1, batch)) if mixed else None
        fields = ["image", "label"]
        with Loader(dataset, order, fields, skip_damage=skip, partners=other) as loader:
            works = [plan.work(batch, rank) for batch in batches]
            if ahead:
                loader.follow(iter(works))
            for work in works:
                got = loader.get(work)
                pairs = got.partners.ids.tolist() if mixed else None
                images = got.arrays["image"].copy()
                found.append((got.ids.tolist(), images, got.skipped, got.digest, pairs))
    return found


def check(found):
    """Every sample is right; gives the ids that were delivered."""
    ids = [i for part in found for i in part[0]]
    images = np.concatenate([part[1] for part in found])
    assert np.array_equal(images, samples.sample_arrays(COUNT)["image"][ids])
    assert len(ids) == len(set(ids)) == COUNT - sum(part[2] for part in found)
    return sorted(ids)


@pytest.mark.parametrize("ahead", [False, True])
def test_what_is_left_is_the_same_on_any_number_of_ranks(tmp_path, ahead):
    dataset = dataset_at(tmp_path / "data")
    with open(dataset.path(1), "r+b") as file:  # one chunk of images, one of labels
        with h5py.File(dataset.path(1)) as shard:
            places = [shard[n].id.get_chunk_info(k).byte_offset for n, k in _CHUNKS]
        for place in places:
            file.seek(place + 3)
            file.write(b"\xff\x00\xff")
    left = [i for i in range(COUNT) if i not in (*range(24, 28), *range(36, 40))]
    one = epoch(dataset, ahead=ahead)
    assert check(one) == left
    for counts in [(1, 1), (3, 0, 2)]:
        several = epoch(dataset, counts, ahead=ahead)
        assert check(several) == left
        assert sum(p[3] for p in several) % 2**32 == sum(p[3] for p in one) % 2**32
    mixed = epoch(dataset, mixed=True)
    assert all(len(part[4]) == len(part[0]) for part in mixed)
    assert {i for part in mixed for i in part[4]} <= set(left)
    with pytest.raises(DataError, match="checksum does not match"):
        epoch(dataset, skip=False)


_CHUNKS = [("image", 1), ("label", 4)]


def test_a_shard_that_is_gone_is_left_out_as_a_whole(tmp_path, caplog):
    dataset = dataset_at(tmp_path / "data")
    dataset.path(0).unlink()
    assert check(epoch(dataset, (1, 1))) == list(range(20, 50))
    assert "shard-00000.h5: block 0 is skipped: cannot read" in caplog.text


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_two_hundred_damaged_shards_never_give_a_wrong_sample(tmp_path, compression):
    dataset = dataset_at(tmp_path / "data", compression)
    shard = dataset.path(1)
    content, generator = shard.read_bytes(), np.random.default_rng(7)
    assert check(epoch(dataset)) == list(range(COUNT))
    skipped = 0
    for number in range(100):
        damaged = bytearray(content)
        if number % 4 == 0:
            del damaged[int(generator.integers(len(content))) :]
        else:
            place = int(generator.integers(len(content)))
            damaged[place] ^= 1 << int(generator.integers(8))
        shard.write_bytes(damaged)
        ids = check(epoch(dataset, ahead=number % 10 == 0))
        assert set(ids) >= {*range(20), *range(40, 50)}  # the other shards are whole
        skipped += len(ids) < COUNT
    assert skipped > 20
