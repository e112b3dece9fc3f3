"""`hpc-train predict RUN DATA OUT.h5`: what a trained model says of each sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_train.cli.apply import checkpoint_option, on_ranks, ranks_option, summary

if TYPE_CHECKING:
    from hpc_train.train.inference import Applied


@click.command(name="predict")
@click.argument("run")
@click.argument("data")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--raw", is_flag=True, help="Write the outputs of the model as they are.")
@checkpoint_option
@ranks_option
def command(run: str, data: str, out: Path, raw: bool, checkpoint: str, ranks: int | None) -> int:
    """Write predictions of RUN for all samples of DATA to OUT.h5, in their order.

    A classifier gives the datasets `class` and `probability`, other models `output`; a task may
    say more. The file is the same on any number of ranks, and there completely or not at all.

    \b
    hpc-train predict latest builtin:digits/test predictions.h5 -n 2
    hpc-train predict latest mine.h5 scores.h5 --raw --checkpoint best
    """

    def work(applied: Applied) -> Callable[[], None]:
        """Write on all ranks; what rank 0 shows of it."""
        from hpc_train.train.inference import write

        parts = applied.parts
        told = None if raw else getattr(parts.task, "predict", None)
        shapes = write(
            applied,
            out,
            lambda batch: (
                {"output": batch.through(parts.model)}
                if told is None
                else told(batch.through(parts.model))
            ),
        )
        return lambda: click.echo(summary(applied, out, shapes))

    words = ["predict", run, data, str(out), f"--checkpoint={checkpoint}", *["--raw"] * raw]
    return on_ranks(words, ranks, run, data, checkpoint, work)
