"""Slices of several servers: how weights are cut, and that parts are updated as the whole is."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpc_train.optim import Settings
from hpc_train.optim.groups import Grouping
from hpc_train.strategies import Learner
from hpc_train.strategies.parameter_server.desk import Desk
from hpc_train.strategies.parameter_server.keeper import Keeper, Order
from hpc_train.strategies.parameter_server.orders import Orders, heard
from hpc_train.strategies.parameter_server.orders import told as told_orders
from hpc_train.strategies.parameter_server.pool import shares_of
from hpc_train.strategies.parameter_server.slicing import cut, num_servers
from hpc_train.strategies.parameter_server.whole import Whole


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([2, 4, 8])), min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_every_weight_lies_on_one_server_and_none_holds_much_more(arenas, count):
    shares = cut(arenas, count)
    assert len(shares) == count
    for number, (length, size) in enumerate(arenas):
        own = [share[number] for share in shares]
        assert [i for at in own for i in range(at.start, at.stop)] == [*range(length)]
        line = 64 // size
        assert all(at.start % line == 0 or at.start == length for at in own)
        assert max(at.stop - at.start for at in own) <= math.ceil(length / count / line) * line


@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_there_are_as_many_servers_as_ranks_allow(wanted, ranks, trains):
    found = num_servers(wanted, ranks, trains=trains)
    assert 1 <= found <= max(1, min(wanted, ranks))
    assert trains or ranks == 1 or found < ranks
    assert found == wanted or found == max(1, ranks - (not trains))


class _Silent:
    def __init__(self):
        self.sent = []

    def send_all(self, letters):
        self.sent.append(letters)


def _learner(optimizer, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 19), nn.Linear(19, 5)).to(dtype)
    settings = Settings(lr=0.1, momentum=0.9, weight_decay=0.01)
    grouping = Grouping(exempt=frozenset(id(p) for p in model.parameters() if p.dim() == 1))
    return Learner("main", model.named_parameters(), optimizer, settings, grouping=grouping)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_updates_of_slices_are_the_update_of_the_whole(optimizer, count):
    learner, others = _learner(optimizer, torch.float64), _learner(optimizer, torch.float64)
    whole, orders = Whole(learner), Orders(count, _Silent())
    keepers = [Keeper(_learner(optimizer, torch.float64), s) for s in shares_of(others, count)]
    for keeper in keepers:
        keeper.begin()
    for number in range(4):
        grads = [torch.randn_like(arena.grad) for arena in learner.arenas]
        for part in (0.25, 0.75):  # two ranges
            whole.add(number, [part * grad for grad in grads])
            for server, keeper in enumerate(keepers):
                mine = [part * g[at] for g, at in zip(grads, keeper.share, strict=True)]
                norm = keeper.add(number, int(100 * part), 100, mine)
                assert (norm is None) == (part == 0.25)
                if norm is not None:
                    assert orders.norm(number) is None  # not all have told yet
                    version = keeper.version
                    orders.hear(server, {"batch": number, "norm": norm, "version": version})
        assert orders.norm(number) == pytest.approx(whole.norm(number), rel=1e-12)
        if number == 2:  # not finite, say
            whole.drop(number)
            orders.drop(number)
        else:
            whole.update(number, 0.5, 0.8)
            orders.update(number, 0.5, 0.8)
        orders.send()
        for keeper in keepers:
            for order in heard(told_orders(orders.after(keeper.version))):
                keeper.follow(order)
    for number, arena in enumerate(learner.arenas):
        found = torch.cat([keeper.weights[number] for keeper in keepers])
        torch.testing.assert_close(found, arena.data, rtol=1e-12, atol=1e-12)


class _Letters:
    """A post whose letters have all come, and which keeps what is sent."""

    def __init__(self, letters):
        self.headers = [(rank, header) for rank, header, _ in letters]
        self.arrays = [(rank, values) for rank, _, values in letters if values is not None]
        self.taken, self.sent = [], []

    def watched(self, watch):
        return self

    def poll(self):
        return self.headers.pop(0) if self.headers else None

    def receive_all(self, arrays):
        raise AssertionError("one at a time")

    def receive(self, source, arrays):
        self.taken.append(source)
        place = next(i for i, (rank, _) in enumerate(self.arrays) if rank == source)
        for array in arrays:
            array.fill(self.arrays[place][1])
        del self.arrays[place]

    def send_all(self, letters):
        self.sent += [*letters]


def test_a_server_takes_in_all_pushes_and_begins_at_its_own_rank():
    def push(rank, batch, samples, value):
        header = {"kind": "push", "batch": batch, "samples": samples, "num_samples": 8}
        return rank, header, value

    # rank 1 is three pushes ahead, as a rank is whose gradients are small
    letters = [push(1, 0, 4, 1.0), push(1, 1, 4, 2.0), push(1, 2, 8, 3.0), push(0, 0, 4, 10.0)]
    letters += [(1, {"kind": "pull", "version": 1}, None), push(2, 1, 4, 20.0)]
    told, requests, replies = [], _Letters(letters), _Letters([])
    learner = _learner("sgd", torch.float64)
    keeper = Keeper(learner, shares_of(learner, 2)[1])
    keeper.begin()
    desk = Desk(keeper, requests, replies, told.append, 1.0, first=2, num_ranks=3)
    while desk.turn():
        pass
    assert requests.taken == [2, 0, 1, 1, 1]
    size = sum(len(one) for one in keeper.weights) ** 0.5
    expected = {0: 11.0 * size, 1: 22.0 * size, 2: 3.0 * size}
    assert {one["batch"]: one["norm"] for one in told} == pytest.approx(expected)
    assert replies.sent == []  # it wants weights after an update
    order = told_orders([Order(0, 0.1, 1.0)])
    requests.headers.append((0, {"kind": "orders", "orders": order}))
    assert desk.turn()
    assert replies.sent == [1]


def test_orders_are_kept_until_all_servers_have_followed_them():
    post = _Silent()
    orders = Orders(2, post)
    for number in range(10):
        for server, behind in enumerate((0, 3)):
            version = max(0, number - behind)
            orders.hear(server, {"batch": number, "norm": 3.0 + server, "version": version})
        assert orders.norm(number) == 5.0
        orders.update(number, 0.5, 1.0)
        orders.send()
        orders.send()
    assert len(post.sent) == 10
    assert [order.number for order in orders.after(6)] == [6, 7, 8, 9]
    assert orders.after(9) == [Order(9, 0.5, 1.0)]
    assert orders.after(10) == []


def test_letters_of_a_server_that_overtake_each_other_lose_no_order():
    post = _Silent()
    orders = Orders(1, post)
    for number, version in enumerate((0, 1, 2, 1, 3, 2)):
        orders.hear(0, {"batch": number, "norm": 1.0, "version": version})
        orders.update(number, 0.5, 1.0)
        orders.send()
    assert len(post.sent) == 6
    assert orders.after(5) == [Order(5, 0.5, 1.0)]
