"""`hpc-train data`: data sets, from making them to checking them."""

from __future__ import annotations

import click

from hpc_train.cli import Group

COMMANDS = {
    "import": ("data_import", "Make HDF5 shards from other files."),
    "inspect": ("data_inspect", "Show what a data set holds and how fast it can be read."),
    "verify": ("data_verify", "Check every checksum and name damaged shards."),
    "split": ("data_split", "Divide a data set into train, validation and test."),
}


@click.group(name="data", cls=Group, table=COMMANDS)
def command() -> None:
    """Import, inspect, verify and split data sets."""
