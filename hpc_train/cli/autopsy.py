"""`hpc-train autopsy RUN`: which rank was the first to fail, hang or diverge, and where."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

import click

from hpc_train.cli.report import json_option, print_json
from hpc_train.cli.table import aligned
from hpc_train.errors import ConfigError, HpcTrainError
from hpc_train.recovery.autopsy import Verdict, fate, judge
from hpc_train.recovery.flight import Flight
from hpc_train.recovery.process import state_of
from hpc_train.recovery.records import read_flights


@click.command(name="autopsy")
@click.argument("run", default="latest")
@json_option
def command(run: str, as_json: bool) -> int:
    """Name the rank with which the trouble of RUN began: its flight records tell.

    RUN is a run directory, the name of one in ./runs, or latest. It may still be running, hung or
    gone.
    """
    from hpc_train.train.rundir import find_run

    folder = find_run(run, None)
    flights, missing = read_flights(folder)
    if not flights:
        raise ConfigError(
            "no flight records here" + (f", they are in {', '.join(missing)}" if missing else ""),
            where=str(folder),
            hint="the recorder runs unless recovery.watch is false; read records on their own host",
        )
    fates, verdict = examine(flights)
    if as_json:
        ranks = [{**f.document(), "fate": fates[f.rank]} for f in flights]
        print_json({"verdict": verdict.document(), "ranks": ranks, "missing": missing})
        return 0
    head = ["rank", "host", "pid", "fate", "batch", "phase", "operation", "operations", "last sign"]
    rows = [head, *(_row(flight, fates[flight.rank]) for flight in flights)]
    click.echo("\n".join(aligned(rows, left=(0, 1, 3, 5, 6))))
    for place in missing:
        click.echo(f"not here: {place}")
    click.echo(f"\n{verdict.text}")
    return 0


def examine(flights: Sequence[Flight]) -> tuple[dict[int, str], Verdict]:
    """How each rank is, and with which it began."""
    ahead = max(flight.state.operations for flight in flights)
    fates = {flight.rank: _fate(flight, ahead) for flight in flights}
    return fates, judge(flights, fates)


def first_to_fail(run: Path) -> str | None:
    """The sentence about the rank with which it began; None if the records tell of none."""
    try:
        flights, _ = read_flights(run)
    except (OSError, HpcTrainError):
        return None
    verdict = examine(flights)[1] if flights else None
    return None if verdict is None or verdict.what == "well" else verdict.text


def _fate(flight: Flight, ahead: int) -> str:
    here = flight.host == socket.gethostname()
    process = state_of(flight.pid, flight.started) if here else "?"
    return fate(flight, process, time.monotonic(), ahead)


def _row(flight: Flight, how: str) -> list[str]:
    state = flight.state
    return [
        str(flight.rank),
        flight.host,
        str(flight.pid),
        how,
        str(state.batch),
        state.phase or "-",
        state.operation or "-",
        str(state.operations & (1 << 40) - 1),
        time.strftime("%H:%M:%S", time.localtime(flight.last_sign))
        + f"{flight.last_sign % 1:.3f}"[1:],
    ]
