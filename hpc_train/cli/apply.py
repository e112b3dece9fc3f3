"""What commands share that apply a trained model to a data set, on one rank or many."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpc_train.cli.run import is_rank
from hpc_train.errors import EXIT_DONE, EXIT_FAILED

if TYPE_CHECKING:
    from hpc_train.train.inference import Applied

F = TypeVar("F", bound=Callable[..., Any])


def checkpoint_option(function: F) -> F:
    """`--checkpoint`: which one of a run."""
    return click.option(
        "--checkpoint",
        default="last",
        show_default=True,
        metavar="last|best|step-N",
        help="Which checkpoint of the run.",
    )(function)


def ranks_option(function: F) -> F:
    """`-n`: on how many ranks."""
    return click.option(
        "-n", "--ranks", type=click.IntRange(min=1), help="Start that many ranks here."
    )(function)


def on_ranks(
    words: Sequence[str],
    ranks: int | None,
    run: str,
    data: str,
    checkpoint: str,
    work: Callable[[Applied], Callable[[], None]],
) -> int:
    """Let `work` see the model and its data, on every rank; gives the exit code.

    Args:
        words: the command and its arguments, which started ranks get.
        ranks: how many to start; None, or as one of the ranks: to do the work here.
        run: as users name one.
        work: collective; what it returns is called on rank 0 alone, to print.
    """
    from hpc_train.launch import start_ranks
    from hpc_train.train.rundir import find_run

    folder = find_run(run, None)
    if ranks is not None and not is_rank():
        from hpc_train.data import open_dataset
        from hpc_train.train.ensemble import open_model

        needed = open_model(folder, checkpoint).config.data  # complains once, before ranks start
        open_dataset(data, [*needed.inputs], needed.block_rows)
        code = start_ranks([sys.executable, "-m", "hpc_train", *words], ranks)
        return code if 0 <= code < 128 or code == 130 else EXIT_FAILED
    return _as_rank(folder, data, checkpoint, work)


def _as_rank(
    folder: Path, data: str, checkpoint: str, work: Callable[[Applied], Callable[[], None]]
) -> int:
    from hpc_train.comm import connect
    from hpc_train.comm.exits import leave
    from hpc_train.train.inference import applied

    comm = connect()
    try:
        with applied(folder, data, checkpoint, comm) as found:
            show = work(found)
        if comm.world.is_coordinator:
            show()
    except BaseException as error:
        return leave(comm, error)
    comm.depart(EXIT_DONE)
    comm.barrier()
    return EXIT_DONE


def summary(applied: Applied, out: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    """One line on what was written."""
    parts = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return f"{out}  {parts}, step {applied.step}"
