"""What can be checked before a run: fields, labels, ranks, shares; and what is only strange."""

from pathlib import Path

import pytest

from hpc_train.config import load
from hpc_train.data import Dataset
from hpc_train.data.index import FieldInfo, Index, Shard
from hpc_train.errors import ConfigError, DataError
from hpc_train.train.survey import survey


def dataset(samples=100, **fields):
    fields = {
        "x": FieldInfo((1, 8, 8), "uint8"),
        "y": FieldInfo((), "int64", 0, 9),
        "z": FieldInfo((3,), "float32"),
    } | fields
    return Dataset(
        "name", Path("/nowhere"), Index(fields, (Shard("a.h5", samples, 10),)), 0, samples
    )


def plan(datasets=None, num_ranks=2, **sections):
    data = {"train": "a", "inputs": "x", "targets": "y", "batch_size": 32}
    sections["data"] = data | sections.get("data", {})
    sections = {"model": {"name": "mlp"}} | sections
    config = load(None, sections=sections).config
    return survey(config, {"train": dataset()} if datasets is None else datasets, num_ranks)


def test_a_plan_says_how_long_how_split_and_what_shapes():
    found = plan(run={"epochs": 3})
    assert (found.num_batches, found.course.per_epoch) == (12, 4)
    assert found.plan.counts == (16, 16)
    assert (found.input_shape, found.num_outputs) == ((1, 8, 8), 10)
    assert found.window == 10  # all blocks
    assert found.warnings == ()
    assert plan(run={"steps": 7}).num_batches == 7


def test_outputs_of_a_regression_are_the_values_of_its_target():
    assert plan(task={"name": "regression"}, data={"targets": "z"}).num_outputs == 3


@pytest.mark.parametrize(
    ("kind", "message", "options"),
    [
        (ConfigError, "not be more ranks than samples", {"num_ranks": 101}),
        (ConfigError, "needs data.targets", {"data": {"targets": None}}),
        (ConfigError, "one share for each of the 2 ranks", {"schedule": {"shares": [1, 1, 1]}}),
        (
            DataError,
            r"labels of a classification must be integers, .*z: float32",
            {"data": {"targets": "z"}},
        ),
        (
            DataError,
            r"label must lie in \[0, 5\) \(labels found: 0 .. 9\)",
            {"model": {"name": "mlp", "num_classes": 5}},
        ),
    ],
)
def test_what_cannot_work_is_told_beforehand(kind, message, options):
    with pytest.raises(kind, match=message) as caught:
        plan(**options)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"x": FieldInfo((8, 8), "uint8")}, "field x must be as in data.train"),
        ({"x": FieldInfo((1, 8, 8), "float32")}, "field x must be as in data.train"),
        ({"y": FieldInfo((), "int64", 0, 10)}, r"label must lie in \[0, 10\)"),
        ({"y": FieldInfo((), "int64", -1, 9)}, r"label must lie in \[0, 10\)"),
    ],
)
def test_other_data_sets_must_be_like_the_one_for_training(other, message):
    with pytest.raises(DataError, match=message) as caught:
        plan({"train": dataset(), "test": dataset(**other)})
    assert "data.test" in caught.value.where


def test_idle_ranks_and_oversized_batches_are_warned_of():
    (idle,) = plan(num_ranks=3, schedule={"shares": [1, 0, 1]}).warnings
    assert idle == "rank 1 will train nothing: its share of a batch of 32 samples is 0"
    (large,) = plan(data={"batch_size": 500}).warnings
    assert "larger than an epoch" in large
