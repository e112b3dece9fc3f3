"""How much of each layer goes, by what was measured of it."""

from itertools import product

import pytest
import torch
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hpc_train.compress import make_pruner
from hpc_train.compress.pruning import Rule
from hpc_train.compress.pruning.sensitivity import RATIOS, Scan
from hpc_train.errors import HpcTrainError
from tests.compress.networks import example, make


def scan(*losses, sizes=None, dense=1.0):
    names = [f"layer{place}" for place in range(len(losses))]
    sizes = sizes or [100] * len(losses)
    return Scan(dense, dict(zip(names, losses, strict=True)), dict(zip(names, sizes, strict=True)))


curves = st.lists(st.floats(0.5, 9.0), min_size=len(RATIOS), max_size=len(RATIOS)).map(tuple)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(curves, st.integers(1, 10_000)), min_size=1, max_size=6),
    st.floats(0.01, 0.98),
)
@case([((1.0, 1.0, 1.0, 1.0, 2.0), 1)], 0.5)
def test_as_much_goes_as_was_asked_for(layers, amount):
    table = scan(*(c for c, _ in layers), sizes=[size for _, size in layers])
    ratios = table.allot(amount)
    total = sum(table.sizes.values())
    assert sum(ratios[n] * size for n, size in table.sizes.items()) == pytest.approx(amount * total)
    assert all(-1e-9 <= ratio <= RATIOS[-1] + 1e-9 for ratio in ratios.values())


def test_the_loss_grows_as_little_as_it_can():
    """Convex curves: no choice of measured ratios that prunes as much is better."""
    rising = [(1.0, 1.1, 1.4, 1.7, 2.5), (1.2, 1.8, 3.0, 4.0, 6.0), (1.0, 1.0, 1.05, 1.2, 1.4)]
    table = scan(*rising, sizes=[100, 300, 50])
    places = [0.0, *RATIOS]
    costs = [dict(zip(places, (0.0, *(x - 1 for x in curve)), strict=True)) for curve in rising]

    def cost(ratios):
        return sum(
            torch.tensor(0.0) + _linear(places, [own[p] for p in places], ratio)
            for own, ratio in zip(costs, ratios, strict=True)
        )

    for amount in (0.2, 0.5, 0.8):
        best = cost(table.allot(amount).values())
        for chosen in product(places, repeat=3):
            pruned = sum(r * s for r, s in zip(chosen, (100, 300, 50), strict=True))
            if pruned >= amount * 450:
                assert best <= cost(chosen) + 1e-6


def _linear(xs, ys, x):
    place = max(i for i in range(len(xs) - 1) if xs[i] <= x + 1e-12)
    part = (x - xs[place]) / (xs[place + 1] - xs[place])
    return ys[place] + part * (ys[place + 1] - ys[place])


def test_a_layer_that_bears_nothing_keeps_all():
    fragile, robust = (3.0, 4.0, 5.0, 6.0, 7.0), (1.0, 1.0, 1.0, 1.0, 1.0)
    ratios = scan(fragile, robust).allot(0.45)
    assert ratios == {"layer0": 0.0, "layer1": pytest.approx(0.9)}


def test_a_layer_is_pruned_alone_and_whole_again_afterwards():
    model = make("plain")
    named = dict(model.named_parameters())
    pruner = make_pruner("sensitivity", Rule(model, example(), 0.5))
    tried = []

    def trial(masks):
        tried.append({name: 1 - float(mask.double().mean()) for name, mask in masks.items()})
        # as if the first layer alone mattered
        first = masks.get(pruner.names[0])
        return 1.0 if first is None else 2.0 - float(first.double().mean())

    table = pruner.scan(trial)
    assert tried[0] == {}
    assert [len(masks) for masks in tried[1:]] == [1] * (len(RATIOS) * len(pruner.names))
    for place, masks in enumerate(tried[1:]):
        name = pruner.names[place // len(RATIOS)]
        allowed = 1.0 / named[name].numel()
        assert masks[name] == pytest.approx(RATIOS[place % len(RATIOS)], abs=allowed)
    whole = {n: torch.ones_like(named[n], dtype=torch.bool) for n in pruner.names}
    masks = pruner.masks(whole, {}, 1.0)
    assert masks[pruner.names[0]].all()
    assert not masks[pruner.names[-1]].all()
    rows = table.rows(0.5)
    assert [row[0] for row in rows[1:]] == list(pruner.names)
    assert len({len(row) for row in rows}) == 1


def test_it_survives_a_checkpoint():
    table = scan((1.0, 1.2, 1.3, 2.0, 3.0), (1.0, 1.0, 1.1, 1.1, 1.5))
    assert Scan.from_json(table.json()) == table


def test_a_loss_that_is_not_finite_is_named():
    model = nn.Linear(4, 4)
    pruner = make_pruner("sensitivity", Rule(model, torch.zeros(1, 4), 0.5))
    with pytest.raises(HpcTrainError, match="finite"):
        pruner.scan(lambda masks: float("nan"))
