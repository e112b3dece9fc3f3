"""Batch norm and a share of a single sample."""

import pytest
import torch
from torch import nn

from hpc_train.models.lone_samples import lone_sample


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()


def test_a_single_sample_is_normalized_by_running_statistics():
    model, sample = network(), torch.randn(1, 3)
    with pytest.raises(ValueError, match="more than 1 value"):
        model(sample)
    before = model[1].num_batches_tracked.clone()
    with lone_sample(model, 1):
        found = model(sample)
    found.sum().backward()
    assert torch.equal(found, model.eval()(sample))
    assert model[1].num_batches_tracked == before
    assert model[0].weight.grad.abs().sum() > 0


def test_all_layers_train_again_afterwards_and_more_samples_change_nothing():
    model, samples = network(), torch.randn(2, 3)
    with lone_sample(model, 1):
        assert not model[1].training
    assert all(layer.training for layer in model.modules())
    with lone_sample(model, 2):
        assert model[1].training
    model[1].eval()  # frozen by the user: stays so
    with lone_sample(model, 1):
        model(samples)
    assert not model[1].training
