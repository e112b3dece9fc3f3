"""From arrays to tensors: types, scaling, micro-batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hpc_train.data import Dataset, Samples
from hpc_train.data.index import FieldInfo, Index
from hpc_train.data.moments import Moments
from hpc_train.train.feed import Feed, normal_of


def feed(scale="auto", micro=None, dtype=torch.float32):
    return Feed(["x"], ["y"], torch.device("cpu"), dtype, scale, micro)


def samples(x, y=None):
    x = np.asarray(x)
    return Samples(np.arange(len(x)), {"x": x, "y": np.zeros(len(x)) if y is None else y}, 0)


@pytest.mark.parametrize(
    ("stored", "scale", "expected", "values"),
    [
        ("uint8", "auto", torch.float32, [0.0, 1.0]),
        ("uint8", "none", torch.int64, [0, 255]),
        ("uint8", 0.5, torch.float32, [0.0, 127.5]),
        ("int32", "auto", torch.int64, [0, 255]),
        ("uint16", "auto", torch.int64, [0, 255]),
        ("uint16", 2.0, torch.float32, [0.0, 510.0]),
        ("float32", "auto", torch.float32, [0.0, 255.0]),
        ("float16", "auto", torch.float32, [0.0, 255.0]),
        ("float64", 0.1, torch.float32, [0.0, 25.5]),
        ("bool", "none", torch.int64, [0, 1]),
    ],
)
def test_inputs_are_scaled_numbers_or_integers(stored, scale, expected, values):
    batch = feed(scale).batch(samples(np.array([0, 255]).astype(stored)), 0, 2)
    assert batch.inputs["x"].dtype == expected
    assert batch.inputs["x"].tolist() == pytest.approx(values)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [("uint8", torch.int64), ("uint32", torch.int64), ("float32", torch.float64)],
)
def test_targets_are_never_scaled(stored, expected):
    y = np.array([3, 200]).astype(stored)
    batch = feed(0.5, dtype=torch.float64).batch(samples([0.0, 1.0], y), 0, 2)
    assert batch.target.dtype == expected
    assert batch.target.tolist() == [3, 200]


@pytest.mark.parametrize(
    ("size", "micro", "expected"),
    [
        (5, 2, [(0, 2), (2, 2), (4, 1)]),
        (5, None, [(0, 5)]),
        (5, 9, [(0, 5)]),
        (0, 2, []),
        (0, None, []),
    ],
)
def test_micro_batches_cover_a_share_in_order(size, micro, expected):
    parts = list(feed(micro=micro).parts(samples(np.arange(size, dtype=np.float32))))
    assert [(start, len(batch.inputs["x"])) for start, batch in parts] == expected
    assert [v for _, b in parts for v in b.inputs["x"].tolist()] == list(range(size))


def images(dtype="uint8", shape=(3, 4, 5)):
    return np.random.default_rng(3).integers(0, 200, (40, *shape)).astype(dtype)


def described(values):
    """A data set, without files, whose index knows the statistics of these values."""
    moments = Moments(values.shape[1:])
    moments.add(values)
    mean, std = moments.result()
    info = FieldInfo(values.shape[1:], values.dtype.name, mean=mean, std=std)
    return Dataset("x", Path(), Index({"x": info}, ()), 0, len(values))


@pytest.mark.parametrize("scale", ["auto", "none", 0.5])
@pytest.mark.parametrize(
    ("dtype", "shape", "axes"),
    [
        ("uint8", (3, 4, 5), (0, 2, 3)),
        ("int16", (3, 4, 5), (0, 2, 3)),
        ("uint16", (2, 3, 3), (0, 2, 3)),
        ("float32", (4,), (0,)),
        ("uint8", (6, 5), (0, 1, 2)),
        ("float64", (), (0,)),
    ],
)
def test_normalized_inputs_have_mean_0_and_deviation_1_in_each_channel(dtype, shape, axes, scale):
    values = images(dtype, shape)
    normal = normal_of(described(values), ["x"], torch.device("cpu"), torch.float64)
    fed = Feed(["x"], [], torch.device("cpu"), torch.float64, scale, None, normal=normal)
    found = fed.batch(samples(values), 0, 40).inputs["x"].numpy()
    assert found.shape == values.shape
    assert np.allclose(found.mean(axis=axes), 0, atol=1e-12)
    assert np.allclose(found.std(axis=axes), 1)
    assert fed.is_number("x", dtype)


def test_a_channel_that_never_varies_becomes_0():
    values = images()
    values[:, 1] = 7
    normal = normal_of(described(values), ["x"], torch.device("cpu"), torch.float32)
    fed = Feed(["x"], [], torch.device("cpu"), torch.float32, "auto", None, normal=normal)
    assert fed.batch(samples(values), 0, 40).inputs["x"][:, 1].abs().max() < 1e-6
