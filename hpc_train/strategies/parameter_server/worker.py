"""The side of a rank that gets weights and pushes gradients."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping

import torch

from hpc_train.comm import Post
from hpc_train.plan import Batch, Work
from hpc_train.record import phase
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.parameter_server.letters import Ending, Push, arrays, work_heard
from hpc_train.strategies.parameter_server.mirror import Mirror, mirror, raw, room
from hpc_train.strategies.parameter_server.server import Commit
from hpc_train.strategies.parameter_server.slices import Slices
from hpc_train.world import Json

PATIENCE = 2.0  # whoever waits for the server: it gives up first, and knows who is late


class Worker:
    """Asks, works, pushes, until the server says that the segment is over.

    Args:
        post: letters from and to rank 0.
        learner: whose gradients are pushed, and whose weights are overwritten.
        seconds: how long the server may keep silent.
        slices: where weights and gradients go, if there are several servers; else to rank 0.

    Attributes:
        version: updates that the weights here have seen; -1 if that is not known.
        failed: whether some rank has failed.
        error: what went wrong in an update: nothing, here.
        ending: where all ranks are, once the work has ended.
        last: how many updates the server had made when it last wrote.
        mirror: on the standby, what rank 0 was when it last wrote.
        touched: whether the weights have changed since all ranks held equal ones.
    """

    error: Exception | None = None

    def __init__(
        self, post: Post, learner: Learner, seconds: float, slices: Slices | None = None
    ) -> None:
        self._post = post
        self._learner = learner
        self._seconds = seconds
        self._slices = slices
        # what has come; made at once, so that no step has to
        arenas = learner.arenas if slices is None else []
        self._hosts = [torch.empty_like(arena.data, device="cpu") for arena in arenas]
        self._reply: Json = None
        self.version = -1
        self.failed = False
        self.ending = Ending(0, 0, True, ())
        self.last = 0
        self.mirror: Mirror | None = None
        self.touched = False
        self._room: Mapping[str, torch.Tensor] = {}  # of the mirror before

    def work(self, batches: Iterator[Batch], done: Collection[int]) -> Generator[Work, None, None]:
        """Ranges as the server hands them out; the batches are its business."""
        self.version = -1  # evaluation, a checkpoint: nobody knows what the weights here are
        self.mirror, self.touched = None, False
        with phase("communication", operation="pull"):
            self._post.send(0, {"kind": "ask", "version": self.version})
            self._hear()
        while self._reply["kind"] == "work":
            work = work_heard(self._reply["work"])
            if self._slices is not None and work.size and self.version != self.last:
                with phase("communication", operation="pull"):
                    self.touched = True
                    self.version = self._slices.pull(self.last)
            yield work

    def push(self, push: Push) -> None:
        """Send the gradient of the present range, and get what comes next."""
        with phase("communication", operation="push"):
            if self._slices is None:
                gradients = arrays([arena.grad for arena in self._learner.arenas])
                self._post.send(0, push.told(), gradients)
            else:
                if push.work.size:
                    self._slices.push(push.work)
                self._post.send(0, push.told())
            self._hear()

    def fail(self) -> None:
        """Tell the server that this rank has failed; return when all ranks know."""
        self._post.send(0, {"kind": "failed", "version": self.version})
        self._hear()

    def take(self) -> list[Commit]:
        """Nothing: only the server knows."""
        return []

    def _hear(self) -> None:
        """The server's answer, and the weights behind it."""
        server = "the parameter server (rank 0)"
        _, self._reply = self._post.wait(server, PATIENCE * self._seconds)
        self.last = self._reply["version"]
        if self._reply["kind"] != "work":
            self.failed = self._reply["kind"] == "failed"
            self.ending = Ending.heard(self._reply)
        if self._reply.get("fresh"):
            self._receive(self._reply.get("mirror"))

    def _receive(self, told: Json) -> None:
        """The weights, and what else the standby holds, which is whole at any instant."""
        tensors = room(told, self._room) if told else {}
        self._post.receive(0, [*arrays(self._hosts), *raw(tensors)])
        self.touched = True
        for arena, host in zip(self._learner.arenas, self._hosts, strict=True):
            arena.write(lambda data, host=host: data.copy_(host))  # type: ignore[misc]
        self.version = self._reply["version"]
        if told:
            before, self.mirror = self.mirror, mirror(told, self._hosts, tensors)
            self._room = before.state.tensors if before else {}
            self._hosts = [
                *(before.weights if before else [torch.empty_like(host) for host in self._hosts])
            ]
