"""`hpc-train completion SHELL`: the script that completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    Put it to use with: eval "$(hpc-train completion bash)"
    """
    from hpc_train.cli import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "hpc-train", "_HPC_TRAIN_COMPLETE").source())
