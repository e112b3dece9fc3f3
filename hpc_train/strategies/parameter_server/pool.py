"""Several servers, as one rank knows them: what it serves itself, and where it pushes and pulls.

    begin of a segment      all ranks hold all weights and all optimizer state
    segment                 server s alone knows its slice of both; rank 0 decides on updates
    end, or ranks are lost  every slice goes from its server to all ranks

So checkpoints, evaluations and other numbers of servers see nothing of slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from hpc_train.comm import Comm, Post
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.parameter_server.desk import Desk
from hpc_train.strategies.parameter_server.keeper import Keeper, overlaps
from hpc_train.strategies.parameter_server.orders import Orders, heard, told
from hpc_train.strategies.parameter_server.slices import Slices
from hpc_train.strategies.parameter_server.slicing import Share, cut


class Pool:
    """The servers of a run, at least two; collective to make.

    Args:
        comm: the ranks.
        learner: whose weights are served.
        num_servers: they are ranks 0 .. num_servers - 1.
        ledger: letters to rank 0.
        seconds: how long a rank may keep others waiting.

    Attributes:
        rank: this one, as it was numbered then.
        num_servers: how many there are.
        orders: on rank 0, those to servers; None on the others.
        slices: pushes and pulls.
    """

    def __init__(
        self, comm: Comm, learner: Learner, num_servers: int, ledger: Post, seconds: float
    ) -> None:
        self.rank, self.num_servers = comm.world.rank, num_servers
        self._learner = learner
        shares = shares_of(learner, num_servers)
        requests, replies = comm.post(seconds), comm.post(seconds)
        self._desk: Desk | None = None
        if self.rank < num_servers:
            keeper = Keeper(learner, shares[self.rank])
            size = comm.world.size
            self._desk = Desk(
                keeper,
                requests,
                replies,
                lambda header: ledger.send(0, header),
                seconds,
                first=self.rank * size // num_servers,
                num_ranks=size,
            )
        watched = [post.watched(self.check) for post in (requests, replies)]
        self.orders = Orders(num_servers, watched[0]) if self.rank == 0 else None
        self.slices = Slices(learner, shares, self._desk, self.rank, watched[0], watched[1])

    def check(self) -> None:
        """Raise what has ended the thread that serves, if something has."""
        if self._desk is not None:
            self._desk.check()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Serve, if this rank does, in the block; nobody may want anything at its end."""
        if self._desk is None:
            yield
            return
        self._desk.open()
        try:
            yield
        finally:
            self._desk.close()

    def wait_for(self, version: int) -> None:
        """Return once this server, if it is one, has made so many updates."""
        if self._desk is not None:
            self._desk.wait_for(version)

    @property
    def keeper(self) -> Keeper | None:
        """What this rank serves."""
        return self._desk.keeper if self._desk is not None else None

    def spread(self, comm: Comm) -> None:
        """Give all ranks the weights and the optimizer's state of all servers; collective."""
        spread(comm, self._learner, range(self.num_servers), self.keeper)


def reunite(comm: Comm, learner: Learner, pool: Pool | None, *, apart: bool) -> bool:
    """After ranks were lost, give those that are left what servers know; collective among them.

    Args:
        comm: the ranks that are left.
        learner: of this rank.
        pool: as it was before; None on a rank that was in none.
        apart: whether this rank has worked since all held the same state.

    Returns:
        Whether all of the newest state is left; if not, on all ranks not.
    """
    keeper = pool.keeper if pool is not None else None
    mine = (apart, pool.rank if pool else -1, keeper.version if keeper else -1)
    ranks = [tuple(one) for one in comm.gather(mine)]
    if not any(one[0] for one in ranks):
        return True
    if keeper is not None and not apart:  # it has not opened since: others were quicker
        keeper.begin()
    places = {rank: place for place, (_, rank, version) in enumerate(ranks) if version >= 0}
    count = comm.broadcast(pool.num_servers if pool else 0)
    if not count and not places:  # one server is left, which has all of it, or its standby has
        return True
    if places.keys() != set(range(count)):
        return False
    least = min(version for _, _, version in ranks if version >= 0)
    orders = pool.orders if pool else None
    row = heard(comm.broadcast(told(orders.after(least)) if orders else [], places[0]))
    if keeper is not None:  # an order is given when all servers can follow it
        for order in row[keeper.version - least :]:
            keeper.follow(order)
    spread(comm, learner, [places[server] for server in range(count)], keeper)
    return True


def shares_of(learner: Learner, num_servers: int) -> list[Share]:
    """What each server holds of the weights of a learner."""
    arenas = [(len(arena.data), arena.data.element_size()) for arena in learner.arenas]
    return cut(arenas, num_servers)


def spread(comm: Comm, learner: Learner, roots: Sequence[int], keeper: Keeper | None) -> None:
    """Give all ranks the slices of servers; collective.

    Args:
        comm: the ranks.
        learner: it gets them.
        roots: the rank of each server.
        keeper: what this rank serves.
    """
    learner.make_state()
    for root, share in zip(roots, shares_of(learner, len(roots)), strict=True):
        here = comm.world.rank == root
        for number, (arena, at) in enumerate(zip(learner.arenas, share, strict=True)):
            if here and keeper is not None:
                own = keeper.weights[number]
                arena.write(lambda data, own=own, at=at: data[at].copy_(own))  # type: ignore[misc]
            _spread(comm, arena.data[at], root)
            for piece, start, stop in overlaps(arena.pieces, at):
                state = learner.optimizer.state[piece.flat]
                for what in learner.kept():
                    _spread(comm, state[what][start - piece.start : stop - piece.start], root)
                if "step" in state:
                    _spread(comm, state["step"].reshape(1), root)


def _spread(comm: Comm, values: torch.Tensor, root: int) -> None:
    """Overwrite a flat tensor with the root's."""
    host = values.detach().cpu()
    comm.spread(host.numpy(), root)
    if values.device.type != "cpu":
        values.copy_(host)
