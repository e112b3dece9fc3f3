"""Mean and deviation of channels: right in any pieces, found once, kept for the same files."""

import json
import os

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.data import open_dataset, share_dataset, statistics, with_statistics
from hpc_train.data.index import Index
from hpc_train.data.moments import Moments
from hpc_train.errors import DataError
from tests.data import samples
from tests.groups import run_ranks


@given(
    shape=st.sampled_from([(), (3,), (4, 5), (3, 4, 5), (2, 3, 2, 2)]),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    shift=st.floats(-1e4, 1e4),
)
def test_any_pieces_give_what_all_at_once_would(shape, sizes, shift):
    values = np.random.default_rng(sum(sizes)).normal(shift, 3, (sum(sizes), *shape))
    moments = Moments(shape)
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        moments.add(part)
    axes = (0, *range(2, values.ndim)) if len(shape) not in (0, 2) else None
    mean, std = moments.result()
    assert np.allclose(mean, np.atleast_1d(values.mean(axis=axes)), rtol=1e-12)
    assert np.allclose(std, np.atleast_1d(values.std(axis=axes)), rtol=1e-9, atol=1e-12)


def test_no_numbers_and_those_that_are_not_finite_have_none():
    moments = Moments((2,))
    assert moments.result() == ((), ())
    moments.add(np.array([[1.0, 2.0], [np.inf, 3.0]]))
    assert moments.result() == ((), ())


def test_what_we_write_has_them_in_its_index(tmp_path):
    written = samples.write(tmp_path / "data", 50)
    image = samples.sample_arrays(50)["image"]
    assert written.fields["image"].mean == pytest.approx([image.mean()])
    assert written.fields["image"].std == pytest.approx([image.std()])
    assert written.fields["label"].mean == ()
    assert Index.read(tmp_path / "data") == written


@pytest.fixture
def foreign(tmp_path):
    """Two files of images in whole numbers, of which the second is longer."""
    (tmp_path / "set").mkdir()
    values = np.random.default_rng(0).integers(-300, 999, (31, 2, 4, 3)).astype("<i2")
    for number, part in enumerate((values[:10], values[10:])):
        with h5py.File(tmp_path / "set" / f"{number}.h5", "w") as file:
            file.create_dataset("image", data=part, chunks=(4, 1, 2, 3), compression=1)
            file.create_dataset("label", data=np.arange(len(part)))
    return tmp_path / "set", values


@pytest.fixture
def measured(monkeypatch):
    """The fields that were read for their statistics."""
    told, real = [], statistics._measure

    def note(dataset, names):
        told.append(list(names))
        return real(dataset, names)

    monkeypatch.setattr(statistics, "_measure", note)
    return told


def opened(path):
    return with_statistics(open_dataset(path, ["image", "label"], 8), ["image", "label"])


def test_of_other_files_they_are_found_once_and_kept(foreign, measured):
    folder, values = foreign
    mean, std = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
    for name in (str(folder), str(folder), f"{folder}[3:7]"):  # of all files, also of a range
        found = opened(name).index.fields
        assert found["image"].mean == pytest.approx(mean)
        assert found["image"].std == pytest.approx(std)
        assert found["label"].mean == ()
    assert measured == [["image"]]
    os.utime(folder / "1.h5", ns=(5, 5))
    opened(str(folder))
    assert measured == [["image"]] * 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:50],
        lambda text: text.replace("mean", "median"),
        lambda text: json.dumps(json.loads(text) | {"fields": {"image": {"mean": [1], "std": []}}}),
        lambda text: json.dumps(json.loads(text) | {"fields": []}),
    ],
)
def test_damage_to_what_was_kept_costs_time_and_nothing_else(foreign, measured, spoil):
    folder, _ = foreign
    right = opened(str(folder))
    (kept,) = folder.parent.glob(".*statistics.json")
    kept.write_text(spoil(kept.read_text()))
    assert opened(str(folder)).index == right.index
    assert len(measured) == 2


def test_where_nothing_can_be_kept_all_is_read_again(foreign, measured, caplog, monkeypatch):
    folder, _ = foreign
    monkeypatch.setattr(statistics, "_place", lambda dataset: folder / "absent" / "x.json")
    assert opened(str(folder)).index == opened(str(folder)).index
    assert len(measured) == 2
    assert "read again next time" in caplog.text


def test_numbers_that_are_not_finite_are_an_error(tmp_path):
    path = samples.write_h5(tmp_path / "x.h5", x=np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="needs finite numbers") as caught:
        with_statistics(open_dataset(str(path), ["x"], 8), ["x"])
    assert "field x" in caught.value.where


def test_all_ranks_have_what_one_has_read(foreign, measured):
    folder, _ = foreign

    def act(group):
        dataset = share_dataset(
            group, str(folder), ["image"], 8, complete=lambda d: with_statistics(d, ["image"])
        )
        return dataset.index.fields["image"]

    found = run_ranks(3, act)
    assert measured == [["image"]]
    assert found == [opened(str(folder)).index.fields["image"]] * 3
