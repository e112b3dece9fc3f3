"""Mixed samples: their loss is the mixture of both losses, and the model is asked once."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpc_train.tasks import Classification, Mixed, Regression, TensorBatch
from hpc_train.tasks.mixing import losses_of

N, SHARE = 6, 0.3


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def batch(own, other):
    x = torch.randn(N, 4, dtype=torch.float64)
    mixed = Mixed({"y": other}, SHARE)
    return TensorBatch({"x": x}, {"y": own}, torch.arange(N), mixed=mixed)


@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 0.5]])
def test_classes(class_weights):
    torch.manual_seed(0)
    model = Counting(4, 3).double()
    own, other = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1, 1, 0, 2, 2, 2])
    given = batch(own, other)
    found = losses_of(Classification(class_weights), model, given)
    assert model.calls == 1
    scores = model(given.inputs["x"])
    weights = None if class_weights is None else torch.tensor(class_weights).double()
    total = sum(
        part * functional.cross_entropy(scores, y, weights, reduction="sum")
        for part, y in ((SHARE, own), (1 - SHARE, other))
    )
    whole = (
        N
        if weights is None
        else sum(part * weights[y].sum() for part, y in ((SHARE, own), (1 - SHARE, other)))
    )
    ours = found.values.sum() if weights is None else (found.values * found.weights).sum()
    torch.testing.assert_close(ours, total)
    if weights is not None:
        torch.testing.assert_close(found.weights.sum(), whole)
    right = [(scores.argmax(1) == y).double() for y in (own, other)]
    if weights is None:
        expected = SHARE * right[0].sum() + (1 - SHARE) * right[1].sum()
        torch.testing.assert_close(found.sums["accuracy"], expected)


def test_numbers_and_plain_batches():
    torch.manual_seed(0)
    model = Counting(4, 1).double()
    own, other = torch.randn(2, N, dtype=torch.float64)
    given = batch(own, other)
    out = model(given.inputs["x"])[:, 0]
    expected = SHARE * (out - own) ** 2 + (1 - SHARE) * (out - other) ** 2
    torch.testing.assert_close(losses_of(Regression(), model, given).values, expected)
    plain = TensorBatch(given.inputs, given.targets, given.ids)
    torch.testing.assert_close(losses_of(Regression(), model, plain).values, (out - own) ** 2)
