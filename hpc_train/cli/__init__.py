"""The command line: one file per command; click lives only here.

A command's module is imported when the command is called, so that `--help` stays fast and starts
neither MPI nor torch.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click

from hpc_train import __version__, errors, log

# name -> (module, one line of help)
COMMANDS = {
    "demo": ("demo", "Train a small CNN on handwritten digits, on two ranks."),
    "run": ("run", "Train what a configuration describes."),
    "evaluate": ("evaluate", "Measure a trained model on a data set."),
    "predict": ("predict", "Write what a trained model predicts to HDF5."),
    "features": ("features", "Write embeddings of samples to HDF5."),
    "compress": ("compress", "Make the network of a run smaller: prune, quantise, export."),
    "submit": ("submit", "Hand a run to Slurm."),
    "status": ("status", "Tell how runs are, and their Slurm jobs."),
    "cancel": ("cancel", "Cancel the Slurm job of a run."),
    "export": ("export", "Write a trained model for plain PyTorch."),
    "sample": ("sample", "Let a generative model make samples."),
    "augment": ("augment", "Draw what augmentations make of training samples."),
    "tune": ("tune", "Search for good settings: many trials in one job."),
    "recipes": ("recipes", "List the examples that ship with the package."),
    "config": ("config", "Write, show or explain configurations."),
    "data": ("data", "Import, inspect, verify and split data sets."),
    "autopsy": ("autopsy", "Name the rank with which a run's trouble began."),
    "doctor": ("doctor", "Check this machine: MPI, cores, GPUs, storage."),
    "bench": ("bench", "Measure scaling and sums over ranks."),
    "completion": ("completion", "Print the completion script of a shell."),
}


class Group(click.Group):
    """A group that lists its commands from a table, imports them when called, and guesses typos."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module = importlib.import_module(f"{__name__}.{self._table[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._table and not args[0].startswith("-"):
            raise errors.UsageError(
                errors.unknown("command", args[0], self._table),
                hint=f"{ctx.command_path} --help lists them",
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=Group,
    table=COMMANDS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "HPC_TRAIN",
        "max_content_width": 100,
    },
)
@click.version_option(__version__, message="hpc-train %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of every error.")
@click.option("-v", "--verbose", is_flag=True, help="Show what is logged on the terminal, too.")
def cli(debug: bool, verbose: bool) -> None:
    """Train PyTorch models from HDF5 shards over MPI, on workstations and Slurm clusters.

    Every option can be set in the environment: HPC_TRAIN_RUN_RANKS=2 stands for `run --ranks 2`.
    """
    log.to_terminal(verbose=verbose)


def main() -> None:
    """Run the command line and leave with its exit code; the only place that prints errors."""
    sys.exit(_main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    if "--debug" in arguments:  # wherever it stands
        arguments = ["--debug", *(word for word in arguments if word != "--debug")]
    try:
        code = cli.main(args=arguments, prog_name="hpc-train", standalone_mode=False)
    except (KeyboardInterrupt, click.exceptions.Abort):
        print("interrupted", file=sys.stderr)
        return errors.EXIT_INTERRUPTED
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return errors.EXIT_USAGE
    except click.ClickException as error:
        return _complain(_from_click(error))
    except errors.HpcTrainError as error:
        if _wants_traceback(arguments):
            traceback.print_exc()
        return _complain(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.EXIT_FAILED
    except Exception:
        traceback.print_exc()
        return _complain(errors.HpcTrainError("this is a bug in hpc_train, please report it"))
    return code if isinstance(code, int) else errors.EXIT_DONE


def _wants_traceback(arguments: list[str]) -> bool:
    return "--debug" in arguments or os.environ.get("HPC_TRAIN_DEBUG", "0") not in ("", "0")


def _complain(error: errors.HpcTrainError) -> int:
    for line in error.lines():
        print(line if line.startswith("hint: ") else f"error: {line}", file=sys.stderr)
    return error.exit_code


def _from_click(error: click.ClickException) -> errors.HpcTrainError:
    """Click's complaint in the form of ours."""
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    hint = f"see {context.command_path} --help" if context else None
    guesses = getattr(error, "possibilities", None)
    if guesses and "Did you mean" not in text:
        text += f"; did you mean {guesses[0]}?"
    return errors.UsageError(text[:1].lower() + text[1:], hint=hint)
