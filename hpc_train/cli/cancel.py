"""`hpc-train cancel RUN`: cancel the Slurm job that was submitted for a run."""

from __future__ import annotations

import click

from hpc_train.errors import UsageError
from hpc_train.launch.slurm.jobs import ask, read_submission
from hpc_train.launch.slurm.jobs import cancel as cancel_job

_OVER = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


@click.command(name="cancel")
@click.argument("run")
def command(run: str) -> int:
    """Cancel the Slurm job of RUN: a run directory, or the name of one in ./runs.

    What was saved stays; hpc-train run --resume RUN goes on with it.
    """
    from hpc_train.train.rundir import find_submitted

    folder = find_submitted(run)
    job = read_submission(folder)
    if job is None:
        raise UsageError(
            "no Slurm job was submitted for this run",
            where=str(folder),
            hint="jobs of your own scripts: scancel JOB",
        )
    states = {entry.get("JobState", "") for entry in ask(job.job)}
    if states <= _OVER:
        click.echo(f"job {job.job} is over already ({', '.join(sorted(states)) or 'forgotten'})")
        return 0
    cancel_job(job.job)
    click.echo(f"job {job.job} cancelled")
    return 0
