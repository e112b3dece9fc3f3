"""From arrays to tensors: types, scaling, micro-batches."""

import numpy as np
import pytest
import torch

from hpc_train.data import Samples
from hpc_train.train.feed import Feed


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
