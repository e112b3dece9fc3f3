"""Where the flight records of a run are, and reading all of them."""

from __future__ import annotations

import socket
from pathlib import Path

from hpc_train.recovery.flight import FOLDER, Flight, Tape
from hpc_train.recovery.recorder import ELSEWHERE


def read_flights(run: Path) -> tuple[list[Flight], list[str]]:
    """The records of a run, by rank, and "host:path" of those that lie on other hosts.

    Raises:
        HpcTrainError: if a file is not a record.
    """
    folder, missing = run / FOLDER, []
    paths = sorted(folder.glob("*.flight"))
    for pointer in sorted(folder.glob(f"*{ELSEWHERE}")):
        host, _, place = pointer.read_text(encoding="utf-8").strip().partition(":")
        if host == socket.gethostname() and Path(place).exists():
            paths.append(Path(place))
        else:
            missing.append(f"{host}:{place}")
    flights = [Tape.open(path).flight() for path in paths]
    return sorted(flights, key=lambda flight: flight.rank), missing
