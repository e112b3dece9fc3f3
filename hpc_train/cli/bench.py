"""`hpc-train bench`: measurements of this machine and of this system on it."""

from __future__ import annotations

import click

from hpc_train.cli import Group

# name -> (module, one line of help)
BENCHMARKS = {
    "scaling": ("bench_scaling", "How much faster more ranks are, beside torch DDP."),
    "allreduce": ("bench_allreduce", "How fast gradients are summed, by every means there is."),
    "loader": ("bench_loader", "How fast samples of your own data come, beside h5py and PyTorch."),
    "schedule": ("bench_schedule", "What every policy makes of ranks of unlike speed."),
}


@click.group(name="bench", cls=Group, table=BENCHMARKS)
def command() -> None:
    """Measure, with all sides taking turns, and write the figures down."""
