"""A thread that sums while the caller computes.

    caller    compute ... put(3) compute ... put(2) compute ... put(1) wait
    thread                launch and finish 3       2                  1

All ranks put the same operations in the same order. The thread alone calls MPI on the communicators
of these operations, so that nobody else's messages come in between.
"""

from __future__ import annotations

import queue
import threading
import weakref

from hpc_train.comm.operation import Marked, Operation
from hpc_train.cores import roam

_JOIN_SECONDS = 10.0


class Background:
    """Launches and finishes operations in their order; its thread ends when nobody holds it."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Operation | threading.Event | None] = queue.SimpleQueue()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(
            target=_work, args=(self._tasks, self._errors), name="communication", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._tasks.put, None).atexit = False

    def put(self, operation: Operation) -> None:
        """Let an operation follow those that were put before; its buffer belongs to it until then.

        After one that failed, no other is begun.
        """
        if isinstance(operation, Marked):
            operation.mark()
        self._tasks.put(operation)

    def wait(self) -> None:
        """Return once all operations are through.

        Raises:
            BaseException: the first error that one of them raised, in this and in later calls.
        """
        done = threading.Event()
        self._tasks.put(done)
        done.wait()
        if self._errors:
            raise self._errors[0]

    def close(self) -> bool:
        """Let the thread end; whether it has. An operation that waits for others keeps it."""
        self._tasks.put(None)
        self._thread.join(_JOIN_SECONDS)
        return not self._thread.is_alive()


def _work(
    tasks: queue.SimpleQueue[Operation | threading.Event | None], errors: list[BaseException]
) -> None:
    roam()
    while (task := tasks.get()) is not None:
        if isinstance(task, threading.Event):
            task.set()
        elif not errors:
            try:
                task.launch()
                task.finish()
            except BaseException as error:  # told to whoever waits
                errors.append(error)
