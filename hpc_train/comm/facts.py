"""What the MPI library of this process is and can do.

This file imports nothing of the package, so that it can also be run as a script, in a child
process that may be killed without harm: some sites' MPI ends processes on login nodes.

    python facts.py library     which library would be loaded, without starting MPI
    python facts.py start       the same and what only a started MPI can tell
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

_UNKNOWN_VENDOR = "unknown"


def library_facts() -> dict[str, Any]:
    """The MPI library that Python loads; needs no started MPI, and starts it as mpi4py is told.

    Returns:
        vendor (such as "Open MPI"), vendor_version ("5.0.11"), library_version (the library's own
        sentence), standard ("3.1"), path (of the shared object; None if it cannot be found).

    Raises:
        ImportError, RuntimeError: if mpi4py or the library cannot be loaded.
    """
    from mpi4py import MPI

    vendor, version = MPI.get_vendor()
    return {
        "vendor": vendor if vendor else _UNKNOWN_VENDOR,
        "vendor_version": ".".join(map(str, version)),
        "library_version": MPI.Get_library_version().strip("\0 \n").splitlines()[0],
        "standard": ".".join(map(str, MPI.Get_version())),
        "path": _library_path(),
    }


def mpi_facts() -> dict[str, Any]:
    """What the MPI of this process is and can do; starts MPI if it has not been started.

    Returns:
        `library_facts()` and size, rank, thread_level ("multiple", "serialized", "funneled",
        "single"), ulfm (the library has it), ulfm_started (the job was started with it),
        gpu_aware (the names of the kinds of GPU whose memory can be sent; None if it does not
        tell), processor (the node's name as MPI knows it).

    Raises:
        ImportError, RuntimeError: if mpi4py or the library cannot be loaded.
    """
    from mpi4py import MPI

    facts = library_facts()
    levels = {
        MPI.THREAD_SINGLE: "single",
        MPI.THREAD_FUNNELED: "funneled",
        MPI.THREAD_SERIALIZED: "serialized",
        MPI.THREAD_MULTIPLE: "multiple",
    }
    return {
        **facts,
        "size": MPI.COMM_WORLD.Get_size(),
        "rank": MPI.COMM_WORLD.Get_rank(),
        "thread_level": levels.get(MPI.Query_thread(), _UNKNOWN_VENDOR),
        "ulfm": _has_ulfm(MPI),
        "ulfm_started": ulfm_started(os.environ),
        "gpu_aware": _gpu_aware(facts["path"]),
        "processor": MPI.Get_processor_name(),
    }


def ulfm_started(environ: Mapping[str, str]) -> bool:
    """Whether `mpirun --with-ft ulfm` (or its setting in the environment) started this job."""
    value = environ.get("OMPI_MCA_mpi_ft_enable", "0").strip().lower()
    return value in ("1", "true", "yes", "on", "enabled")


def _has_ulfm(mpi: Any) -> bool:
    """Whether a communicator can be revoked: tried, as libraries answer but half of the calls."""
    comm = mpi.COMM_SELF.Dup()
    comm.Set_errhandler(mpi.ERRORS_RETURN)
    try:
        comm.Revoke()
        return bool(comm.Is_revoked())
    except (NotImplementedError, mpi.Exception):
        return False
    finally:
        comm.Free()


def _gpu_aware(path: str | None) -> list[str] | None:
    """The kinds of GPU that the library's own queries affirm; None without any query."""
    if path is None:
        return None
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    queries = {
        kind: getattr(library, f"MPIX_Query_{kind}_support", None) for kind in ("cuda", "rocm")
    }
    if not any(queries.values()):
        return None
    return [kind for kind, query in queries.items() if query is not None and query() == 1]


def drop_own_segment() -> None:
    """Unlink the shared memory that Open MPI made for a process without a launcher.

    Nobody else maps it, its mapping here lives on, and Open MPI 5 leaves it behind even after a
    regular end: 70 KiB of memory for every such process.
    """
    for path in _mapped("/dev/shm/sm_segment."):
        with contextlib.suppress(OSError):
            os.unlink(path)


def _library_path() -> str | None:
    """The file of libmpi that is mapped into this process."""
    for path in _mapped("/"):
        name = os.path.basename(path)
        if name.startswith(("libmpi.so", "libmpich.so", "libmpi_", "libmpi-")):
            return path
    return None


def _mapped(prefix: str) -> list[str]:
    """The files that are mapped into this process, of those whose path begins so; sorted."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            paths = {line[line.index("/") :].rstrip("\n") for line in maps if "/" in line}
    except OSError:
        return []
    return sorted(path for path in paths if path.startswith(prefix))


def _main(subject: str) -> int:
    """Print the facts as one JSON line; or what prevents them, with exit code 1."""
    try:
        import mpi4py

        mpi4py.rc.initialize = subject == "start"
        facts = mpi_facts() if subject == "start" else library_facts()
    except (ImportError, RuntimeError) as error:
        print(json.dumps({"error": str(error).splitlines()[0]}))
        return 1
    print(json.dumps(facts), flush=True)
    if facts.get("size") == 1 and "OMPI_COMM_WORLD_SIZE" not in os.environ:
        drop_own_segment()
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
