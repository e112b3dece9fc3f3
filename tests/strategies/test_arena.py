"""Arenas: views of one flat buffer, brought back whenever torch moves something out of it."""

import pytest
import torch
from torch import nn

from hpc_train.errors import UsageError
from hpc_train.strategies import assign, make_arenas


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 5))


def one_arena(model):
    (arena,) = make_arenas(model.named_parameters())
    return arena


def backward(model, **options):
    model(torch.ones(2, 2, 4, 4)).square().sum().backward(**options)


def gradients(model):
    """What plain torch gives for the same backward pass."""
    copy = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 5))
    copy.load_state_dict(model.state_dict())
    backward(copy)
    return {name: p.grad for name, p in copy.named_parameters()}


def holds(arena, model):
    """Whether parameters and gradients are views of the arena, with torch's gradients in it."""
    expected = gradients(model)
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == arena.view(arena.data, name).data_ptr()
        assert parameter.grad.data_ptr() == arena.view(arena.grad, name).data_ptr()
        assert torch.allclose(arena.view(arena.grad, name), expected[name])
    return True


def test_parameters_keep_their_values_and_become_aligned_views(net):
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    arena = one_arena(net)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.data_ptr() % 64 == 0
    arena.write(lambda data: data.fill_(2.0))
    assert all((p == 2).all() for p in net.parameters())
    backward(net)
    assert holds(arena, net)


def test_gradients_move_into_memory_of_the_callers(net):
    arena = one_arena(net)
    backward(net)
    lent = []

    def allocate(size, dtype):
        lent.append(torch.zeros(size, dtype=dtype))
        return lent[0]

    optimizer = torch.optim.SGD([arena.flat], lr=1.0)
    arena.move_gradients(allocate)
    assert arena.grad is lent[0]
    assert holds(arena, net)  # what was there came along
    arena.zero()
    backward(net)
    assert holds(arena, net)
    before = arena.data.clone()
    optimizer.step()
    assert torch.equal(arena.data, before - lent[0])
    net.zero_grad()
    arena.gather()
    assert all(p.grad.data_ptr() >= lent[0].data_ptr() for p in net.parameters())
    assert not lent[0].any()


def test_padding_stays_zero_and_does_not_touch_the_norm(net):
    arena = one_arena(net)
    backward(net)
    total = sum(float(p.grad.square().sum()) for p in net.parameters())
    assert float(arena.grad.square().sum()) == pytest.approx(total, rel=1e-6)


def test_tied_weights_lie_there_once_under_their_first_name():
    model = Tied()
    arena = one_arena(model)
    assert list(arena.places) == ["first.weight", "second.bias"]
    assert model.first.weight is model.second.weight


def test_frozen_parameters_are_left_out(net):
    net[0].requires_grad_(False)
    arena = one_arena(net)
    assert list(arena.places) == ["2.weight", "2.bias"]
    assert make_arenas(nn.Linear(1, 1).requires_grad_(False).named_parameters()) == []


def test_one_arena_for_each_dtype():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2).double()})
    arenas = make_arenas(model.named_parameters())
    assert [(a.data.dtype, sorted(a.places)) for a in arenas] == [
        (torch.float32, ["a.bias", "a.weight"]),
        (torch.float64, ["b.bias", "b.weight"]),
    ]


def move_out_grads(model):
    model.zero_grad()
    backward(model)


def move_out_weights(model):
    model.to(memory_format=torch.channels_last)
    backward(model)


def keep_graph(model):
    backward(model, create_graph=True)
    for parameter in model.parameters():
        parameter.grad = parameter.grad.detach()


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")
@pytest.mark.parametrize("disturb", [move_out_grads, move_out_weights, keep_graph])
def test_what_torch_moved_out_is_brought_back(net, disturb, caplog):
    arena = one_arena(net)
    for _ in range(2):
        arena.zero()
        disturb(net)
        arena.gather()
        assert holds(arena, net)
    assert caplog.text.count("moved out of their flat buffer") <= 1


def test_weights_that_moved_take_their_newest_values_along(net, caplog):
    arena = one_arena(net)
    net[2].weight.data = torch.full((5, 12), 7.0)
    arena.gather()
    assert (arena.view(arena.data, "2.weight") == 7).all()
    assert "weights were moved out" in caplog.text


def test_a_missing_gradient_is_zero(net):
    arena = one_arena(net)
    backward(net)
    net.zero_grad()
    net[0](torch.ones(1, 2, 4, 4)).sum().backward()
    arena.gather()
    assert not arena.view(arena.grad, "2.weight").any()
    assert arena.view(arena.grad, "0.weight").any()


def test_sparse_gradients_are_refused():
    model = nn.Embedding(4, 2, sparse=True)
    arena = one_arena(model)
    model.weight.grad = None
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="gradients must be dense") as caught:
        arena.gather()
    assert "sparse=False" in caught.value.hint


def test_values_move_to_memory_of_others_and_back_and_assign_goes_through_write():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    (arena,) = make_arenas(model.named_parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    acts = []

    def once(act, *, alone=False):
        acts.append(alone)
        act()

    memory = torch.zeros_like(arena.data)
    arena.share(memory, once)
    assert arena.shared
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert all(arena.holds(parameter) for parameter in model.parameters())
    assert not arena.holds(model[1].running_mean)
    pairs = [(t, torch.full_like(t, 3)) for t in model.state_dict().values()]
    assign([arena], pairs, alone=True)
    assert acts == [False, True]
    assert all((tensor == 3).all() for tensor in model.state_dict().values())
    assert memory.sum() == 3 * sum(p.numel() for p in model.parameters())
    arena.part()
    arena.write(lambda data: data.zero_())
    assert acts == [False, True]
    assert not any(parameter.any() for parameter in model.parameters())
    assert memory.any()


class Wide(nn.Module):
    """Large and small gradients, one of them used twice, one only when asked for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(200, 300)
        self.twice = nn.Linear(300, 300)
        self.spare = nn.Linear(300, 300)
        self.last = nn.Linear(300, 2)

    def forward(self, x, *, spare=True):
        x = self.twice(self.twice(self.first(x)).tanh())
        return self.last(self.spare(x) if spare else x)


@pytest.mark.parametrize("passes", [[True], [True, False, True], [False], []])
def test_large_gradients_are_copied_and_those_that_are_missing_are_zero(passes):
    torch.manual_seed(1)
    model, plain = Wide(), Wide()
    arena = one_arena(model)
    for step in range(3):
        plain.zero_grad()
        arena.begin()
        large = [name for name, p in model.named_parameters() if p.grad is None]
        assert large == ["first.weight", "twice.weight", "spare.weight"]
        for spare in passes:
            x = torch.randn(4, 200) + step
            for one in (model, plain):
                one(x, spare=spare).square().sum().backward()
        arena.gather()
        for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
            lies = arena.view(arena.grad, name)
            assert mine.grad.data_ptr() == lies.data_ptr()
            expected = torch.zeros_like(lies) if theirs.grad is None else theirs.grad
            torch.testing.assert_close(lies, expected)


def test_a_step_that_is_broken_off_leaves_zeros_or_begins_anew():
    model = Wide()
    arena = one_arena(model)
    arena.begin()
    model(torch.ones(4, 200)).sum().backward()
    arena.begin()
    arena.zero()
    assert not arena.grad.any()
    model(torch.ones(4, 200)).sum().backward()  # without `begin`, as anywhere in torch
    once = arena.grad.clone()
    model(torch.ones(4, 200)).sum().backward()
    torch.testing.assert_close(arena.grad, 2 * once)


def test_an_arena_that_is_given_up_leaves_gradients_to_the_next_one():
    model = Wide()
    old = one_arena(model)
    old.begin()
    new = one_arena(model)
    new.begin()
    model(torch.ones(4, 200)).sum().backward()
    new.gather()
    assert new.grad.any()
    for name, parameter in model.named_parameters():
        assert parameter.grad.data_ptr() == new.view(new.grad, name).data_ptr()


def test_a_sum_that_lies_elsewhere_is_read_until_the_own_gradient_is_taken_back(net):
    arena = one_arena(net)
    backward(net)
    arena.gather()
    own, total = arena.grad, torch.full_like(arena.grad, 7.0)
    arena.read(total)
    assert all(bool((p.grad == 7).all()) for p in net.parameters())
    assert arena.flat.grad.data_ptr() == arena.grad.data_ptr() == total.data_ptr()
    arena.flat.grad = None  # frozen meanwhile
    arena.take_back()
    assert arena.grad is own
    assert arena.flat.grad is None
    assert holds(arena, net)
    assert bool((total == 7).all())
