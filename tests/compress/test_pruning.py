"""Which weights go: the smallest, those of least effect, N of M."""

import pytest
import torch
from torch import nn

from hpc_train.compress import PRUNERS, make_pruner
from hpc_train.compress.graph import Coupling, Layer, Space
from hpc_train.compress.pruning import Rule, digest
from hpc_train.compress.pruning.channels import choose
from hpc_train.errors import ConfigError
from tests.compress.networks import example, make


def apply(name, model, amount, part=1.0, squares=None, masks=None, **more):
    pruner = make_pruner(name, Rule(model, example(), amount, **more))
    named = dict(model.named_parameters())
    if masks is None:
        masks = {n: torch.ones_like(named[n], dtype=torch.bool) for n in pruner.names}
    if squares is None:
        squares = {n: torch.ones_like(named[n]) for n in pruner.names}
    return pruner.masks(masks, squares, part)


def gone(masks):
    return 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


@pytest.mark.parametrize("name", ["magnitude", "saliency"])
@pytest.mark.parametrize("amount", [0.1, 0.5, 0.8, 0.97])
def test_as_much_goes_as_was_asked_for(name, amount):
    assert gone(apply(name, make("plain"), amount)) == pytest.approx(amount, abs=1e-3)


def test_what_goes_is_smaller_than_what_stays():
    model = make("plain")
    masks = apply("magnitude", model, 0.5)
    named = dict(model.named_parameters())
    gone_ones = torch.cat([named[n][~m].abs() for n, m in masks.items()])
    kept = torch.cat([named[n][m].abs() for n, m in masks.items()])
    assert gone_ones.max() <= kept.min()


def test_no_layer_is_cut_through():
    model = make("plain")
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    assert all(mask.any() for mask in apply("magnitude", model, 0.9).values())


def test_what_is_gone_stays_gone():
    model = make("plain")
    first = apply("magnitude", model, 0.8, part=0.5)
    with torch.no_grad():
        for name, mask in first.items():
            weight = dict(model.named_parameters())[name]
            weight.copy_(torch.randn(weight.shape) * mask)
    second = apply("magnitude", model, 0.8, masks=first)
    assert all((second[name] <= first[name]).all() for name in first)
    assert gone(second) == pytest.approx(0.8, abs=1e-3)


def test_a_layer_with_large_gradients_keeps_more():
    model = make("plain")
    squares = {n: torch.ones_like(p) for n, p in model.named_parameters() if p.dim() > 1}
    squares["3.weight"] *= 1e6
    masks = apply("saliency", model, 0.5, squares=squares)
    assert masks["3.weight"].double().mean() > 0.99
    assert masks["7.weight"].double().mean() < 0.2


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (4, 8)])
def test_patterns_hold_everywhere(keep, of):
    model = make("plain")
    masks = apply("pattern", model, 0.5, keep=keep, of=of)
    for name, mask in masks.items():
        rows = mask.reshape(len(mask), -1)
        width = rows.shape[1] - rows.shape[1] % of
        groups = rows[:, :width].reshape(-1, of)
        assert (groups.sum(1) == keep).all(), name
        weights = dict(model.named_parameters())[name].abs().reshape(len(mask), -1)[:, :width]
        weights = weights.reshape(-1, of)
        least = weights.masked_fill(~groups, torch.inf).amin(1)
        assert (weights.masked_fill(groups, 0).amax(1) <= least).all()


def test_patterns_are_reached_step_by_step():
    model = make("plain")
    parts = [gone(apply("pattern", model, 0.5, part=part)) for part in (0, 0.5, 1)]
    assert parts[0] == 0
    assert parts[1] == pytest.approx(parts[2] / 2)


def test_channels_go_where_they_cost_least():
    spaces = (Space(4, ()), Space(4, ()))
    layers = (Layer("a", 100, None, 0), Layer("b", 100, 0, 1), Layer("c", 100, 1, None))
    coupling = Coupling(spaces, layers)
    assert coupling.flops([4, 4]) == 300
    scores = [[1.0, 1.0, 1.0, 1.0], [0.1, 3.0, 0.2, 0.7]]
    kept = choose(coupling, scores, [range(4), range(4)], 210, 1)
    assert kept == [[0, 1, 2, 3], [1, 3]]
    assert coupling.flops([len(channels) for channels in kept]) <= 210


def test_masks_are_hashed_with_their_names():
    masks = apply("magnitude", make("plain"), 0.5)
    assert digest(masks) == digest({name: masks[name].clone() for name in reversed(masks)})
    masks["0.weight"][0, 0, 0, 0] ^= True
    assert digest(masks) != digest(apply("magnitude", make("plain"), 0.5))


def test_unknown_rules_and_empty_networks():
    with pytest.raises(ConfigError, match="known: channels, magnitude"):
        make_pruner("magnitud", Rule(make("plain"), example(), 0.5))
    for name in PRUNERS:
        with pytest.raises(ConfigError, match="nothing to prune"):
            make_pruner(name, Rule(nn.Sequential(nn.Flatten()), example(), 0.5))
