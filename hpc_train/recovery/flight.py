"""The flight recorder's file: what a rank was doing, readable after the process is gone.

    flight/rank-0001.flight            a memory map of one page and a ring; survives SIGKILL, since
                                       the pages belong to the system, not to the process

    | page: who | count | beat | status | names | slot 0 | slot 1 | ... | slot n-1 |

    who     magic, version, rank, pid, slots, when it began (both clocks), host
    count   events that are whole: the last of them says what the rank does now
    beat    written by a thread of the rank: when the process last ran at all (both clocks)
    status  whether the rank has taken its leave
    names   of phases and operations, written when they first occur; events have their numbers
    slot    event k lies in slot k modulo n, and carries k: what does not fit is overwritten

Times are of the system's monotonic clock, the same in all processes of a node; a beat tells what
they are on the wall clock, on which nodes are compared.
"""

from __future__ import annotations

import contextlib
import math
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
VERSION = 2
RUNNING, LEFT, FAILED = range(3)  # status
ENTER, LEAVE, OPERATION, NOTE = range(4)  # kinds of events
OTHER = "other"  # a name for which there was no room
KINDS = ("enter", "leave", "operation", "note")

_MAGIC = b"HPCFLT\0\0"
_PAGE = 4096
_SLOTS = 4096
_WHO = struct.Struct("<8sIiiIQQ64s")
_COUNT_AT = 256
_BEAT = struct.Struct("<QQ")
_BEAT_AT = 512
_STATUS_AT = 544
_NAMES_AT = 1024
_NAME_BYTES = 24
_MOST_NAMES = (_PAGE - _NAMES_AT) // _NAME_BYTES
# a cache line: number, time, since, bytes, operations, limit, batch, peer; phase and operation,
# and those that the rank is in afterwards; kind
_EVENT = struct.Struct("<QQQqQdiiBBBBH2x")

# looked up once
_EVENT_BYTES = _EVENT.size
_pack = _EVENT.pack_into


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
    """The file, written by its own rank, read by others of the node.

    Args:
        path: the file.
        view: a map of it.

    Attributes:
        codes: numbers of names, by name.
    """

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path = path
        self._view = view
        self._count = memoryview(view)[_COUNT_AT : _COUNT_AT + 8].cast("Q")
        self.codes = _Codes(view)
        who = _WHO.unpack_from(view, 0)
        _, version, self.rank, self.pid, self._slots, started, began, host = who
        if version != VERSION:
            raise HpcTrainError(
                f"flight records of version {VERSION} can be read (version: {version})",
                where=str(path),
            )
        self.started, self._began = started / 1e9, float(began)
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
        now = time.time_ns(), time.monotonic_ns()
        _WHO.pack_into(view, 0, _MAGIC, VERSION, rank, os.getpid(), slots, *now, host)
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
        phase: int,
        operation: int,
        now_ns: int,
        since_ns: int,
        limit: float,
        now_in: int,
        now_at: int,
    ) -> None:
        """Write event number `event`, from 1 on, and what this rank does after it.

        A step has some fifteen events, all of them with cold caches: so it is one cache line.

        Args:
            event, kind, batch, num_bytes, operations, peer: see `Event`.
            phase, operation: their `codes`.
            now_ns, since_ns: now, and since when, on the monotonic clock.
            limit, now_in, now_at: for how long at most, in which phase and operation it is now
                (their `codes`), see `State`.
        """
        _pack(
            self._view, _PAGE + event % self._slots * _EVENT_BYTES,
            event, now_ns, since_ns, num_bytes, operations, limit, batch, peer,
            phase, operation, now_in, now_at, kind,
        )  # fmt: skip
        self._count[0] = event  # only now does a reader look there

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
            values = self._event(count := self._count[0])
            if values[0] == count:  # else as many as there are slots came in between
                break
        number, _, since, _, operations, limit, batch, _, _, _, now_in, now_at, _ = values
        if not number:  # nothing yet
            return State(0, 0, -1, self._began / 1e9, math.inf, "", "")
        names = self._name(now_in), self._name(now_at)
        return State(number, operations, batch, since / 1e9, limit, *names)

    def events(self) -> Iterator[Event]:
        """The events that are still there, oldest first; torn ones are left out."""
        last, to_date = self._count[0], self._to_date()
        for number in range(max(1, last - self._slots + 1), last + 1):
            found, when, _, size, operations, _, batch, peer, phase, what, _, _, kind = self._event(
                number
            )
            if found == number and kind < len(KINDS):
                yield Event(
                    KINDS[kind],
                    when / 1e9 + to_date,
                    batch,
                    size,
                    operations,
                    peer,
                    self._name(phase),
                    self._name(what),
                )

    def _event(self, number: int) -> tuple[Any, ...]:
        """What lies where event `number` belongs."""
        return _EVENT.unpack_from(self._view, _PAGE + number % self._slots * _EVENT_BYTES)

    def _name(self, code: int) -> str:
        """The name that has a number."""
        at = _NAMES_AT + code * _NAME_BYTES
        return _text(self._view[at : at + _NAME_BYTES])

    def _to_date(self) -> float:
        """What is added to seconds of the monotonic clock for those of the wall clock."""
        monotonic, wall = _BEAT.unpack_from(self._view, _BEAT_AT)
        if not wall:
            return float(self.started - self._began / 1e9)
        return float((wall - monotonic) / 1e9)

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


class _Codes(dict[str, int]):
    """Numbers of names, which are written down when they are first asked for.

    The first 24 bytes of a name are kept. Those beyond the 127th share the last number, called
    "other".
    """

    def __init__(self, view: mmap.mmap) -> None:
        super().__init__({"": 0})
        self._view = view

    def __missing__(self, text: str) -> int:
        found = self[text] = min(len(self), _MOST_NAMES - 1)
        raw = text.encode()[:_NAME_BYTES] if found < _MOST_NAMES - 1 else OTHER.encode()
        at = _NAMES_AT + found * _NAME_BYTES
        self._view[at : at + _NAME_BYTES] = raw.ljust(_NAME_BYTES, b"\0")
        return found


def path_of(folder: Path, rank: int) -> Path:
    """Where the record of a rank lies, below the folder of records."""
    return folder / f"rank-{rank:04d}.flight"


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")
