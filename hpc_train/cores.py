"""The cores that this process may use, also while its computing thread stays on some of them.

Threads inherit where the one that starts them may run. One that works beside the computing thread
calls `roam` first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_usable: frozenset[int] | None = None  # as it was before the first `stay`


def usable_cores() -> list[int]:
    """The cores that this process may use, by number, ascending."""
    return sorted(os.sched_getaffinity(0) if _usable is None else _usable)


def stay(cores: Iterable[int]) -> None:
    """Let the calling thread run on `cores` only.

    Raises:
        OSError: if it may not be moved.
    """
    global _usable
    if _usable is None:
        _usable = frozenset(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores)


def roam() -> None:
    """Let the calling thread run wherever the process may."""
    if _usable is not None:
        os.sched_setaffinity(0, _usable)
