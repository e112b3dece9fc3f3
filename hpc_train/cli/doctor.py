"""`hpc-train doctor`: what of this machine, or of this job, helps or hinders training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from hpc_train.cli.report import json_option, print_json
from hpc_train.cli.table import aligned
from hpc_train.errors import EXIT_DONE, EXIT_ENVIRONMENT, SetupError

if TYPE_CHECKING:
    from hpc_train.comm import Comm
    from hpc_train.doctor import Check, Report
    from hpc_train.launch import Launched

_COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


@click.command(name="doctor")
@click.option("--data", metavar="PATH", help="A data set or file that training would read.")
@click.option(
    "--run-dir", metavar="PATH", default="runs", show_default=True, help="Where runs would go."
)
@json_option
def command(data: str | None, run_dir: str, as_json: bool) -> int:
    """Check this machine: MPI, cores, GPUs, storage.

    Alone it tries MPI in a child process. Under mpirun or srun all ranks are asked, and rank 0
    prints what they say together.

    \b
    hpc-train doctor
    mpirun -n 4 hpc-train doctor --data my_data
    """
    from hpc_train.doctor import FAIL, Request, examine, gather
    from hpc_train.launch import under_launcher

    launched = under_launcher(os.environ)
    comm = _connect(launched) if launched else None
    if launched and comm is None:
        return EXIT_ENVIRONMENT
    report = gather(Request(data, run_dir, alone=comm is None), comm)
    checks = examine(report)
    failed = any(check.status == FAIL for check in checks)
    if _prints(launched, comm):
        if as_json:
            _print_document(report, checks, failed)
        else:
            click.echo("\n".join(_table(checks)), color=None if _terminal(launched) else False)
    if comm is not None:
        comm.barrier()
    return EXIT_ENVIRONMENT if failed else EXIT_DONE


def _connect(launched: Launched) -> Comm | None:
    """The ranks; None on all but the first claimed rank if there is no MPI, so that one speaks."""
    from hpc_train.comm import connect

    try:
        return connect()
    except SetupError:
        if launched.rank:
            return None
        raise


def _prints(launched: Launched | None, comm: Comm | None) -> bool:
    """Whether this process speaks for all.

    Where every process is a world of its own, all are rank 0: the launcher's claim decides.
    """
    if comm is None or launched is None:
        return True
    alone = comm.world.size == 1 and bool(launched.rank)
    return comm.world.is_coordinator and not alone


def _terminal(launched: Launched | None) -> bool:
    """Whether a terminal may be behind standard output.

    Open MPI gives its ranks a pseudo-terminal, whatever it writes into itself.
    """
    return launched is None or "HPC_TRAIN_TERMINAL" in os.environ


def _print_document(report: Report, checks: list[Check], failed: bool) -> None:
    """One JSON document: the checks, and the facts behind them, by rank."""
    print_json(
        {"ok": not failed, "checks": [vars(check) for check in checks], "ranks": list(report.ranks)}
    )


def _table(checks: list[Check]) -> list[str]:
    """A line per check, the remedy below what needs one, and a summary."""
    rows = [[check.status, check.name, check.text] for check in checks]
    lines = []
    width = max(len(row[1]) for row in rows) + 8
    for check, line in zip(checks, aligned(rows, left=(0, 1, 2)), strict=True):
        status, rest = line[: len(check.status)], line[len(check.status) :]
        lines.append(_coloured(status) + rest)
        if check.hint:
            lines.append(f"{'':<{width}}hint: {check.hint}")
    counts = {status: sum(check.status == status for check in checks) for status in _COLOURS}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return [*lines, "", summary]


def _coloured(status: str) -> str:
    """A status in its colour; click drops it where there is no terminal."""
    if os.environ.get("NO_COLOR"):
        return status
    return click.style(status, fg=_COLOURS[status], bold=status != "OK")
