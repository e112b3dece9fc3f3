"""The saver: the training stops for a copy in memory, a thread writes it to the disk.

    rank 0   | begin |  steps ...                | advance |  steps ...     | advance |
             copy    +-- writes part 0 --+       gather    +-- manifest --+ outcome
    rank 1   | begin |  steps ...                | advance |  steps ...     | advance |
             copy    +-- writes part 1 ------+   gather                     outcome

1 begin     all ranks, at the same step: agree on a draft, copy, and let a thread write
2 advance   all ranks, at the same step, once nobody is busy: tell each other of their parts
3 advance   the same once more: rank 0's manifest is written, so the set is there

A set of one part is written by rank 0's thread as a whole, so that 2 is 3. Threads never call MPI.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hpc_train.checkpoint.divide import PART_BYTES, divide, num_parts, writer
from hpc_train.checkpoint.layout import Part, num_bytes
from hpc_train.checkpoint.snapshot import Snapshot
from hpc_train.checkpoint.store import Store
from hpc_train.cores import roam
from hpc_train.errors import CheckpointError
from hpc_train.record import phase
from hpc_train.world import Group, RankError, agree, on_coordinator

_PATIENCE_SECONDS = 5.0  # for a thread that still writes when the run is broken off

Tensors = Mapping[str, torch.Tensor]


class _Job:
    """Something that a thread of its own does; its error waits to be asked for."""

    def __init__(self, function: Callable[[], Part | None]) -> None:
        self._function = function
        self._part: Part | None = None
        self._error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self.thread.start()

    @property
    def busy(self) -> bool:
        return self.thread.is_alive()

    def result(self) -> Part | None:
        """What the function gave, or raise what it raised; waits for its end."""
        self.thread.join()
        if self._error is not None:
            raise self._error
        return self._part

    def _run(self) -> None:
        roam()
        try:
            self._part = self._function()
        except Exception as error:
            self._error = error


@dataclass
class _Pending:
    """A save that is not yet a set. `draft` is None for one of a single part."""

    step: int
    notes: Mapping[str, Any]
    draft: Path | None
    begun: float
    parts: list[Part] = field(default_factory=list)


class Saver:
    """Saves sets while the training goes on; one at a time.

    All methods but `busy`, `copying`, `prepare`, `wait_for_copy` and `close` are collective.

    Args:
        store: where sets go.
        group: the ranks, which hold equal tensors when they save.
        part_bytes: how much of the state is worth a writer of its own.

    Attributes:
        pending: whether a save was begun that is not yet a set; the same on every rank.
        blocked_seconds: how long the last `begin` took.
        writing_seconds: how long it took from its `begin` until the last set was there.
    """

    def __init__(self, store: Store, group: Group, part_bytes: int = PART_BYTES) -> None:
        self._store = store
        self._group = group
        self._part_bytes = part_bytes
        self._pending: _Pending | None = None
        self._job: _Job | None = None
        self._snapshot: Snapshot | None = None
        self._copied = threading.Event()
        self._copied.set()
        self.blocked_seconds = 0.0
        self.writing_seconds = 0.0

    @property
    def pending(self) -> bool:
        return self._pending is not None

    @property
    def busy(self) -> bool:
        """Whether a thread of this rank is at work."""
        return self._job is not None and self._job.busy

    @property
    def copying(self) -> bool:
        """Whether `wait_for_copy` would wait."""
        return not self._copied.is_set()

    def prepare(self, tensors: Tensors) -> None:
        """Make memory for copies of tensors like these ready, in another thread."""
        mine = self._mine(tensors)
        if mine and (self._snapshot is None or not self._snapshot.fits(mine)):
            self._snapshot = Snapshot(mine)

    def begin(
        self,
        step: int,
        tensors: Tensors,
        notes: Mapping[str, Any],
        *,
        copy: bool = True,
        steady: Container[str] = (),
    ) -> None:
        """Begin to save; a save that is still pending is finished before.

        Args:
            step: which set it will be.
            tensors: the state, the same on every rank.
            notes: what else belongs to it, as JSON.
            copy: whether the tensors may change before the save is finished.
            steady: names of those that do not change before `wait_for_copy` has returned; a thread
                copies them, in the shadow of the next forward and backward.

        Raises:
            RankError: on every rank, if the save before or the beginning of this one failed.
        """
        self.finish()
        if self._job is not None:  # of a save that was abandoned
            self._job.thread.join()
            self._job = None
        started = time.perf_counter()
        with phase("checkpoint", operation="begin", step=step):
            parts = self._num_parts(tensors)
            draft = None
            if parts > 1:
                draft = Path(on_coordinator(self._group, lambda: str(self._store.begin(step))))
            self._pending = _Pending(step, notes, draft, started)
            try:
                mine, later = self._copy(tensors, steady) if copy else (self._mine(tensors), None)
            except CheckpointError as error:
                self._job = _Job(partial(_fail, error))  # the other ranks will hear of it
            else:
                self._job = self._write(self._pending, parts, mine, later)
        self.blocked_seconds = time.perf_counter() - started

    def advance(self) -> None:
        """Take the pending save a step further; waits for whoever is still busy.

        Raises:
            RankError: on every rank, if it failed on one; nothing is pending then.
        """
        pending = self._pending
        if pending is None:
            return
        with phase("checkpoint", operation="finish", step=pending.step):
            try:
                if pending.draft is not None and not pending.parts:
                    self._publish(pending, pending.draft)
                    return
                on_coordinator(self._group, self._done)
            except RankError:
                self._pending = self._job = None
                if pending.draft is not None and self._group.world.is_coordinator:
                    self._store.discard(pending.draft)
                raise
        self._pending = self._job = None
        self.writing_seconds = time.perf_counter() - pending.begun

    def finish(self) -> None:
        """Return once nothing is pending.

        Raises:
            RankError: on every rank, if the pending save failed.
        """
        while self._pending is not None:
            self.advance()

    def abandon(self) -> None:
        """Forget the pending save, since ranks that took part are gone; this rank alone.

        What its thread still writes is waited for when the next one begins.
        """
        self._pending = None

    def close(self) -> None:
        """Let this rank's thread end; one that hangs is left behind."""
        if self._job is not None:
            self._job.thread.join(_PATIENCE_SECONDS)

    def _num_parts(self, tensors: Tensors) -> int:
        total = sum(map(num_bytes, tensors.values()))
        return num_parts(total, self._group.world.size, self._part_bytes)

    def _number(self, parts: int) -> int | None:
        """Which part this rank writes; None if it writes none."""
        world = self._group.world
        writers = [writer(part, parts, world.size) for part in range(parts)]
        return writers.index(world.rank) if world.rank in writers else None

    def _mine(self, tensors: Tensors) -> Tensors:
        """The tensors that this rank writes."""
        parts = self._num_parts(tensors)
        number = self._number(parts)
        if number is None:
            return {}
        sizes = {name: num_bytes(tensor) for name, tensor in tensors.items()}
        return {name: tensors[name] for name in divide(sizes, parts)[number]}

    def wait_for_copy(self) -> None:
        """Return once the steady tensors may be changed again; this rank alone."""
        self._copied.wait()

    def _copy(
        self, tensors: Tensors, steady: Container[str]
    ) -> tuple[Tensors, Callable[[], None] | None]:
        """Copies of the tensors that this rank writes, and what still has to copy some of them."""
        self.prepare(tensors)
        mine, snapshot = self._mine(tensors), self._snapshot
        if not mine or snapshot is None:
            return mine, None
        later = {n: t for n, t in mine.items() if n in steady and not snapshot.on_device}
        snapshot.take({n: t for n, t in mine.items() if n not in later})
        return snapshot.views(), partial(snapshot.take, later)

    def _write(
        self,
        pending: _Pending,
        parts: int,
        mine: Tensors,
        copy: Callable[[], None] | None,
    ) -> _Job | None:
        number, draft, store = self._number(parts), pending.draft, self._store
        if number is None:
            return None

        copied = threading.Event()
        self._copied = copied

        def write() -> Part | None:
            """Copy, and tell so; then write this rank's part, or as a single rank the whole set."""
            try:
                if copy is not None:
                    copy()
            finally:
                copied.set()
            if draft is not None:
                return store.write_part(draft, number, mine)
            store.save(pending.step, mine, pending.notes)
            return None

        return _Job(write)

    def _done(self) -> None:
        """Wait for this rank's thread; raise its error."""
        if self._job is not None:
            self._job.result()

    def _publish(self, pending: _Pending, draft: Path) -> None:
        """Once all parts are written: let rank 0 write the manifest."""
        error, part = None, None
        try:
            part = self._job.result() if self._job is not None else None
        except Exception as raised:
            error = raised
        agree(self._group, error)
        told = self._group.gather(None if part is None else asdict(part))
        pending.parts = [
            Part(**{**entry, "crc32": tuple(entry["crc32"])}) for entry in told if entry is not None
        ]
        self._job = None
        if self._group.world.is_coordinator:

            def publish() -> None:
                self._store.publish(draft, pending.step, pending.notes, pending.parts)

            self._job = _Job(publish)


def _fail(error: Exception) -> None:
    raise error
