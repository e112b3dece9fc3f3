"""The ranks of this job: who they are, agreement on small things, and the way out."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.comm import failures, letters, replacement
from hpc_train.comm.choice import Choice
from hpc_train.comm.compression.wire import MpiWire
from hpc_train.comm.fabric import Fabric, FabricError
from hpc_train.comm.failures import Lost
from hpc_train.comm.gate import Gate, Seat, own_seat
from hpc_train.comm.mailbox import Mailbox
from hpc_train.comm.node import Node, host_key
from hpc_train.comm.post import Post
from hpc_train.comm.replacement import Invitation, Replacement
from hpc_train.comm.threads import need_threads
from hpc_train.comm.yielding import yielding_of
from hpc_train.leaving import take_leave
from hpc_train.record import operation, phase
from hpc_train.world import Json, World

if TYPE_CHECKING:
    from mpi4py import MPI

_POLL_SECONDS = 0.002
_FAREWELL_SECONDS = 10.0
_NEWS_SECONDS = 2.0  # until MPI surely knows of a death that an operation has met
_JOIN_SECONDS = 30


class Comm:
    """The ranks of `MPI_COMM_WORLD` (or of another communicator), as a `world.Group`.

    Agreement ("control") and gradients ("data") travel on communicators of their own, so that
    they can never be mistaken for each other.

    Args:
        mpi: the module mpi4py.MPI.
        base: the ranks; it is duplicated.
        key: what tells the node of this rank from others, by default host name and boot.

    Attributes:
        hosts: the keys of all ranks.
        world: who and where this rank is.
        node, gate: the ranks of this rank's node; where all ranks wait for each other asleep.
        choices: what `auto` found, by size class, type, and whether memory is shared.
        num_members: how many ranks there were at the beginning.
        members: the number that each rank had then; ranks are numbered anew by `shrink`.
        lost: who died, as far as `shrink` has found out.
        invitation: what this rank is told that replaces another one, until it has joined the
            others; None if it does not, or has.
        is_whole: whether these are all ranks of the job, not a group of them.
        fault_tolerant: whether the MPI survives the death of a rank, and tells the others.
    """

    def __init__(
        self, mpi: Any, base: MPI.Intracomm, key: str | None = None, *, is_whole: bool = True
    ) -> None:
        self._mpi = mpi
        self.is_whole = is_whole
        self._key = key or host_key()
        self.fault_tolerant = failures.tolerant(os.environ, mpi)
        self.invitation: Invitation | None = None
        self.num_members = base.Get_size()
        self.members = tuple(range(self.num_members))
        self.lost: list[Lost] = []
        self.choices: dict[tuple[int, str, bool], Choice] = {}
        self._connect(base.Dup())

    def _connect(self, base: MPI.Intracomm) -> None:
        """Make all communicators over the ranks of `base`."""
        self._lanes: MPI.Comm | None = None
        self.fabrics: dict[str, Fabric] = {}  # torch's own communication, by backend
        self.duplicates: list[Comm] = []
        self.communicators: list[MPI.Comm] = [base]  # every one: who sees a failure revokes them
        self._base = base
        self._control, self._data = (self._registered(base.Dup()) for _ in range(2))
        self._rank, self._size = base.Get_rank(), base.Get_size()
        seats = [Seat(*one) for one in self.gather(own_seat(self._key))]
        yielding = yielding_of(getattr(self._mpi, "__file__", None))
        self.gate = Gate(self._control, seats, yielding)
        self.hosts = [seat.node for seat in self.gate.seats]
        self.world = World.from_hosts(self.hosts, self._rank)
        self.node = Node(self._registered(base.Split(self.world.node, self._rank)))

    def _registered(self, communicator: Any) -> Any:
        self.communicators.append(communicator)
        return communicator

    def is_lost(self, error: BaseException) -> bool:
        """Whether `error` says that a rank died, so that the others may `shrink`."""
        if failures.is_failure(self._mpi, error):
            return True
        unclear = self.fault_tolerant and isinstance(error, (self._mpi.Exception, FabricError))
        return unclear and failures.is_known(self._mpi, self.communicators, _NEWS_SECONDS)

    def has_news(self) -> bool:
        """Whether MPI knows of a rank that died, for who waits for ranks by other means."""
        return self.fault_tolerant and failures.is_known(self._mpi, self.communicators, 0)

    def revoke(self) -> None:
        """Wake up all ranks, wherever they wait for each other: all operations fail from now on."""
        self._leave_fabrics()
        failures.revoke(
            communicator for one in (self, *self.duplicates) for communicator in one.communicators
        )

    def _leave_fabrics(self) -> None:
        for one in (self, *self.duplicates):
            for fabric in one.fabrics.values():
                fabric.abort()

    def shrink(self) -> None:
        """Go on without the ranks that died: this object is then that of the survivors.

        Collective among them: `world`, `node`, `hosts`, `members` are new, in the old order, and
        `lost` is longer; operations and memory made before are of no use any more.

        Raises:
            Exception: one that `is_lost` knows, if yet another rank died; then shrink again.
        """
        self.revoke()
        rest, survivors = failures.shrink(self._mpi, self._base)
        if not self.lost:
            atexit.register(self.depart)
        self.lost += failures.missing(self.hosts, self.members, survivors)
        self.hosts = [self.hosts[rank] for rank in survivors]
        self.members = tuple(self.members[rank] for rank in survivors)
        self.gate.leave()  # cores are shared out anew
        self._connect(rest)

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers that ranks had at the beginning which are not there now."""
        return tuple(sorted(set(range(self.num_members)) - set(self.members)))

    @property
    def number(self) -> int:
        """The number that this rank had at the beginning, or the one had that it replaces."""
        return self.members[self._rank]

    def replace(self, number: int, document: Json) -> Replacement | None:
        """Start a process that will take the place of a rank that died; this rank alone.

        Args:
            number: the rank's, as numbered at the beginning.
            document: what the process is told, in its `invitation`.

        Returns:
            None if this process was started in a way that cannot be repeated.
        """
        argv = replacement.program(sys.orig_argv[1:], os.environ, number)
        if not argv:
            return None
        # where it was, if others are still there: a node that is gone starts nothing
        host = next(one.host for one in reversed(self.lost) if one.rank == number)
        known = any(one.partition("/")[0] == host for one in self.hosts)
        told = [self.num_members, len(self.lost), document]
        return Replacement(self._mpi, number, argv, host if known else None, told)

    def admit(self, newcomer: Replacement | None, number: int) -> None:
        """Go on with a replacement that is ready; collective among all but it, which `join`s.

        Rank 0 is who it was, the others are in the order of their numbers at the beginning.

        Args:
            newcomer: on rank 0 alone.
            number: the rank that it replaces, as numbered at the beginning.

        Raises:
            Exception: one that `is_lost` knows, if a rank died: then shrink; the newcomer may be
                among those that are left.
        """
        members = replacement.order(self.members, number)
        places = dict(zip(self.members, self.hosts, strict=True))
        places.setdefault(number, next(one.host for one in self.lost if one.rank == number))
        lost = [asdict(one) for one in self.lost]
        choices = [[*key, *astuple(choice)] for key, choice in self.choices.items()]
        told = [members, [places[one] for one in members], lost, choices]
        place = members.index(self.number)
        whole = replacement.admit(self._mpi, self._base, newcomer, told, place, self._wake)
        self.members, self.hosts = tuple(members), [places[one] for one in members]
        self._leave_fabrics()
        self.gate.leave()
        self._connect(whole)

    def _wake(self, error: BaseException) -> None:
        """Let nobody wait for what a death has broken; raise what is something else."""
        if not self.is_lost(error):
            raise error
        self.revoke()

    def join(self) -> None:
        """Meet the others, as a replacement; their `admit`.

        Where nobody needs this process any more, it ends.
        """
        assert self.invitation is not None
        port, members, hosts, lost, choices = self.invitation.wait()
        number = self.number
        signal.alarm(_JOIN_SECONDS)  # where the others have gone on without it nobody would tell
        try:
            found = replacement.connect(self._mpi, port)
            whole: Any = found.Split(0, members.index(number))
            self.members, self.hosts = tuple(members), hosts
            self._connect(whole)
        except self._mpi.Exception as error:
            if self.is_lost(error):
                self.abort(0)
            raise
        signal.alarm(0)
        self.invitation = None
        atexit.register(self.depart)
        self.lost = [Lost(**one) for one in lost]
        self.choices = {(size, kind, lent): Choice(*rest) for size, kind, lent, *rest in choices}

    def split(self, group: int) -> Comm:
        """The ranks that name the same group, in their order; collective among all.

        Args:
            group: >= 0.
        """
        part: Any = self._base.Split(group, self._rank)
        return Comm(self._mpi, part, self._key, is_whole=False)

    @property
    def data(self) -> MPI.Intracomm:
        """The communicator of gradients."""
        found: MPI.Intracomm = self._data
        return found

    def lanes(self) -> MPI.Comm:
        """The ranks of other nodes that have this one's local rank; collective when first called.

        Of a node with more ranks than the smallest one, the surplus ranks get communicators that
        do not reach every node.
        """
        if self._lanes is None:
            lanes = self._base.Split(self.world.local_rank, self._rank)
            self._lanes = self._registered(lanes)
        return self._lanes

    def wire(self, communicator: MPI.Comm) -> MpiWire:
        """The ranks of one of the communicators, as parties that exchange compressed values."""
        return MpiWire(self._mpi, communicator)

    def allocate(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        """Zeros of shape (size,) on the CPU, in memory that the node's ranks share if possible.

        Collective: all ranks ask for the same. Where there is no shared memory to be had, or
        nobody to share it with, the memory is private.
        """
        lent = self.node.allocate(size, dtype)
        return torch.zeros(size, dtype=dtype) if lent is None else lent

    def post(self, seconds: float) -> Post:
        """Letters between two ranks, with `seconds` for each to arrive; collective.

        Raises:
            SetupError: on every rank, if this MPI does not let several threads use it.
        """
        need_threads(self)
        return Post(self._mpi, self._registered(self._base.Dup()), seconds)

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The element-wise sum of `values` over all ranks; float64, any shape."""
        total = np.array(values, np.float64)
        operation("sum", total.nbytes)
        self._control.Allreduce(self._mpi.IN_PLACE, total)
        return total

    def sums(self, pieces: Sequence[NDArray[Any]]) -> list[tuple[Any, Any, Any]]:
        """Calls of MPI_Allreduce on contiguous arrays, in place, with all arguments prepared.

        Each is (function, input, output); there are none if there is but one rank. Spelling out
        address, count and type spares mpi4py from looking for them in every call.
        """
        if self._size == 1:
            return []
        kinds = {4: self._mpi.FLOAT, 8: self._mpi.DOUBLE}
        function, in_place = self._data.Allreduce, self._mpi.IN_PLACE
        return [(function, in_place, [one, one.size, kinds[one.itemsize]]) for one in pieces]

    def spread(self, values: NDArray[Any], root: int = 0) -> None:
        """Overwrite a contiguous array with the root's, on every rank."""
        flat = values.reshape(-1).view(np.uint8)
        operation("spread", flat.size, root)
        for start in range(0, flat.size, 2**30):
            self._data.Bcast(flat[start : start + 2**30], root)

    def gather(self, value: Json) -> list[Json]:
        """Every rank's value, in the order of ranks, on every rank."""
        operation("gather")
        return letters.gather(self._control, value)

    def broadcast(self, value: Json, root: int = 0) -> Json:
        """The root's value, on every rank."""
        operation("broadcast", peer=root)
        return letters.broadcast(self._control, value, root)

    def meet(self) -> None:
        """Return once all ranks have called, as fast as MPI can and however long it takes."""
        operation("meet")
        self._control.Barrier()

    def mailbox(self) -> Mailbox:
        """Messages between single ranks, of which nobody else knows; collective."""
        return Mailbox(self._mpi, self._registered(self._base.Dup()))

    def group(self, ranks: Sequence[int], tag: int = 0) -> Comm:
        """Some of these ranks as ranks of their own, in the order of `ranks`; to be closed.

        Collective among them alone: the others need not know.

        Args:
            ranks: this one among them.
            tag: tells groups that are made at the same time apart, in [0, 2^15).
        """
        if len(ranks) == 1:  # where ranks have died, nothing else can be had
            base: Any = self._mpi.COMM_SELF.Dup()
        else:
            members = self._base.Get_group().Incl(list(ranks))
            base = self._base.Create_group(members, tag)
            members.Free()
        made = Comm(self._mpi, base, self._key, is_whole=False)
        base.Free()
        return made

    def close(self) -> None:
        """Free a group's communicators; collective, and nothing after ranks were lost."""
        if not self.lost:
            for duplicate in self.duplicates:
                duplicate.close()
            for fabric in self.fabrics.values():
                fabric.close()
            for communicator in reversed(self.communicators):
                communicator.Free()
        self.communicators = []

    def barrier(self, seconds: float | None = None) -> None:
        """Return once all ranks have called.

        Raises:
            TimeoutError: after `seconds` without all of them; the job can only be aborted then.
        """
        operation("barrier")
        request = self._control.Ibarrier()
        started = time.monotonic()
        with phase("waiting", operation="barrier"):
            while not request.Test():
                if seconds is not None and time.monotonic() - started > seconds:
                    raise TimeoutError(f"not all ranks reached the barrier in {seconds:g} s")
                time.sleep(_POLL_SECONDS)

    def abort(self, code: int) -> None:
        """End every rank of the job now, with exit code `code`; does not return.

        A fault-tolerant MPI does not end the others: they go on without it where they can.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        if self._size == 1 and self.invitation is None:
            take_leave()
            os._exit(code)
        if self.fault_tolerant:
            self.revoke()
            os.kill(os.getpid(), signal.SIGKILL)  # any exit code but 0 would go unnoticed
        self._mpi.COMM_WORLD.Abort(code)

    def depart(self, code: int = 0) -> None:
        """Before the process ends: where ranks have died, end it here, without MPI_Finalize.

        Args:
            code: the exit code.
        """
        if not self.lost:
            return
        take_leave()
        # one that is through already is gone for the others
        with contextlib.suppress(TimeoutError, self._mpi.Exception):
            self.barrier(_FAREWELL_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
