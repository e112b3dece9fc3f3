"""The side of a rank that works, if there are several servers: pushes and pulls of all slices.

worker            server 0        server 1         each has a slice; all letters go at once
  push slice 0 ------>
  push slice 1 ------------------------>
  pull -------------->
  pull --------------------------------->
  <------ slice 0 --- (when it has followed the orders that rank 0 speaks of)
  <------ slice 1 -----------------------
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hpc_train.comm import Post
from hpc_train.plan import Work
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.parameter_server.desk import Desk
from hpc_train.strategies.parameter_server.letters import arrays
from hpc_train.strategies.parameter_server.slicing import Share


class Slices:
    """All slices.

    Args:
        learner: whose gradients are pushed, and whose weights are overwritten.
        shares: the slice of each server.
        desk: where this rank serves its own; None if it serves none.
        rank: this one.
        requests, replies: letters to servers, and from them.
    """

    def __init__(
        self,
        learner: Learner,
        shares: Sequence[Share],
        desk: Desk | None,
        rank: int,
        requests: Post,
        replies: Post,
    ) -> None:
        self._learner = learner
        self._shares = shares
        self._desk = desk
        self._own = rank
        self._requests = requests
        self._replies = replies
        # what has come; made at once, so that no step has to
        self._hosts = [torch.empty_like(arena.data, device="cpu") for arena in learner.arenas]
        self._others = [s for s in range(len(shares)) if desk is None or s != rank]

    def push(self, work: Work) -> None:
        """Send the gradient of a range to all servers; return when all of them have it."""
        grads = [arena.grad.detach().cpu() for arena in self._learner.arenas]
        number, whole = work.batch.number, work.batch.size
        header = {"kind": "push", "batch": number, "samples": work.size, "num_samples": whole}
        self._requests.send_all(
            {server: (header, arrays(self._parts(grads, server))) for server in self._others}
        )
        if self._desk is not None:
            self._desk.add(number, work.size, whole, self._parts(grads, self._own))

    def pull(self, version: int) -> int:
        """Get the weights from all servers, each of that version or a later one.

        Returns:
            The least version of them.
        """
        request = {"kind": "pull", "version": version}
        self._requests.send_all(dict.fromkeys(self._others, (request, ())))
        versions = {server: np.array([-1]) for server in self._others}
        self._replies.receive_all(
            {s: [told, *arrays(self._parts(self._hosts, s))] for s, told in versions.items()}
        )
        found = [int(told[0]) for told in versions.values()]
        if self._desk is not None:
            found.append(self._desk.pull(version, arrays(self._parts(self._hosts, self._own))))
        for arena, host in zip(self._learner.arenas, self._hosts, strict=True):
            arena.write(lambda data, host=host: data.copy_(host))  # type: ignore[misc]
        return min(found)

    def _parts(self, tensors: Sequence[torch.Tensor], server: int) -> list[torch.Tensor]:
        """What belongs to a server, of one tensor per arena."""
        return [one[at] for one, at in zip(tensors, self._shares[server], strict=True)]
