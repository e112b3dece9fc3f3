"""`hpc-train bench scaling`: strong and weak scaling, beside torch DDP and the machine's limit."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hpc_train.cli.report import dry_run_option, json_option, print_json
from hpc_train.cli.table import aligned
from hpc_train.errors import UsageError

_TITLES = {"strong": "the global batch stays the same", "weak": "the batch grows with the ranks"}


@click.command(name="scaling")
@click.option("-n", "--ranks", default="1,2", show_default=True, help="Numbers of ranks: 1,2,4.")
@click.option("--modes", default="strong,weak", show_default=True, help="What to measure.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--warmup", type=click.IntRange(1), default=5, show_default=True, help="Steps not counted."
)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Per rank, of torch."
)
@click.option("--batch-size", type=click.IntRange(1), default=128, show_default=True)
@click.option("--micro-batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-scaling"),
    show_default=True,
    help="Folder for results; all nodes must see it.",
)
@click.option("--plot/--no-plot", default=True, show_default=True, help="Draw a PNG as well.")
@dry_run_option
@json_option
def command(
    ranks: str,
    modes: str,
    out: Path,
    plot: bool,
    dry_run: bool,
    as_json: bool,
    **numbers: int,
) -> None:
    """Train a CNN on different numbers of ranks and compare.

    Three sides take turns, job by job: this system from HDF5 shards, torch's
    DistributedDataParallel (gloo) with data in memory, and the limit: ranks that compute their
    shares without a word to each other. Model, weights, samples and optimizer are the same.
    Start-up and warm-up do not count. Inside a Slurm allocation, ranks use all of its nodes.

    \b
    hpc-train bench scaling -n 1,2,4
    hpc-train bench scaling -n 8,16,32 --modes strong --batch-size 1024 --threads 4
    """
    from hpc_train.bench.scaling.settings import Settings, parse_modes, parse_ranks
    from hpc_train.launch import under_launcher

    settings = Settings(parse_ranks(ranks), parse_modes(modes), **numbers)
    if under_launcher(os.environ) is not None:
        raise UsageError(
            "bench scaling starts ranks itself", hint="call it once, without mpirun or srun"
        )
    if dry_run:
        _show_turns(settings, as_json=as_json)
        return
    from hpc_train.bench.harness import write_results
    from hpc_train.bench.scaling import plot as plots
    from hpc_train.bench.scaling.study import study

    if plot:
        plots.require()
    document = study(settings, out, lambda line: click.echo(line, err=True))
    stem = out / f"scaling-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    write_results(stem.with_suffix(".json"), document)
    if plot:
        plots.draw(document, stem.with_suffix(".png"))
    if as_json:
        print_json(document)
    else:
        _show(document)
    click.echo(f"written to {stem}.json" + (" and .png" if plot else ""), err=True)


def _show_turns(settings: Any, *, as_json: bool) -> None:
    """Print the jobs of a round."""
    turns = [turn._asdict() for turn in settings.turns()]
    if as_json:
        print_json({"settings": settings.to_json(), "round": turns})
        return
    click.echo(f"in each of {settings.rounds} rounds:")
    for turn in turns:
        click.echo(f"  ranks {turn['ranks']}  batch {turn['batch_size']}  {turn['side']}")


def _show(document: Mapping[str, Any]) -> None:
    """Print the figures of every mode."""
    from hpc_train.bench.scaling.report import part_rows, rows

    oversubscribed = False
    for mode, points in document["modes"].items():
        click.echo(f"\n{mode} scaling: {_TITLES[mode]}\n")
        click.echo("\n".join(aligned(rows(points), left=(0, 1))))
        click.echo("\nwhere a step of hpc_train goes\n")
        click.echo("\n".join(aligned(part_rows(points))))
        oversubscribed |= any(point["oversubscribed"] for point in points)
    if oversubscribed:
        click.echo("\n* more threads than cores: the machine, not the software, sets the limit")
    click.echo(f"\nlosses agree within {document['loss_difference']:.1e}")
