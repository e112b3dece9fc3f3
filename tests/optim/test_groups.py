"""Rates and decays of single parameters; optimizers with a rate for each layer."""

import pytest
import torch
from torch import nn

from hpc_train.optim import Group, Grouping, Settings
from hpc_train.optim.groups import block_of, norms_and_biases, unmatched
from hpc_train.strategies import Learner


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2)).double()


def steps(model, learner, count=4, factor=0.5):
    """Steps of a learner on a fixed batch; the gradients of each, by name."""
    inputs = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(6, 3)
    for _ in range(count):
        learner.zero()
        (model(inputs) - 1).square().sum().backward()
        learner.update(factor)


def reference(model, update, count=4, factor=0.5):
    """The same by hand: `update(name, weight, gradient)` changes each parameter."""
    inputs = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(6, 3)
    for _ in range(count):
        model.zero_grad()
        (model(inputs) - 1).square().sum().backward()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                update(name, weight, weight.grad * factor)


def assert_same(one, other):
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("whole", [True, False])
def test_lamb_is_its_formula_for_each_layer(whole):
    mine, theirs = network(), network()
    exempt = frozenset() if whole else norms_and_biases(mine)
    settings = Settings(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    learner = Learner(
        "main", mine.named_parameters(), "lamb", settings, None, Grouping({}, 1, exempt)
    )
    steps(mine, learner)
    moments = {}

    def update(name, w, g):
        m, v, t = moments.get(name, (torch.zeros_like(w), torch.zeros_like(w), 0))
        m, v, t = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g, t + 1
        moments[name] = m, v, t
        plain = w.dim() > 1 or whole
        u = m / (1 - 0.8**t) / ((v / (1 - 0.95**t)).sqrt() + 1e-6) + (0.1 * w if plain else 0)
        ratio = w.norm() / u.norm() if plain and w.norm() > 0 and u.norm() > 0 else 1
        w -= 0.02 * ratio * u

    reference(theirs, update)
    assert_same(mine, theirs)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lars_is_its_formula_for_each_layer(whole, momentum):
    mine, theirs = network(), network()
    exempt = frozenset() if whole else norms_and_biases(mine)
    settings = Settings(lr=0.5, momentum=momentum, weight_decay=0.1, trust_coefficient=0.02)
    learner = Learner(
        "main", mine.named_parameters(), "lars", settings, None, Grouping({}, 1, exempt)
    )
    steps(mine, learner)
    velocity = {}

    def update(name, w, g):
        plain = w.dim() > 1 or whole
        decay = 0.1 if plain else 0
        usable = plain and w.norm() > 0 and g.norm() > 0
        rate = 0.5 * (0.02 * w.norm() / (g.norm() + decay * w.norm()) if usable else 1)
        v = momentum * velocity.get(name, 0) + rate * (g + decay * w)
        velocity[name] = v
        w -= v

    reference(theirs, update)
    assert_same(mine, theirs)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_groups_of_a_flat_buffer_are_torchs_parameter_groups(optimizer):
    mine, theirs = network(), network()
    settings = Settings(lr=0.02, momentum=0.5, weight_decay=0.3)
    grouping = Grouping({"0.*": 0.1, "*.bias": 3.0}, 1.0, norms_and_biases(mine))
    learner = Learner("main", mine.named_parameters(), optimizer, settings, None, grouping)
    assert len(learner.arenas) == 1  # still one reduction
    learner.set_rate(0.5)
    assert learner.rate == 0.01
    steps(mine, learner)
    named = dict(theirs.named_parameters())
    rates = {n: 0.1 if n.startswith("0.") else 3.0 if n.endswith("bias") else 1.0 for n in named}
    kinds = {
        "sgd": (torch.optim.SGD, {"momentum": 0.5}),
        "adamw": (torch.optim.AdamW, {}),
        "rmsprop": (torch.optim.RMSprop, {"momentum": 0.5}),
    }
    kind, options = kinds[optimizer]
    plain = kind(
        [
            {"params": [p], "lr": 0.01 * rates[n], "weight_decay": 0.3 if p.dim() > 1 else 0.0}
            for n, p in named.items()
        ],
        **options,
    )

    def update(name, weight, gradient):
        weight.grad.copy_(gradient)
        if name == list(named)[-1]:
            plain.step()

    reference(theirs, update)
    assert_same(mine, theirs)


def test_state_travels_between_groupings():
    one, other = network(), network()
    settings = Settings(lr=0.02, weight_decay=0.3)
    first = Learner("main", one.named_parameters(), "adamw", settings)
    steps(one, first)
    other.load_state_dict(one.state_dict())
    grouping = Grouping({"3.*": 1.0, "0.*": 0.5}, 1.0, norms_and_biases(other))
    second = Learner("main", other.named_parameters(), "adamw", settings, None, grouping)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    told, taken = first.state(), second.state()
    assert told.keys() == taken.keys()
    assert all(torch.equal(told[name], taken[name]) for name in told)


def test_momentum_that_was_off_before_begins_at_zero():
    model = network()
    before = Learner("main", model.named_parameters(), "rmsprop", Settings(lr=0.01))
    steps(model, before)
    saved = {name: value.clone() for name, value in before.state().items()}
    assert not any(name.endswith("momentum_buffer") for name in saved)
    settings = Settings(lr=0.01, momentum=0.9, centered=True)
    after = Learner("main", model.named_parameters(), "rmsprop", settings)
    after.load_state(saved)
    steps(model, after)
    assert after.state()["0.weight/momentum_buffer"].abs().sum() > 0


def test_rates_fall_with_depth_from_the_last_block_on():
    names = [
        "embedding.weight",
        "blocks.0.a.weight",
        "blocks.0.b.0.bias",
        "blocks.1.c",
        "head.bias",
    ]
    named = [(name, nn.Parameter(torch.zeros(2, 2))) for name in names]
    groups = Grouping({"blocks.1.*": 2.0, "blocks.*": 9.0}, 0.5).groups(named)
    assert [groups[name].rate for name in names] == [0.125, 9 * 0.25, 9 * 0.25, 1.0, 1.0]
    assert groups["head.bias"] == Group()


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("blocks.3.norm.weight", "blocks.3"),
        ("2.bias", "2"),
        ("head.weight", "head"),
        ("generator.layers.0.1.weight", "generator.layers.0"),
    ],
)
def test_blocks(name, block):
    assert block_of(name) == block


def test_norms_and_biases():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(2, 3, 1),
            "norm": nn.LayerNorm((3, 4)),
            "batch": nn.BatchNorm2d(3),
            "table": nn.Embedding(3, 4),
        }
    )
    exempt = norms_and_biases(model)
    decaying = [name for name, p in model.named_parameters() if id(p) not in exempt]
    assert decaying == ["conv.weight", "table.weight"]


def test_patterns_that_match_nothing_are_found():
    assert unmatched(["a.*", "b.*"], ["a.weight", "c.bias"]) == ["b.*"]
