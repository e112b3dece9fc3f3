"""Learners: torch's own updates on flat arenas, and state that travels by name."""

import pytest
import torch
from torch import nn

from hpc_train.errors import ConfigError
from hpc_train.optim import OPTIMIZERS, Settings
from hpc_train.strategies import Learner

SETTINGS = Settings(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, centered=True)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def learner_of(model, optimizer="adamw", settings=SETTINGS, names=None):
    named = dict(model.named_parameters())
    return Learner("main", [(n, named[n]) for n in names or named], optimizer, settings)


def train(model, learner, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        learner.zero()
        model(torch.randn(4, 5, generator=generator)).square().sum().backward()
        learner.gather()
        learner.update(1.0)


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_state_travels_by_name_into_an_arena_of_another_layout(optimizer):
    whole, parts = network(), network()
    train(whole, learner_of(whole, optimizer), 3)
    first = learner_of(parts, optimizer)
    train(parts, first, 3)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    assert {name.rsplit("/", 1)[1] for name in saved} == OPTIMIZERS[optimizer].keeps(SETTINGS)
    other = network(9)
    other.load_state_dict(parts.state_dict())
    turned = learner_of(other, optimizer, names=["2.bias", "0.weight", "2.weight", "0.bias"])
    turned.load_state(saved)
    again = learner_of(whole, optimizer)
    again.load_state(saved)
    train(other, turned, 2, seed=3)
    train(whole, again, 2, seed=3)
    assert torch.equal(weights(other), weights(whole))
    assert {n: t.tolist() for n, t in turned.state().items()} == {
        n: t.tolist() for n, t in again.state().items()
    }


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fused_kernels_are_called_without_torch_s_way_to_them(optimizer, monkeypatch):
    short, long = network(), network()
    mine, theirs = learner_of(short, optimizer), learner_of(long, optimizer)
    monkeypatch.setattr(theirs, "_step_fused", lambda: False)
    step, calls = mine.optimizer.step, []
    monkeypatch.setattr(mine.optimizer, "step", lambda: (calls.append(1), step()))
    train(short, mine, 4)
    train(long, theirs, 4)
    assert len(calls) == 1  # the first update makes the state
    assert torch.equal(weights(short), weights(long))
    assert {n: t.tolist() for n, t in mine.state().items()} == {
        n: t.tolist() for n, t in theirs.state().items()
    }


def test_a_fresh_learner_has_no_state_and_none_can_be_loaded():
    model = network()
    learner = learner_of(model)
    assert learner.state() == {}
    learner.load_state({})
    train(model, learner, 1)


def test_rate_and_norm():
    model = network()
    learner = learner_of(model, "sgd")
    learner.set_rate(0.5)
    assert learner.rate == pytest.approx(0.025)
    learner.zero()
    assert learner.norm() == 0
    model(torch.ones(1, 5)).sum().backward()
    flat = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    assert learner.norm() == pytest.approx(float(flat.norm()), rel=1e-6)
    next(model.parameters()).grad[0, 0] = float("nan")
    assert learner.norm() != learner.norm()


def test_the_norm_of_large_single_precision_gradients_is_finite():
    model = network().float()
    learner = learner_of(model, "sgd")
    for parameter in model.parameters():
        parameter.grad.fill_(1e25)  # whose square is beyond single precision
    count = sum(parameter.numel() for parameter in model.parameters())
    assert learner.norm() == pytest.approx(1e25 * count**0.5, rel=1e-6)


def test_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match="phase main has no parameters to train"):
        learner_of(network().requires_grad_(False))
