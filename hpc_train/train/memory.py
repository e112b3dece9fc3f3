"""The C library's allocator, told to keep what training frees and asks for again at every step."""

from __future__ import annotations

import ctypes
import os

# glibc, malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_TRIM_BYTES = 2**30
# older versions of glibc refuse more than 32 MiB
_MMAP_BYTES = (2**28, 2**25)


def keep_freed_memory() -> bool:
    """Let freed activations stay in this process; whether the C library agreed.

    By default glibc maps large blocks one by one and returns them to the kernel when they are
    freed: a step that frees its activations then pays for a page fault every 4 KiB in the next
    one. A user's own settings (`MALLOC_*`, `GLIBC_TUNABLES`) are left alone, and other C
    libraries as they are.
    """
    told = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    if any(name in os.environ for name in told):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mapped = any(mallopt(_M_MMAP_THRESHOLD, size) for size in _MMAP_BYTES)
    return bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)) and mapped
