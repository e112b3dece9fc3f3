"""`hpc-train features RUN DATA OUT.h5`: embeddings of samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_train.cli.apply import checkpoint_option, on_ranks, ranks_option, summary

if TYPE_CHECKING:
    from hpc_train.train.inference import Applied


@click.command(name="features")
@click.argument("run")
@click.argument("data")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--layer", metavar="NAME", help="The output of this module of the network.")
@checkpoint_option
@ranks_option
def command(
    run: str, data: str, out: Path, layer: str | None, checkpoint: str, ranks: int | None
) -> int:
    """Write embeddings of all samples of DATA to OUT.h5, in their order, as `feature`.

    They are the codes of an autoencoder (its method `encode`), otherwise what the last layer with
    weights takes. The file is the same on any number of ranks.

    \b
    hpc-train features latest builtin:digits/test embeddings.h5 -n 2
    hpc-train features latest mine.h5 early.h5 --layer 3
    """

    def work(applied: Applied) -> Callable[[], None]:
        from hpc_train.train.features import Features
        from hpc_train.train.inference import write
        from hpc_train.world import together

        parts = applied.parts
        shapes = write(applied, out, together(parts.comm, lambda: Features(parts.model, layer)))
        return lambda: click.echo(summary(applied, out, shapes))

    words = ["features", run, data, str(out), f"--checkpoint={checkpoint}"]
    words += [] if layer is None else [f"--layer={layer}"]
    return on_ranks(words, ranks, run, data, checkpoint, work)
