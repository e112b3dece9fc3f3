"""Sequences: the loss of a batch is the mean over its positions that count."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpc_train.errors import DataError
from hpc_train.tasks import NextToken, SequenceLabels, TensorBatch, summarized
from hpc_train.train.sums import Sums
from hpc_train.train.sums import totals as of_batch

GENERATOR = torch.Generator().manual_seed(5)
SCORES = torch.randn(6, 5, 7, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(7, (6, 5), generator=GENERATOR)


def totals(task, **targets):
    sums = Sums()
    for start, stop in ((0, 1), (1, 6)):
        cut = {name: target[start:stop] for name, target in targets.items()}
        batch = TensorBatch({"x": SCORES[start:stop]}, cut, torch.arange(start, stop))
        sums.add(of_batch(task.losses(nn.Identity(), batch), stop - start), stop - start)
    tally = sums.tally()
    return tally.loss / tally.weight, summarized(task, tally.weight, tally.loss, tally.sums)


def test_perplexity_is_that_of_all_tokens():
    loss, metrics = totals(NextToken(), token=LABELS)
    expected = functional.cross_entropy(SCORES.flatten(0, 1), LABELS.flatten())
    assert loss == pytest.approx(float(expected))
    assert metrics["perplexity"] == pytest.approx(math.exp(float(expected)))
    right = (SCORES.argmax(2) == LABELS).double().mean()
    assert metrics["accuracy"] == pytest.approx(float(right))


def test_padding_does_not_count():
    labels = LABELS.clone()
    labels[0] = -1  # a whole sequence
    labels[2, 3:] = -1
    loss, _ = totals(SequenceLabels(ignore=-1), tag=labels)
    expected = functional.cross_entropy(SCORES.flatten(0, 1), labels.flatten(), ignore_index=-1)
    assert loss == pytest.approx(float(expected))


def test_positions_have_weights():
    weights = torch.rand(6, 5, generator=GENERATOR, dtype=torch.float64)
    loss, _ = totals(SequenceLabels(weights="w"), tag=LABELS, w=weights)
    each = functional.cross_entropy(SCORES.flatten(0, 1), LABELS.flatten(), reduction="none")
    assert loss == pytest.approx(float((each * weights.flatten()).sum() / weights.sum()))


@pytest.mark.parametrize(
    ("task", "targets", "message"),
    [
        (SequenceLabels(), {"tag": LABELS[:, :3]}, "scores of shape"),
        (SequenceLabels(), {"tag": LABELS + 3}, r"label must lie in \[0, 7\)"),
        (SequenceLabels(), {"tag": LABELS, "more": LABELS}, "need one target"),
        (SequenceLabels(weights="w"), {"tag": LABELS}, "task.weights must name one"),
    ],
)
def test_targets_must_fit(task, targets, message):
    with pytest.raises(DataError, match=message):
        totals(task, **targets)
