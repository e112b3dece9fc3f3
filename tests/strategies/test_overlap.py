"""What is summed when: hooks of autograd, on one rank, with sums that only write down."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hpc_train.comm import Background
from hpc_train.errors import HpcTrainError
from hpc_train.optim import Settings
from hpc_train.strategies import Learner
from hpc_train.strategies.overlap import Overlapped
from hpc_train.strategies.reduction import Part
from tests.groups import Solo


class Doubling:
    """Sums with a rank that has the same gradients; knows what it saw."""

    def __init__(self, learner):
        self.seen = []
        (arena,) = learner.arenas
        self.parts = [
            Part(
                arena,
                slice(start, start + shape.numel()),
                (name,),
                Doubled(name, arena.grad[start : start + shape.numel()], self.seen),
            )
            for name, (start, shape) in reversed(arena.places.items())
        ]

    def begin(self, samples):
        self.seen.clear()


class Doubled:
    def __init__(self, name, values, seen):
        self._name, self._values, self._seen = name, values, seen

    def launch(self):
        self._seen.append(self._name)
        self._values.mul_(2)

    def finish(self):
        """Done."""


class OneLine:
    def __init__(self):
        self.thread = Background()


class Net(nn.Module):
    """`twice` is used twice, `never` never, `late` first in the forward pass."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(3, 3)
        self.never = nn.Linear(3, 3)
        self.late = nn.Linear(3, 3)

    def forward(self, x):
        return self.twice(self.twice(self.late(x))).square().sum()


@pytest.fixture
def made():
    torch.manual_seed(0)
    model = Net().double()
    learner = Learner("main", model.named_parameters(), "sgd", Settings(lr=0.1))
    inner = Doubling(learner)
    found = Overlapped(Solo(), OneLine(), inner, is_trial=False)
    return model, learner, inner, found


def gradients(model):
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def step(model, learner, overlapped, inputs, *, released=True):
    learner.zero()
    overlapped.begin(len(inputs))
    for place, x in enumerate(inputs):
        if released and place == len(inputs) - 1:
            overlapped.release()
        model(x).backward()
    early = len(overlapped._seen)
    overlapped.reduce()
    return early


def expected(model, inputs):
    plain = Net().double()
    plain.load_state_dict(model.state_dict())
    for x in inputs:
        plain(x).backward()
    return {
        n: 2 * (torch.zeros_like(p) if p.grad is None else p.grad)
        for n, p in plain.named_parameters()
    }


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("released", [True, False])
def test_sums_are_those_of_all_micro_batches(made, count, released):
    model, learner, _, overlapped = made
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(count, 5, 3, generator=generator, dtype=torch.float64)
        early = step(model, learner, overlapped, inputs, released=released)
        assert early == (4 if count and released else 0)
        for name, gradient in gradients(model).items():
            assert torch.allclose(gradient, expected(model, inputs)[name], atol=1e-12), name


def test_the_order_is_that_of_the_first_step_and_the_rest_comes_last(made):
    model, learner, inner, overlapped = made
    inputs = torch.ones(1, 2, 3, dtype=torch.float64)
    step(model, learner, overlapped, inputs)
    step(model, learner, overlapped, inputs)
    order = [name.partition(".")[0] for name in inner.seen]
    assert order == ["twice", "twice", "late", "late", "never", "never"]
    step(model, learner, overlapped, inputs[:0])
    assert [name.partition(".")[0] for name in inner.seen] == order


def test_a_backward_pass_that_breaks_off_leaves_nothing_behind(made):
    model, learner, inner, overlapped = made
    inputs = torch.ones(1, 2, 3, dtype=torch.float64)
    step(model, learner, overlapped, inputs)

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("broken")

    learner.zero()
    overlapped.begin(1)
    overlapped.release()
    with pytest.raises(RuntimeError, match="broken"):
        model.twice(model.twice(Broken.apply(model.late(inputs[0])))).sum().backward()
    assert len(overlapped._seen) == 2
    overlapped.reduce()
    assert len(inner.seen) == 6
    step(model, learner, overlapped, inputs)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected(model, inputs)[name], atol=1e-12), name


def test_gradients_that_were_moved_are_brought_back(made):
    model, learner, _, overlapped = made
    inputs = torch.ones(1, 2, 3, dtype=torch.float64)
    learner.zero()
    for parameter in model.parameters():
        parameter.grad = None
    overlapped.begin(1)
    overlapped.release()
    model(inputs[0]).backward()
    overlapped.reduce()
    learner.gather()
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected(model, inputs)[name], atol=1e-12), name


def test_a_second_addition_to_a_gradient_that_has_gone_out_is_an_error(made):
    model, learner, _, overlapped = made
    learner.zero()
    overlapped.begin(1)
    overlapped.release()
    x = torch.ones(2, 3, dtype=torch.float64)
    model(x).backward()
    with pytest.raises(HpcTrainError, match=r"twice.*: twice"):
        model(x).backward()
    overlapped.reduce()


@pytest.mark.parametrize("pays", [True, False])
def test_the_trial_keeps_what_is_faster(made, pays, monkeypatch):
    model, learner, inner, _ = made
    overlapped = Overlapped(Solo(), OneLine(), inner, is_trial=True)
    inputs = torch.ones(1, 2, 3, dtype=torch.float64)
    factor = 0.5 if pays else 2.0

    def perf_counter():
        """A step takes 1 second, or `factor` where sums went out early."""
        if not overlapped._put:
            return 0.0
        return factor if overlapped._seen else 1.0

    clock = SimpleNamespace(perf_counter=perf_counter)
    monkeypatch.setattr("hpc_train.strategies.overlap.time", clock)
    for _ in range(40):
        step(model, learner, overlapped, inputs)
    early = step(model, learner, overlapped, inputs)
    assert early == (4 if pays else 0)
