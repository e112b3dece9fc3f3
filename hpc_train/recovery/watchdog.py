"""The watchdog: a thread on each rank; one of each node looks after all ranks of the node.

    rank 0   beats, and looks: idle? stopped? gone?        the lowest rank whose beat is fresh
    rank 1   beats; is rank 0's beat fresh?                looks as soon as it is not
    rank 2   beats; is rank 0's beat fresh?

It reads the flight records, which all ranks write anyway. What it finds it prints: which rank, host
and pid, in which phase since when, the Python stacks of the culprit and of one that waits; then it
acts. Killed ranks are then lost like any other: the run goes on without them where the MPI can.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_train.recovery.flight import RUNNING, Tape
from hpc_train.recovery.process import state_of
from hpc_train.recovery.suspicion import Sight, Suspicion, suspect

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 0.1
_STALE_SECONDS = 0.4  # of a beat, after which the system is asked about the process
_ABSENT_SECONDS = 1.0  # of a beat, after which another rank looks
_ANSWER_SECONDS = 0.5  # for a process to write down its stack
_STACK_LINES = 12
SIGNAL = signal.SIGUSR2  # asks a rank for its stack


@dataclass
class _Seen:
    """What the watchdog remembers of a rank."""

    events: int = -1
    idle: float = 0.0
    silent: float = 0.0


class Watchdog:
    """Watches over the ranks of one node; a context in which its thread runs.

    Args:
        own: the rank of this process.
        tapes: the flight records of all ranks of this node, this one's included.
        on_hang: "kill" the culprit, "wait", or "abort": kill all ranks of this node.
        alone: whether other nodes have ranks, or this one has only one.
    """

    def __init__(self, own: int, tapes: Mapping[int, Tape], on_hang: str, *, alone: bool) -> None:
        self._own, self._tape = own, tapes[own]
        self._tapes = dict(sorted(tapes.items()))
        self._on_hang = on_hang
        self._alone = alone
        self._seen = {rank: _Seen() for rank in tapes}
        self._told: tuple[int, int] | None = None  # rank and its events of the last suspicion
        self._lock = threading.Lock()  # against `watch` while it looks
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        path = stack_path(self._tape.path)
        self._stack = path.open("w", encoding="utf-8")
        faulthandler.register(SIGNAL, file=self._stack, all_threads=True, chain=False)
        self._tape.beat()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join()
        # the handler stays: a late question must not end this process
        if not Path(self._stack.name).stat().st_size:
            with contextlib.suppress(OSError):
                Path(self._stack.name).unlink()

    def watch(self, tapes: Mapping[int, Tape], *, alone: bool) -> None:
        """Watch other ranks than before; arguments as at the beginning."""
        with self._lock:
            self._tapes, self._alone = dict(sorted(tapes.items())), alone
            self._seen = {rank: _Seen() for rank in tapes}
            self._told = None

    def _run(self) -> None:
        before = time.monotonic()
        while not self._ending.wait(_INTERVAL_SECONDS):
            now = time.monotonic()
            self._tape.beat()
            with self._lock:
                self.look(now, min(now - before, 2 * _INTERVAL_SECONDS))
            before = now

    def look(self, now: float, step: float) -> Suspicion | None:
        """Look at all ranks, if that is this one's turn; `step` seconds have passed since."""
        for rank, tape in self._tapes.items():
            if rank == self._own:
                break
            if now - tape.beat_seconds < _ABSENT_SECONDS:
                return None  # a lower one looks
        sights = [self._see(rank, tape, now, step) for rank, tape in self._tapes.items()]
        found = suspect(sights, self._alone)
        if found is None:
            return None
        occasion = (found.rank, self._seen[found.rank].events)
        if self._told != occasion:
            self._told = occasion
            self._report(found)
            self._act(found)
        return found

    def _see(self, rank: int, tape: Tape, now: float, step: float) -> Sight:
        state, seen = tape.state(), self._seen[rank]
        if state.events != seen.events:
            seen.events, seen.idle = state.events, 0.0
        else:
            seen.idle += step
        # a process that does not run does not beat; one that beats needs no question
        process = "S"
        if now - tape.beat_seconds > _STALE_SECONDS or seen.idle > state.limit_seconds:
            process = state_of(tape.pid, tape.started)
        seen.silent = seen.silent + step if process in ("", "T") else 0.0
        return Sight(
            rank,
            process,
            seen.idle,
            seen.silent,
            state.limit_seconds,
            state.phase,
            state.operations,
            tape.status != RUNNING,
        )

    def _report(self, found: Suspicion) -> None:
        tape = self._tapes[found.rank]
        state, seen = tape.state(), self._seen[found.rank]
        where = f"in phase {state.phase}" if state.phase else "between two phases"
        words = {
            "stopped": "is stopped (SIGSTOP)",
            "hung": f"is hung: for {seen.idle:.1f} s",
            "gone": "is gone, and the MPI does not tell the others:",
        }
        operation = f", operation {state.operation}" if state.operation else ""
        lines = [
            f"rank {found.rank} on {tape.host} (pid {tape.pid}) {words[found.what]} {where}"
            f"{operation}, batch {state.batch}; on_hang: {self._on_hang}"
        ]
        if found.what == "hung":
            lines += [f"stack of rank {found.rank}:", *self._stack_of(found.rank)]
        elif found.what == "stopped":
            lines += ["a stopped process cannot show its stack"]
        if found.waiting is not None:
            lines += [f"stack of rank {found.waiting}, which waits:"]
            lines += self._stack_of(found.waiting)
        logger.error("%s", "\n".join(lines))

    def _stack_of(self, rank: int) -> list[str]:
        """The Python stack of a rank, asked for by a signal; it answers even while in C code."""
        tape = self._tapes[rank]
        path = stack_path(tape.path)
        try:
            before = path.stat().st_size
            os.kill(tape.pid, SIGNAL)
        except OSError as error:
            return [f"  (cannot be asked: {error.strerror})"]
        until = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < until and path.stat().st_size == before:
            time.sleep(0.02)
        time.sleep(0.05)  # it may still be writing
        with path.open("rb") as file:
            file.seek(before)
            text = file.read().decode("utf-8", "replace")
        return [f"  {line}" for line in main_thread(text)] or ["  (no answer)"]

    def _act(self, found: Suspicion) -> None:
        if self._on_hang == "wait":
            return
        if self._on_hang == "kill" and found.what != "gone":
            _kill(self._tapes[found.rank].pid)
            return
        others = [tape.pid for rank, tape in self._tapes.items() if rank != self._own]
        for pid in others:
            _kill(pid)
        _kill(os.getpid())


def stack_path(tape: Path) -> Path:
    """Where a rank writes its stack, beside its flight record."""
    return tape.with_suffix(".stack")


def main_thread(text: str) -> list[str]:
    """The innermost lines about the thread that answered, of what faulthandler wrote."""
    sections = text.replace("\nThread ", "\n\0Thread ").replace("\nCurrent", "\n\0Current")
    lines = text.strip().splitlines()
    for section in sections.split("\0"):
        if section.startswith("Current"):
            lines = section.strip().splitlines()[1:]
    return lines[:_STACK_LINES] + ["  ..."] * (len(lines) > _STACK_LINES)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
