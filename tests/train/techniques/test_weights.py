"""Techniques on weights: penalties have their closed form, max-norm bounds each unit."""

import pytest
import torch
from torch import nn

from hpc_train.config import load
from hpc_train.optim import Settings
from hpc_train.strategies import Learner, Tally
from hpc_train.train.techniques import max_norm, penalty


def config(**regularization):
    sections = {"data": {"train": "x", "inputs": "x"}, "model": {"name": "mlp"}}
    return load(None, sections={**sections, "regularization": regularization}).config


def linear():
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    return model, Learner("all", model.named_parameters(), "sgd", Settings(lr=0.1))


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_penalties_add_their_derivative_and_leave_biases_alone(l1, l2):
    model, learner = linear()
    technique = penalty.make(config(l1=l1, l2=l2))
    weights = [1.5, 4.0]  # of two ranks' parts of a batch
    for weight in weights:
        technique.gradients(learner, Tally(weight=weight))
    w = model.weight.detach().clone().requires_grad_()
    (l1 * w.abs().sum() + l2 / 2 * w.square().sum()).backward()
    torch.testing.assert_close(model.weight.grad / sum(weights), w.grad)
    assert not model.bias.grad.any()


def test_l2_shrinks_a_linear_model_to_its_closed_form():
    """Ridge regression: (X'X / n + l2) w = X'y / n."""
    torch.manual_seed(1)
    x, y = torch.randn(50, 4).double(), torch.randn(50, 1).double()
    model = nn.Linear(4, 1, bias=False).double()
    learner = Learner("all", model.named_parameters(), "sgd", Settings(lr=0.3))
    technique = penalty.make(config(l2=0.7))
    for _ in range(300):
        learner.zero()
        (0.5 * (model(x) - y).square().sum()).backward()
        technique.gradients(learner, Tally(weight=50.0))
        learner.update(1 / 50)
    expected = torch.linalg.solve(x.T @ x / 50 + 0.7 * torch.eye(4), x.T @ y / 50)
    torch.testing.assert_close(model.weight.detach(), expected.T)


def test_max_norm_shortens_what_is_too_long_and_nothing_else():
    model, learner = linear()
    with torch.no_grad():
        model.weight[0] *= 10
        model.weight[1] *= 0.1
        model.bias.fill_(100.0)
    before = model.weight.detach().clone()
    max_norm.make(config(max_norm=0.5)).updated(learner)
    assert float(model.weight[0].detach().norm()) == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(model.weight[0] / 0.5, before[0] / before[0].norm())
    assert torch.equal(model.weight[1], before[1])
    assert (model.bias == 100).all()


def test_all_of_it_is_off_by_default():
    assert penalty.make(config()) is None
    assert max_norm.make(config()) is None
