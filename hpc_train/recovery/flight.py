"""The flight recorder's file: what a rank was doing, readable after the process is gone.

    flight/rank-0001.flight            a memory map of one page and a ring; survives SIGKILL, since
                                       the pages belong to the system, not to the process

    | page: who | state: now | heard: alive | slot 0 | slot 1 | ... | slot n-1 |

    who     magic, version, rank, pid, slots, when it began, host
    state   written at every event: a count before and after tells a reader whether it is torn
    beat    written by a thread of the rank: when the process last ran at all
    slot    event k lies in slot k modulo n, and carries k: what does not fit is overwritten

Times in `state` and `beat` are of the system's monotonic clock, the same in all processes of a
node; those of events are of the wall clock, to be compared between nodes.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_train.errors import HpcTrainError

FOLDER = "flight"
VERSION = 1
RUNNING, LEFT, FAILED = range(3)  # status
ENTER, LEAVE, OPERATION, NOTE = range(4)  # kinds of events
KINDS = ("enter", "leave", "operation", "note")

_MAGIC = b"HPCFLT\0\0"
_PAGE = 4096
_SLOTS = 4096
_WHO = struct.Struct("<8sIiiIQ64s")
_STATE = struct.Struct("<QQqQd16s24sQ")
_STATE_AT = 256
_BEAT = struct.Struct("<QQ")
_BEAT_AT = 512
_STATUS_AT = 544
_EVENT = struct.Struct("<QQqqQiHxx16s24s")

# looked up once
_STATE_PLACE = slice(_STATE_AT, _STATE_AT + _STATE.size)
_EVENT_BYTES = _EVENT.size
_pack_event, _pack_state, _date = _EVENT.pack, _STATE.pack, time.time_ns


@dataclass(frozen=True)
class State:
    """What a rank is doing.

    Attributes:
        events: how many it has written.
        operations: how many operations with others it has begun.
        batch: the number of the global batch; -1 before the first.
        since_seconds: when the present phase began, on the monotonic clock.
        limit_seconds: for how long it may last; infinite if nobody watches.
        phase: its name; "" between two phases.
        operation: the last operation with others, or what the phase is about.
    """

    events: int
    operations: int
    batch: int
    since_seconds: float
    limit_seconds: float
    phase: str
    operation: str


@dataclass(frozen=True)
class Event:
    """Something that a rank did; `number` counts its operations with others, `time` is a date."""

    kind: str
    time: float
    batch: int
    num_bytes: int
    number: int
    peer: int
    phase: str
    operation: str


@dataclass(frozen=True)
class Flight:
    """The record of one rank: who, how it ended, what it did last.

    Attributes:
        rank, pid, host: who.
        started: the date of its beginning.
        status: "running" (or killed), "left" or "failed".
        state: what it did last.
        heard: the date when its watching thread last ran; 0 without one.
        events: what it did before, oldest first.
    """

    rank: int
    pid: int
    host: str
    started: float
    status: str
    state: State
    heard: float
    events: tuple[Event, ...]

    @property
    def last_sign(self) -> float:
        """The date of its last sign of life."""
        return max([self.started, self.heard, *(event.time for event in self.events[-1:])])

    def document(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self)


class Tape:
    """The file, written by its own rank, read by others of the node; closes as a context.

    Args:
        path: the file.
        view: a map of it.
    """

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path = path
        self._view = view
        _, version, self.rank, self.pid, self._slots, started, host = _WHO.unpack_from(view, 0)
        if version != VERSION:
            raise HpcTrainError(
                f"flight records of version {VERSION} can be read (version: {version})",
                where=str(path),
            )
        self.started = started / 1e9
        self.host = _text(host)

    @classmethod
    def create(cls, path: Path, rank: int, slots: int = _SLOTS) -> Tape:
        """A new file, with its memory taken: a full disk is an error here, not a signal later.

        Raises:
            OSError: if it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        size = _PAGE + slots * _EVENT.size
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, size)
            view = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        host = socket.gethostname().encode()[:64]
        _WHO.pack_into(view, 0, _MAGIC, VERSION, rank, os.getpid(), slots, time.time_ns(), host)
        return cls(path, view)

    @classmethod
    def open(cls, path: Path) -> Tape:
        """The file of another rank.

        Raises:
            OSError: if it is not there.
            HpcTrainError: if it is not a flight record.
        """
        with path.open("rb") as file:
            try:
                view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                view = None
        if view is None or len(view) < _PAGE or view[:8] != _MAGIC:
            raise HpcTrainError("this is not a flight record", where=str(path))
        return cls(path, view)

    def write(
        self,
        event: int,
        kind: int,
        batch: int,
        num_bytes: int,
        operations: int,
        peer: int,
        phase: bytes,
        operation: bytes,
        since_ns: int,
        limit: float,
        now_in: bytes,
        now_at: bytes,
    ) -> None:
        """Write event number `event`, from 1 on, and what this rank does after it.

        One call for both: a step has some fifteen events, all of them with cold caches.

        Args:
            event, kind, batch, num_bytes, operations, peer, phase, operation: see `Event`.
            since_ns, limit, now_in, now_at: since when, for how long at most, in which phase and
                operation it is now, see `State`.
        """
        view, at = self._view, _PAGE + event % self._slots * _EVENT_BYTES
        view[at : at + _EVENT_BYTES] = _pack_event(
            event, _date(), batch, num_bytes, operations, peer, kind, phase, operation
        )
        # not packed in place: that begins with zeros, which a reader would take for a state if this
        # process is interrupted just then
        view[_STATE_PLACE] = _pack_state(
            event, operations, batch, since_ns, limit, now_in, now_at, event
        )

    def beat(self) -> None:
        """Say that this process runs."""
        beat = _BEAT.pack(time.monotonic_ns(), time.time_ns())
        self._view[_BEAT_AT : _BEAT_AT + _BEAT.size] = beat

    @property
    def beat_seconds(self) -> float:
        """When it last said so, on the monotonic clock; 0 if never."""
        return float(_BEAT.unpack_from(self._view, _BEAT_AT)[0] / 1e9)

    @property
    def status(self) -> int:
        """RUNNING, LEFT or FAILED: whether the rank took its leave."""
        return int(self._view[_STATUS_AT])

    @status.setter
    def status(self, value: int) -> None:
        self._view[_STATUS_AT] = value

    def state(self) -> State:
        """What the rank does now."""
        for _ in range(10):
            values = _STATE.unpack_from(self._view, _STATE_AT)
            if values[0] == values[7]:  # else the rank is about to write it
                break
        events, operations, batch, since, limit, phase, operation, _ = values
        return State(events, operations, batch, since / 1e9, limit, _text(phase), _text(operation))

    def events(self) -> Iterator[Event]:
        """The events that are still there, oldest first; torn ones are left out."""
        last = self.state().events
        for event in range(max(1, last - self._slots + 1), last + 1):
            at = _PAGE + event % self._slots * _EVENT.size
            found, when, batch, size, number, peer, kind, phase, operation = _EVENT.unpack_from(
                self._view, at
            )
            if found == event and kind < len(KINDS):
                yield Event(
                    KINDS[kind],
                    when / 1e9,
                    batch,
                    size,
                    number,
                    peer,
                    _text(phase),
                    _text(operation),
                )

    def flight(self) -> Flight:
        """All of it."""
        status = ("running", "left", "failed")[min(self.status, FAILED)]
        return Flight(
            self.rank,
            self.pid,
            self.host,
            self.started,
            status,
            self.state(),
            _BEAT.unpack_from(self._view, _BEAT_AT)[1] / 1e9,
            tuple(self.events()),
        )


def path_of(folder: Path, rank: int) -> Path:
    """Where the record of a rank lies, below the folder of records."""
    return folder / f"rank-{rank:04d}.flight"


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")
