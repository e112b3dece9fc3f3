"""Memory and disk of each node that nobody asks for: /dev/shm and the temporary folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hpc_train.doctor.check import FAIL, OK, WARN, Check, Facts, Report, Request
from hpc_train.doctor.storage import human, place

# An MPI takes some 4 to 16 MiB per rank; containers are often given 64 MiB for all.
_SHARED_BYTES_PER_RANK = 32 * 2**20
_SCRATCH_BYTES = 2**30


def facts(request: Request) -> Facts:
    """Space in /dev/shm and in $TMPDIR."""
    shared = Path("/dev/shm")
    return {
        "shared": place(shared) if shared.is_dir() else None,
        "scratch": place(Path(tempfile.gettempdir())),
    }


def checks(report: Report) -> list[Check]:
    """Both, on the node that has least."""
    return [_shared(report), _scratch(report)]


def _shared(report: Report) -> Check:
    """Enough shared memory for the ranks of each node."""
    facts = report.of("scratch")
    nodes = report.nodes()
    missing = [report.host(ranks[0]) for ranks in nodes if facts[ranks[0]]["shared"] is None]
    hint = "give the container more (--shm-size=4g, --ipc=host), or remove files left in /dev/shm"
    if missing:
        text = f"there is none on {missing[0]}: ranks of a node talk over the network"
        return Check("/dev/shm", WARN, text, hint)
    free = {ranks[0]: facts[ranks[0]]["shared"]["free_bytes"] for ranks in nodes}
    least = min(free, key=lambda rank: free[rank])
    text = f"{human(free[least])} free on {report.host(least)}"
    if facts[least]["shared"]["write_error"]:
        error = facts[least]["shared"]["write_error"]
        return Check("/dev/shm", FAIL, f"cannot be written on {report.host(least)}: {error}", hint)
    needed = {ranks[0]: len(ranks) * _SHARED_BYTES_PER_RANK for ranks in nodes}
    short = [rank for rank in free if free[rank] < needed[rank]]
    if short:
        rank = short[0]
        text = f"{human(free[rank])} free on {report.host(rank)}, {human(needed[rank])} are wise"
        return Check("/dev/shm", WARN, text, hint)
    return Check("/dev/shm", OK, text)


def _scratch(report: Report) -> Check:
    """A temporary folder that can be written, with some space."""
    facts = report.of("scratch")
    hint = "export TMPDIR=/a/local/disk"
    for ranks in report.nodes():
        found, host = facts[ranks[0]]["scratch"], report.host(ranks[0])
        where = f"{found['path']} ({found['type']})"
        if found["write_error"]:
            text = f"{where} cannot be written on {host}: {found['write_error']}"
            return Check("scratch", FAIL, text, hint)
        if found["free_bytes"] < _SCRATCH_BYTES:
            text = f"{human(found['free_bytes'])} free in {where} on {host}"
            return Check("scratch", WARN, text, hint)
    least = min(facts, key=lambda fact: int(fact["scratch"]["free_bytes"]))["scratch"]
    text = f"{human(least['free_bytes'])} free in {least['path']} ({least['type']})"
    return Check("scratch", OK, text)
