"""Rank 0's side of weights that several servers hold: it hears of sums, and orders updates.

    server 1   push, push: sum t -- norm of t --> rank 0
    server 0   push, push: sum t -- norm of t --> rank 0     all norms: the norm, clipping, finite?
                                                  rank 0 -- order t --> all servers: version + 1

An order is given once all servers have the sum, so all of them can follow it; the orders are in one
row, and the version of a server is how many of them it has followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple

import torch

from hpc_train.comm import Post
from hpc_train.strategies.parameter_server.keeper import Order
from hpc_train.world import Json


class Orders:
    """`Weights` that lie on several servers.

    Args:
        num_servers: they are ranks 0 .. num_servers - 1.
        requests: letters to servers.
    """

    def __init__(self, num_servers: int, requests: Post) -> None:
        self._requests = requests
        self._norms: dict[int, dict[int, float]] = {}
        self._versions = [0] * num_servers  # of each server, when it last wrote
        self._given: list[Order] = []  # those that not all servers are known to have followed
        self._first = 0  # the place of the first of them in the row
        self._sent = 0  # how many orders of the row have been sent

    def add(self, number: int, grads: Sequence[torch.Tensor]) -> None:
        """Nothing: servers get the gradients."""

    def hear(self, server: int, header: Json) -> None:
        """A server has the sum of a batch."""
        self._norms.setdefault(header["batch"], {})[server] = header["norm"]
        # letters of a server's two threads may overtake each other
        self._versions[server] = max(self._versions[server], header["version"])

    def norm(self, number: int) -> float | None:
        """See `Weights`."""
        told = self._norms.get(number, {})
        if len(told) < len(self._versions):
            return None
        return math.hypot(*told.values())

    def update(self, number: int, factor: float, rate: float) -> None:
        """See `Weights`."""
        self._give(Order(number, factor, rate))

    def drop(self, number: int) -> None:
        """See `Weights`."""
        self._give(Order(number, None, 0.0))

    def _give(self, order: Order) -> None:
        del self._norms[order.number]
        self._given.append(order)
        followed = min(self._versions) - self._first
        del self._given[:followed]
        self._first += followed

    def send(self) -> None:
        """Let all servers know of the orders that are new."""
        new = self.after(self._sent)
        if new:
            self._sent += len(new)
            header = {"kind": "orders", "orders": told(new)}
            self._requests.send_all(dict.fromkeys(range(len(self._versions)), (header, ())))

    def after(self, version: int) -> list[Order]:
        """Those that a server of that version has not followed."""
        return self._given[version - self._first :]


def told(orders: Sequence[Order]) -> Json:
    """As JSON."""
    return [list(astuple(order)) for order in orders]


def heard(orders: Json) -> list[Order]:
    """What `told` told."""
    return [Order(*order) for order in orders]
