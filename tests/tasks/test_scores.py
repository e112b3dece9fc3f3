"""Metrics of classes and of values: their definitions, from sums that were added up in parts."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hpc_train.errors import ConfigError
from hpc_train.tasks import Classification, Regression, TensorBatch, summarized, sums_of
from hpc_train.train.sums import Sums
from hpc_train.train.sums import totals as of_batch

CLASSES = 4
WANTED = ["accuracy", "top_2", "f1_macro", "f1_micro", "confusion"]


def measured(task, inputs, target, cuts=(0, 7, 8, 50)):
    """The metrics of a task over samples that come in parts."""
    sums = Sums()
    for start, stop in pairwise(cuts):
        part = TensorBatch(
            {"x": inputs[start:stop]}, {"y": target[start:stop]}, torch.arange(start, stop)
        )
        sums.add(of_batch(task.losses(nn.Identity(), part), stop - start), stop - start)
    tally = sums.tally()
    assert set(tally.sums) == set(sums_of(task))
    return summarized(task, tally.weight, tally.loss, tally.sums)


def test_metrics_of_classes_are_as_defined():
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(50, CLASSES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (50,), generator=generator)
    task = Classification(metrics=WANTED, num_classes=CLASSES)
    found = measured(task, scores, labels)
    assert list(found) == list(task.metrics)
    said = scores.argmax(1).numpy()
    so = labels.numpy()
    count = np.zeros((CLASSES, CLASSES))
    np.add.at(count, (so, said), 1)
    for i in range(CLASSES):
        for j in range(CLASSES):
            assert found[f"confusion_{i}_{j}"] == count[i, j]
    f1 = [2 * count[c, c] / (count[c].sum() + count[:, c].sum()) for c in range(CLASSES)]
    best = scores.argsort(1, descending=True)[:, :2].numpy()
    assert found["f1_macro"] == pytest.approx(np.mean(f1))
    assert found["f1_micro"] == pytest.approx(np.mean(said == so))  # each sample has one class
    assert found["accuracy"] == pytest.approx(np.mean(said == so))
    assert found["top_2"] == pytest.approx(np.mean([y in b for y, b in zip(so, best, strict=True)]))


@pytest.mark.parametrize(
    ("metrics", "num_classes", "message"),
    [
        (["f2"], 3, 'unknown metric "f2"'),
        (["top_0"], 3, "unknown metric"),
        (["f1_macro"], None, "need a number of classes"),
        (["confusion"], 65, "at most 64 classes"),
        ("accuracy", 3, "must be a list"),
    ],
)
def test_metrics_must_be_known(metrics, num_classes, message):
    with pytest.raises(ConfigError, match=message):
        Classification(metrics=metrics, num_classes=num_classes)


@pytest.mark.parametrize("shape", [(50,), (50, 3)])
def test_r_squared_is_the_share_of_variance_explained(shape):
    generator = torch.Generator().manual_seed(4)
    target = 5 + torch.randn(shape, generator=generator, dtype=torch.float64)
    predicted = target + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    found = measured(Regression(), predicted, target)
    residual = ((predicted - target) ** 2).mean() / target.var(correction=0)
    assert found["r2"] == pytest.approx(1 - float(residual))
    assert found["mae"] == pytest.approx(float((predicted - target).abs().mean()))


def test_constant_targets_have_no_r_squared():
    assert math.isnan(measured(Regression(), torch.zeros(50), torch.ones(50))["r2"])
