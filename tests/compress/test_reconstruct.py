"""A network rebuilt without its dead channels computes what the masked one does."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hpc_train.compress import couple, make_pruner, reconstruct
from hpc_train.compress.pruning import Rule
from hpc_train.errors import UsageError
from tests.compress.networks import NETWORKS, example, make


def flops(model):
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(example(1))
    return counter.get_total_flops()


def pruned(model, amount, multiple=1):
    pruner = make_pruner("channels", Rule(model, example(), amount, multiple=multiple))
    named = dict(model.named_parameters())
    masks = {name: torch.ones_like(named[name], dtype=torch.bool) for name in pruner.names}
    masked = copy.deepcopy(model)
    own = dict(masked.named_parameters())
    with torch.no_grad():
        for name, mask in pruner.masks(masks, {}, 1.0).items():
            own[name].mul_(mask)
    return masked


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_outputs_stay_and_operations_go(name):
    model = make(name)
    masked = pruned(model, 0.5)
    smaller = reconstruct(masked, example())
    assert (masked(example()) - model(example())).abs().max() > 1e-3
    torch.testing.assert_close(smaller(example()), masked(example()), rtol=1e-5, atol=1e-5)
    assert 0.3 < flops(smaller) / flops(model) < 0.55
    assert all(p.numel() for p in smaller.parameters())


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_operations_are_counted_as_torch_counts_them(name):
    model = make(name)
    coupling = couple(model, example())
    assert coupling.flops([space.size for space in coupling.spaces]) == flops(model)


def test_a_smaller_network_is_trained_and_saved_like_any_other():
    smaller = reconstruct(pruned(make("residual"), 0.5), example()).train()
    smaller(example()).sum().backward()
    assert smaller.inner.in_channels == smaller.stem.out_channels == smaller.norm.num_features
    assert smaller.depthwise.groups == smaller.outer.out_channels == smaller.stem.out_channels
    again = copy.deepcopy(smaller)
    again.load_state_dict(smaller.state_dict())


def test_nothing_dead_nothing_removed():
    model = make("residual")
    smaller = reconstruct(model, example())
    assert {n: p.shape for n, p in smaller.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }


def test_a_residual_sum_dies_as_a_whole():
    model = make("residual")
    with torch.no_grad():  # one of the two that are added, alone
        model.outer.weight[0] = 0
        model.outer.bias[0] = 0
    assert reconstruct(model, example()).outer.out_channels == 8


class Twice(nn.Module):
    """What cannot be pruned: a layer used twice, a concatenation, an offset."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(self.first(x))
        return self.head(torch.cat([self.second(x) + 1, x], dim=1))


def test_what_the_graph_cannot_tell_is_left_alone():
    assert couple(Twice(), torch.zeros(1, 8)).spaces == ()


def test_tied_weights_are_left_alone():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert len(couple(model, torch.zeros(1, 8)).spaces) == 2
    model[2].weight = model[0].weight
    assert couple(model, torch.zeros(1, 8)).spaces == ()


def test_sigmoids_make_zeros_something_else():
    model = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2))
    assert couple(model, torch.zeros(1, 8)).spaces == ()


def test_a_network_that_branches_is_refused():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 2)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    with pytest.raises(UsageError, match=r"torch\.fx cannot trace"):
        couple(Branching(), torch.zeros(1, 8))
