"""`hpc-train sample RUN OUT.h5`: what a generative model has learned to make."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_train.errors import UsageError

_PORTION = 256  # samples that are made at once


@click.command(name="sample")
@click.argument("run")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--num", type=click.IntRange(min=1), default=64, show_default=True, metavar="N")
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first sample.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="GRID.png",
    help="Draw the first 400 of them, too.",
)
def command(run: str, out: Path, num: int, first: int, plot: Path | None) -> None:
    """Write N samples that the model of RUN makes to OUT.h5, as the dataset `sample`.

    Samples are numbered: the same number is the same sample whenever it is asked for. A model is
    taken as of the newest valid checkpoint.

    \b
    hpc-train sample runs/digits-gan-20260101-120000-ab12 digits.h5 --num 1000 --plot digits.png
    hpc-train sample latest digits.h5
    """
    import numpy as np
    import torch

    from hpc_train.data.arrays import write_arrays
    from hpc_train.observe.picture import grid, is_picture, write_png
    from hpc_train.train.rundir import find_run, writing
    from hpc_train.train.techniques.samples import generate
    from hpc_train.train.trained import open_run

    trained = open_run(find_run(run, None))
    function = getattr(trained.task, "generate", None)
    if function is None:
        raise UsageError(
            f'task "{trained.config.task.name}" makes no samples',
            hint="sample from a run of a task that does, such as adversarial",
        )
    parts = torch.split(torch.arange(first, first + num), _PORTION)
    samples = np.concatenate([generate(function, trained.model, ids).numpy() for ids in parts])
    if plot is not None and not is_picture(samples.shape[1:]):
        raise UsageError(f"samples of shape {samples.shape[1:]} cannot be drawn", where="--plot")
    write_arrays(out, {"sample": samples}, {"run": run, "step": trained.step, "first": first})
    click.echo(f"{out}  {num} samples of shape {samples.shape[1:]}, step {trained.step}")
    if plot is not None:
        with writing(plot.parent):
            write_png(plot, grid(samples[:400]))
        click.echo(f"{plot}  {min(num, 400)} of them")
