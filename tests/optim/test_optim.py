"""Optimizers, clipping, curves: torch's own numbers on flat buffers."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpc_train.errors import UsageError
from hpc_train.optim import (
    LearningRate,
    Settings,
    clip_factor,
    make_optimizer,
)
from hpc_train.strategies import Learner

TORCH = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-6}),
    "adamw": (torch.optim.AdamW, {"betas": (0.8, 0.95), "eps": 1e-6}),
    "rmsprop": (
        torch.optim.RMSprop,
        {"alpha": 0.9, "eps": 1e-6, "momentum": 0.9, "centered": True},
    ),
    "adagrad": (torch.optim.Adagrad, {"eps": 1e-6}),
}
SETTINGS = Settings(0.01, 0.9, True, (0.8, 0.95), 1e-6, 0.1, alpha=0.9, centered=True)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


@pytest.mark.parametrize("name", sorted(TORCH))
def test_updates_of_flat_buffers_are_torchs_of_separate_parameters(name):
    flat, plain = network(), network()
    learner = Learner("main", flat.named_parameters(), name, SETTINGS)
    kind, options = TORCH[name]
    optimizer = kind(plain.parameters(), lr=0.01, weight_decay=0.1, foreach=False, **options)
    inputs = torch.randn(6, 3, dtype=torch.float64)
    for _ in range(5):
        learner.zero()
        optimizer.zero_grad()
        flat(inputs).square().sum().backward()
        plain(inputs).square().sum().backward()
        learner.update(1.0)
        optimizer.step()
    for mine, theirs in zip(flat.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-14)


def test_optimizers_do_not_load_the_compiler():
    script = (
        "import sys, torch\n"
        "from hpc_train.optim import OPTIMIZERS, Settings, make_optimizer\n"
        "for name in OPTIMIZERS:\n"
        "    weight = torch.nn.Parameter(torch.ones(2))\n"
        "    weight.grad = torch.ones(2)\n"
        "    make_optimizer(name, [weight], Settings()).step()\n"
        "    assert (weight < 1).all(), name\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), limit=st.floats(1e-3, 1e3))
def test_clipping_is_torchs(values, limit):
    parameter = nn.Parameter(torch.zeros(len(values), dtype=torch.float64))
    parameter.grad = torch.tensor(values, dtype=torch.float64)
    norm = float(parameter.grad.norm())
    mine = parameter.grad * clip_factor(norm, limit)
    nn.utils.clip_grad_norm_([parameter], limit)
    assert torch.allclose(mine, parameter.grad, rtol=1e-5, atol=1e-6)
    assert float(mine.norm()) <= limit * (1 + 1e-9)
    assert clip_factor(norm, None) == 1


def test_unknown_names_are_told():
    with pytest.raises(UsageError, match=r'unknown optimizer "adamm".*did you mean'):
        make_optimizer("adamm", [], SETTINGS)
    with pytest.raises(UsageError, match='unknown learning rate "cosin"'):
        LearningRate("cosin", 1)
