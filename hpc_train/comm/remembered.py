"""What `auto` chose on the same hosts before: a file of the user's, read and written by rank 0.

A choice that is remembered needs no measurement at the next start, and sums in the same order, to
the bit. It is forgotten after a month, and with another number of ranks, other hosts in another
order, or another MPI. A file that cannot be read or written is done without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_train.comm.choice import Choice

if TYPE_CHECKING:
    from hpc_train.comm.communicator import Comm

SCHEMA_VERSION = 2  # raised, too, when collectives change: what was measured holds no more
_MAX_SETS = 64
_DAYS = 30


def path() -> Path:
    """The file: in $XDG_CACHE_HOME, or ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "hpc_train" / "collectives.json"


def known() -> dict[str, dict[str, Any]]:
    """What the file tells that is not too old: key of the hosts -> names, ranks, day, choices."""
    try:
        document = json.loads(path().read_text(encoding="utf-8"))
        if document["schema_version"] != SCHEMA_VERSION:
            return {}
        oldest = (datetime.now(UTC) - timedelta(days=_DAYS)).date().isoformat()
        sets: dict[str, dict[str, Any]] = document["sets"]
        return {key: one for key, one in sets.items() if one["day"] >= oldest}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def recall(comm: Comm) -> None:
    """Take up what was chosen on these hosts; collective."""
    found: Any = []
    if comm.world.is_coordinator:
        one = known().get(_key(comm), {})
        with contextlib.suppress(TypeError, ValueError):  # somebody else wrote in there
            found = [
                [int(size), str(dtype), bool(lent), str(name), str(reason), str(one["day"])]
                for size, dtype, lent, name, reason, *_ in one.get("choices", [])
            ]
    for size, dtype, lent, *rest in comm.broadcast(found):
        comm.choices[size, dtype, lent] = Choice(*rest)


def remember(comm: Comm) -> None:
    """Write down what was chosen on these hosts; rank 0 alone does."""
    if not comm.world.is_coordinator:
        return
    sets = known()
    sets.pop(_key(comm), None)
    sets[_key(comm)] = {
        "hosts": _hosts(comm),
        "ranks": comm.world.size,
        "day": datetime.now(UTC).date().isoformat(),
        "choices": [[*key, *astuple(choice)] for key, choice in comm.choices.items()],
    }
    newest = dict(list(sets.items())[-_MAX_SETS:])
    file = path()
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"schema_version": SCHEMA_VERSION, "sets": newest}))
        draft.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()


def _hosts(comm: Comm) -> list[str]:
    """The name of each rank's host."""
    return [host.partition("/")[0] for host in comm.hosts]


def _key(comm: Comm) -> str:
    about = [_hosts(comm), comm.gate.is_tight, comm._mpi.Get_library_version()]
    return hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()
