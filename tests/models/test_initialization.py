"""First weights: each rule has the variance that its paper says; LSUV equalises outputs."""

import math

import pytest
import torch
from torch import nn

from hpc_train.errors import ConfigError
from hpc_train.models.initialization import INITIALIZERS, equalize, initialize

IN, OUT = 300, 200
STD = {
    "xavier_uniform": math.sqrt(2) * math.sqrt(2 / (IN + OUT)),
    "xavier_normal": math.sqrt(2) * math.sqrt(2 / (IN + OUT)),
    "kaiming_uniform": math.sqrt(2 / IN),
    "kaiming_normal": math.sqrt(2 / IN),
    "truncated_normal": 0.05 * 0.8796,  # a normal cut at twice its deviation
}


@pytest.mark.parametrize("name", sorted(INITIALIZERS))
def test_weights_have_the_deviation_of_the_rule(name):
    torch.manual_seed(0)
    layer = nn.Linear(IN, OUT)
    initialize(layer, name, "relu", 0.05)
    weight = layer.weight.detach()
    assert not layer.bias.any()
    if name in STD:
        assert float(weight.std()) == pytest.approx(STD[name], rel=0.02)
    if name.endswith("uniform"):
        assert float(weight.abs().max()) <= STD[name] * math.sqrt(3) * 1.001
    if name == "truncated_normal":
        assert float(weight.abs().max()) <= 0.1
    if name in ("orthogonal", "lsuv"):
        gain = 2 if name == "orthogonal" else 1
        torch.testing.assert_close(weight @ weight.T, gain * torch.eye(OUT), atol=1e-4, rtol=0)


def test_other_layers_keep_what_they_have():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    initialize(model, "orthogonal", "relu", 0.02)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"1.weight", "1.bias"}
    with pytest.raises(ConfigError, match="needs linear or convolutional layers"):
        initialize(nn.LayerNorm(4), "orthogonal", "relu", 0.02)
    with pytest.raises(ConfigError, match="unknown initialization"):
        initialize(model, "orthogonl", "relu", 0.02)


def test_lsuv_gives_every_layer_outputs_of_variance_one():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 50),
        nn.Tanh(),
        nn.Linear(50, 10),
    )
    x = torch.rand(128, 1, 8, 8) * 20
    initialize(model, "lsuv", "relu", 0.02)
    assert equalize(model, lambda: model(x)) == 3
    for depth in (1, 4, 6):
        assert abs(float(model[:depth](x).detach().var(correction=0)) - 1) < 0.1
