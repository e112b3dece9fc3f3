"""Programs that run one at a time, in short turns, so that all of them meet the same machine.

A    | runs |       | runs |       | runs |          each turn a fraction of a second; whoever does
B    |       | runs |       | runs |                 not run is stopped, with all of its processes

A machine's moods last for seconds: programs that run one after the other may each meet another
one. The figure of each side is a median over its steps, of which a turn cuts very few.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

Pause = tuple[float, float]  # from when to when, by `time.perf_counter`

TURN_SECONDS = 0.2
_LOOK_SECONDS = 0.002


def family(process: int) -> list[int]:
    """The numbers of a process and of all its descendants, parents first."""
    found = [process]
    for parent in found:
        with suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found.extend(map(int, children.read_text().split()))
    return found


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a program's processes, unless it is over."""
    if process.poll() is None:
        for one in family(process.pid):
            with suppress(ProcessLookupError):
                os.kill(one, number)


def take_turns(
    programs: Sequence[Callable[[], subprocess.Popen[bytes]]],
    is_ready: Sequence[Callable[[], bool]],
    turn_seconds: float = TURN_SECONDS,
) -> list[list[Pause]]:
    """Start programs one after another, each until it is ready; then let them take turns.

    Returns once all have ended; on an error none of them is left.

    Args:
        programs: each starts one.
        is_ready: whether each is where its turns shall begin.
        turn_seconds: of a turn.

    Returns:
        Of each program, when it stood still.
    """
    started: list[subprocess.Popen[bytes]] = []
    pauses: list[list[Pause]] = [[] for _ in programs]
    since = [0.0 for _ in programs]

    def stop(place: int) -> None:
        since[place] = time.perf_counter()
        send(started[place], signal.SIGSTOP)

    try:
        for start, ready in zip(programs, is_ready, strict=True):
            program = start()
            started.append(program)
            while not ready() and program.poll() is None:
                time.sleep(_LOOK_SECONDS)
            stop(len(started) - 1)
        while any(program.poll() is None for program in started):
            for place, program in enumerate(started):
                if program.poll() is None:
                    send(program, signal.SIGCONT)
                    pauses[place].append((since[place], time.perf_counter()))
                    _wait(program, turn_seconds)
                    stop(place)
        return pauses
    finally:
        for program in started:
            send(program, signal.SIGKILL)
            program.wait()


def _wait(program: subprocess.Popen[bytes], seconds: float) -> None:
    """Return after so many seconds, or when a program has ended."""
    with suppress(subprocess.TimeoutExpired):
        program.wait(seconds)
