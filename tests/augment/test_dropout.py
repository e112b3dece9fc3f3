"""Keyed dropout: the masks of a sample are its own, in any split."""

import pytest
import torch
from torch import nn

from hpc_train.augment.dropout import find_present, replace_dropout
from hpc_train.errors import HpcTrainError

IDS = torch.arange(1000, 1064)


def made(p=0.3):
    model = nn.Sequential(nn.Dropout(0.9), nn.Sequential(nn.Dropout2d(0.9)), nn.Flatten())
    present = replace_dropout(model, p, seed=5)
    return model, present


def run(model, present, x, ids, epoch=0):
    present.epoch, present.ids = epoch, ids
    return model(x)


def test_masks_belong_to_samples_and_layers():
    model, present = made()
    assert find_present(model) is present
    x = torch.ones(64, 8, 5, 5)
    whole = run(model, present, x, IDS)
    parts = [run(model, present, x[s], IDS[s]) for s in (slice(0, 10), slice(10, 64))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(run(model, present, x, IDS, epoch=1), whole)
    assert not torch.equal(run(model, present, x, IDS + 64), whole)
    alone, by_channel = model[0](x), model[1](x)
    assert not torch.equal(alone, by_channel)
    assert ((by_channel.flatten(2) == by_channel.flatten(2)[..., :1]).all(),) == (True,)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_rate_and_mean_are_right(p):
    model, present = made(p)
    present.ids = IDS
    x = torch.ones(64, 1000)
    out = model[0](x)
    assert abs(float((out == 0).double().mean()) - p) < 0.01
    assert abs(float(out.mean()) - 1) < 0.02
    assert torch.allclose(out[out != 0], torch.tensor(1 / (1 - p)))


def test_evaluation_is_untouched_and_models_without_layers_are_told():
    model, _ = made()
    x = torch.rand(4, 2, 3, 3)
    assert torch.equal(model.eval()(x), x.flatten(1))
    assert replace_dropout(nn.Linear(2, 2), 0.5, 0) is None


def test_the_first_axis_must_be_the_sample():
    model, present = made()
    with pytest.raises(HpcTrainError, match="first axis is the sample"):
        run(model, present, torch.ones(5, 64, 3, 3), IDS)
