"""`hpc-train status [RUN]`: how far runs are, and what Slurm says of their jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpc_train.cli.report import json_option, print_json
from hpc_train.cli.table import aligned
from hpc_train.errors import SetupError
from hpc_train.launch.slurm.jobs import ask, read_submission
from hpc_train.observe import last_batch, read_result


@click.command(name="status")
@click.argument("run", required=False)
@json_option
def command(run: str | None, as_json: bool) -> int:
    """Tell how RUN is, or all runs in ./runs: what they reached, and the state of their jobs.

    RUN is a run directory, or the name of one in ./runs.
    """
    from hpc_train.train.rundir import ROOT, find_submitted

    folders = [find_submitted(run)] if run is not None else sorted(ROOT.glob("*"))
    found = [describe(folder) for folder in folders if _is_run(folder)]
    if as_json:
        print_json({"runs": found})
        return 0
    if not found:
        click.echo(f"no run in {ROOT.absolute()}")
        return 0
    head = ["run", "status", "batch", "job", "state", "restarts", "reason"]
    rows = [[str(entry[key]) for key in head] for entry in found]
    click.echo("\n".join(aligned([head, *rows], left=(0, 1, 4, 6))))
    return 0


def describe(folder: Path) -> dict[str, Any]:
    """What is known of a run: its own word, and Slurm's."""
    from hpc_train.train.lock import is_alive, read_holder

    result, holder, job = read_result(folder), read_holder(folder), read_submission(folder)
    status = result.status if result is not None else "-"
    if holder is not None:
        status = "lost" if is_alive(holder) is False else "running"
    batch = last_batch(folder / "metrics.jsonl")
    entry: dict[str, Any] = {
        "run": str(folder),
        "status": status,
        "batch": "-" if batch < 0 else batch + 1,
        "job": job.job if job is not None else "-",
        "state": "-",
        "restarts": "-",
        "reason": "-",
    }
    if job is not None:
        try:
            known = ask(job.job)
        except SetupError as error:
            return entry | {"state": "unknown", "reason": error.message}
        states = [one.get("JobState", "-") for one in known]
        restarts = [int(one.get("Restarts", 0)) for one in known]
        reasons = {one.get("Reason", "None") for one in known} - {"None"}
        entry["state"] = ",".join(sorted(set(states))) or "forgotten"
        entry["restarts"] = sum(restarts)
        entry["reason"] = ",".join(sorted(reasons)) or "-"
    return entry


def _is_run(folder: Path) -> bool:
    return (folder / "config.toml").is_file() or read_submission(folder) is not None
