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
_now, _thread = time.monotonic_ns, threading.get_ident  # looked up once
ELSEWHERE = ".where"  # suffix of the file that says on which host and where the record lies


class Recorder:
    """Listens to the phases and operations of the thread that made it.

    Args:
        tape: the file.
        patience: says how long a phase may last; None if nobody watches.
    """

    def __init__(self, tape: Tape, patience: Patience | None = None) -> None:
        self.tape = tape
        self._write, self._left = tape.write, self._leave
        self._patience = patience
        known = patience or Patience(math.inf)
        self._limits, self._unknown, self._settled = known.limits, known.unknown, known.settled
        self._short_ns = known.short_seconds * 1e9
        self._thread = threading.get_ident()
        self._batch = -1
        self._evaluating = False
        self._events = 0
        self._operations = 0
        self._stack: list[tuple[str, int, int, int]] = []
        self._codes = tape.codes
        self._note(ENTER, 0, 0)

    def __call__(self, name: str, detail: dict[str, Any]) -> Leave:
        """Hear of a phase."""
        if _thread() != self._thread:
            return _nothing
        if not self._evaluating:  # an evaluation counts batches of its own
            self._batch = detail.get("batch", self._batch)
            self._evaluating = name == "evaluate"
        phase, operation = self._codes[name], self._codes[detail.get("operation", "")]
        now = _now()
        if name == "recovery":  # ranks may have been an operation apart: they count anew, alike
            self.count_from(self._operations)
        self._stack.append((name, phase, operation, now))
        event = self._events = self._events + 1
        self._write(
            event, ENTER, self._batch, 0, self._operations, -1, phase, operation,
            now, now, self._limits.get(name, self._unknown), phase, operation,
        )  # fmt: skip
        return self._left

    def hear(self, name: str, num_bytes: int, peer: int) -> None:
        """Hear of an operation with other ranks."""
        if _thread() != self._thread:
            return
        kind = NOTE
        if name not in BETWEEN_TWO:  # the others may send and receive in another order
            kind, self._operations = OPERATION, self._operations + 1
        now = _now()
        if self._stack:
            outer, phase, _, since = self._stack[-1]
            limit = self._limits.get(outer, self._unknown)
        else:
            phase, since, limit = 0, now, math.inf
        operation = self._codes[name]
        event = self._events = self._events + 1
        self._write(
            event, kind, self._batch, num_bytes, self._operations, peer, phase, operation,
            now, since, limit, phase, operation,
        )  # fmt: skip

    @property
    def operations(self) -> int:
        """How many operations with others have begun, counted anew after each recovery."""
        return self._operations

    def count_from(self, operations: int) -> None:
        """Count anew, beyond `operations`: the same on ranks that begin to do so together."""
        self._operations = (operations >> _GENERATION) + 1 << _GENERATION

    def note(self, text: str) -> None:
        """Write down something else that happened: one of few texts, of at most 24 bytes."""
        self._note(NOTE, self._stack[-1][1] if self._stack else 0, self._codes[text])

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
        now = _now()
        if self._patience is not None and (
            now - since >= self._short_ns or name not in self._settled
        ):
            self._patience.learn(name, (now - since) / 1e9)
        outer, outer_phase, outer_operation = "", 0, 0
        if self._stack:  # the outer phase goes on: its time begins anew, since something was done
            outer, outer_phase, outer_operation, _ = self._stack[-1]
            self._stack[-1] = (outer, outer_phase, outer_operation, now)
        event = self._events = self._events + 1
        self._write(
            event, LEAVE, self._batch, 0, self._operations, -1, phase, operation,
            now, now, self._limits.get(outer, self._unknown), outer_phase, outer_operation,
        )  # fmt: skip

    def _note(self, kind: int, phase: int, operation: int) -> None:
        """Something that has no end."""
        event, now = self._events + 1, _now()
        self._events = event
        self._write(
            event, kind, self._batch, 0, self._operations, -1, phase, operation,
            now, now, math.inf, phase, operation,
        )  # fmt: skip


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
