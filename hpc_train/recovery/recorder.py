"""The flight recorder: a hook that writes down what this rank does, for whoever asks later.

It costs a few microseconds a phase. The file is private to the rank; where the run directory is on
a network file system, in which a write to a memory map may wait for a server, the file lies in
$TMPDIR and the run directory says where.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from hpc_train.mounts import is_network, type_of
from hpc_train.record import Leave
from hpc_train.recovery.flight import (
    ENTER,
    FAILED,
    FOLDER,
    LEAVE,
    LEFT,
    NOTE,
    OPERATION,
    Tape,
    path_of,
)
from hpc_train.recovery.patience import Patience

BETWEEN_TWO = ("send", "receive")  # operations of two ranks, which all others know nothing of
_GENERATION = 40  # bits of an operation's number below the count of recoveries
ELSEWHERE = ".where"  # suffix of the file that says on which host and where the record lies


class Recorder:
    """Listens to the phases and operations of the thread that made it.

    Args:
        tape: the file.
        patience: says how long a phase may last; None if nobody watches.
    """

    def __init__(self, tape: Tape, patience: Patience | None = None) -> None:
        self.tape = tape
        self._add, self._set_state, self._left = tape.add, tape.set_state, self._leave
        self._patience = patience
        self._thread = threading.get_ident()
        self._batch = -1
        self._evaluating = False
        self._events = 0
        self._operations = 0
        self._stack: list[tuple[str, bytes, bytes, int]] = []
        self._names: dict[str, bytes] = {}
        self._write(ENTER, b"", b"", time.monotonic_ns(), math.inf)

    def __call__(self, name: str, detail: dict[str, Any]) -> Leave:
        """Hear of a phase."""
        if threading.get_ident() != self._thread:
            return _nothing
        if not self._evaluating:  # an evaluation counts batches of its own
            self._batch = detail.get("batch", self._batch)
            self._evaluating = name == "evaluate"
        phase, operation = self._name(name), self._name(detail.get("operation", ""))
        now = time.monotonic_ns()
        if name == "recovery":  # ranks may have been an operation apart: they count anew, alike
            self.count_from(self._operations)
        self._stack.append((name, phase, operation, now))
        self._write(ENTER, phase, operation, now, self._limit(name))
        return self._left

    def hear(self, name: str, num_bytes: int, peer: int) -> None:
        """Hear of an operation with other ranks."""
        if threading.get_ident() != self._thread:
            return
        collective = name not in BETWEEN_TWO
        self._operations += collective  # the others may send and receive in another order
        kind = OPERATION if collective else NOTE
        phase, since, limit = b"", time.monotonic_ns(), math.inf
        if self._stack:
            outer, phase, _, since = self._stack[-1]
            limit = self._limit(outer)
        self._write(kind, phase, self._name(name), since, limit, num_bytes, peer)

    @property
    def operations(self) -> int:
        """How many operations with others have begun, counted anew after each recovery."""
        return self._operations

    def count_from(self, operations: int) -> None:
        """Count anew, beyond `operations`: the same on ranks that begin to do so together."""
        self._operations = (operations >> _GENERATION) + 1 << _GENERATION

    def note(self, text: str) -> None:
        """Write down something else that happened, of at most 24 bytes."""
        phase = self._stack[-1][1] if self._stack else b""
        self._write(NOTE, phase, self._name(text), time.monotonic_ns(), math.inf)

    def close(self, *, failed: bool = False) -> None:
        """The rank takes its leave; nothing is watched from here on."""
        self.note("failed" if failed else "left")
        self.tape.status = FAILED if failed else LEFT

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=error is not None)

    def _leave(self) -> None:
        name, phase, operation, since = self._stack.pop()
        if name == "evaluate":
            self._evaluating = False
        now = time.monotonic_ns()
        if self._patience is not None:
            self._patience.learn(name, (now - since) / 1e9)
        outer, outer_phase, outer_operation = "", b"", b""
        if self._stack:  # the outer phase goes on: its time begins anew, since something was done
            outer, outer_phase, outer_operation, _ = self._stack[-1]
            self._stack[-1] = (outer, outer_phase, outer_operation, now)
        event, batch, count = self._events + 1, self._batch, self._operations
        self._events = event
        self._add(event, LEAVE, batch, 0, count, -1, phase, operation)
        limit = self._limit(outer)
        self._set_state(event, count, batch, now, limit, outer_phase, outer_operation)

    def _limit(self, name: str) -> float:
        return math.inf if self._patience is None else self._patience.limit(name)

    def _write(
        self,
        kind: int,
        phase: bytes,
        operation: bytes,
        since: int,
        limit: float,
        num_bytes: int = 0,
        peer: int = -1,
    ) -> None:
        event, batch, count = self._events + 1, self._batch, self._operations
        self._events = event
        self._add(event, kind, batch, num_bytes, count, peer, phase, operation)
        self._set_state(event, count, batch, since, limit, phase, operation)

    def _name(self, text: str) -> bytes:
        known = self._names.get(text)
        if known is None:
            known = self._names[text] = text.encode()[:24]
        return known


def place_for(run: Path, rank: int, temporary: Path | None = None) -> Path:
    """Where the record of a rank shall lie: in the run directory, unless that is over a network.

    Args:
        run: the run directory.
        rank: of the job.
        temporary: where else; $TMPDIR by default.
    """
    own = path_of(run / FOLDER, rank)
    if not is_network(type_of(run)):
        return own
    folder = (temporary or Path(tempfile.gettempdir())) / f"hpc_train-{run.resolve().name}"
    return path_of(folder, rank)


def _nothing() -> None:
    """Leave a phase of another thread."""
