"""Whether MPI lets others run on its core while it waits.

    core 0   rank 0: wait .......... | sum        it spins: rank 1 waits for its slice
             rank 1:   ready ------- | sum
    core 0   rank 0: wait y y | sum               it yields: rank 1 runs at once
             rank 1:   ready  | sum

Two ranks may meet on one core although another is free: the kernel wakes a thread where it slept,
and moves it when it next looks whether cores are evenly used. Who is idle sleeps, so it is these
ranks that meet. Yielding costs a system call in each round of waiting, a few tenths of a
microsecond of a sum; so it is done only where ranks wait for such a one, or have no core each.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

_SETTER = "opal_progress_set_yield_when_idle"  # Open MPI's `mpi_yield_when_idle`, at any time


class Yielding:
    """Sets whether MPI yields; without effect where the library cannot be told.

    Args:
        setter: sets it, for the whole process, and gives what was set before; None: cannot be told.

    Attributes:
        is_settable: whether the library can be told.
    """

    def __init__(self, setter: Callable[[bool], bool] | None) -> None:
        self._set = setter
        self.is_settable = setter is not None
        self._always = False  # as its user or its launcher wants it
        if setter is not None:
            self._always = setter(True)
            setter(self._always)
        self._yields = self._always

    def set_yielding(self, wanted: bool) -> None:
        """Let MPI yield while it waits, or spin again, unless it always yielded."""
        yields = wanted or self._always
        if self._set is not None and yields != self._yields:
            self._set(yields)
            self._yields = yields


@functools.cache
def yielding_of(path: str | None) -> Yielding:
    """The one of the MPI library that the module at `path` is linked to, if any."""
    if path is None:
        return Yielding(None)
    try:
        setter = getattr(ctypes.CDLL(path), _SETTER, None)
    except OSError:
        return Yielding(None)
    if setter is not None:
        setter.argtypes, setter.restype = [ctypes.c_bool], ctypes.c_bool
    return Yielding(setter)
