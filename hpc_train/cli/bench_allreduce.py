"""`hpc-train bench allreduce`: how fast gradients are summed, by every means there is."""

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


@click.command(name="allreduce")
@click.option("-n", "--ranks", type=click.IntRange(2), default=2, show_default=True)
@click.option("--smallest", default="1 KiB", show_default=True, help="Size of the buffer.")
@click.option(
    "--largest", default="256 MiB", show_default=True, help="Sizes grow by 4 from one to the next."
)
@click.option(
    "--dtypes", default="float32,float64,bfloat16", show_default=True, help="Types of numbers."
)
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-allreduce"),
    show_default=True,
    help="Folder for results; all nodes must see it.",
)
@click.option("--plot/--no-plot", default=True, show_default=True, help="Draw a PNG as well.")
@dry_run_option
@json_option
def command(
    ranks: int,
    smallest: str,
    largest: str,
    dtypes: str,
    rounds: int,
    out: Path,
    plot: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Sum buffers over all ranks by every collective, MPI's own, and gloo.

    All sides take turns in one job, with new values before each turn, and sums are checked. The
    limit is what the machine can do: all ranks adding from memory at once, with no word between.

    \b
    hpc-train bench allreduce -n 4
    hpc-train bench allreduce --dtypes float32 --smallest "1 MiB" --largest "64 MiB"
    """
    from hpc_train.bench.allreduce.settings import SIDES, Settings, parse_dtypes
    from hpc_train.launch import under_launcher

    settings = Settings(
        ranks,
        _size(smallest, "--smallest"),
        _size(largest, "--largest"),
        parse_dtypes(dtypes),
        rounds,
    )
    if under_launcher(os.environ) is not None:
        raise UsageError(
            "bench allreduce starts ranks itself", hint="call it once, without mpirun or srun"
        )
    if dry_run:
        _show_plan(settings, SIDES, as_json=as_json)
        return
    _measure(settings, out, plot=plot, as_json=as_json)


def _measure(settings: Any, out: Path, *, plot: bool, as_json: bool) -> None:
    """Measure, write the results, and show them."""
    from hpc_train.bench.allreduce import plot as plots
    from hpc_train.bench.allreduce.study import study
    from hpc_train.bench.harness import busy_machine, write_results
    from hpc_train.bench.scaling.plot import require

    if plot:
        require()
    document = study(settings, out)
    stem = out / f"allreduce-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    write_results(stem.with_suffix(".json"), document)
    if plot:
        plots.draw(document, stem.with_suffix(".png"))
    if as_json:
        print_json(document)
    else:
        _show(document)
    environment = document["environment"]
    warning = busy_machine(environment["load_average"], environment["cores"])
    if warning:
        click.echo(warning, err=True)
    click.echo(f"written to {stem}.json" + (" and .png" if plot else ""), err=True)


def _size(text: str, where: str) -> int:
    from hpc_train.config.schema import parse_bytes

    try:
        return int(parse_bytes(text))
    except ValueError as error:
        raise UsageError(f'a size {error} (value: "{text}")', where=where) from error


def _show_plan(settings: Any, sides: Mapping[str, str], *, as_json: bool) -> None:
    """Print what would be measured."""
    if as_json:
        print_json({"settings": settings.to_json(), "sides": dict(sides)})
        return
    click.echo(f"{settings.ranks} ranks, {settings.rounds} rounds of: {', '.join(sides.values())}")
    for dtype in settings.dtypes:
        click.echo(f"  {dtype}  {', '.join(f'{size:,}' for size in settings.sizes())} bytes")


def _show(document: Mapping[str, Any]) -> None:
    """Print the tables of every type."""
    from hpc_train.bench.allreduce.report import bandwidth_rows, by_dtype, ratio_rows

    ranks, cores = document["settings"]["ranks"], document["environment"]["cores"]
    for dtype, points in by_dtype(document["points"]).items():
        click.echo(f"\n{dtype}: algorithm bandwidth, GB/s (medians)\n")
        click.echo("\n".join(aligned(bandwidth_rows(points))))
        if ranks > 2:
            click.echo(f"\n{dtype}: bus bandwidth, GB/s\n")
            click.echo("\n".join(aligned(bandwidth_rows(points, "bus_bandwidth"))))
        click.echo(f"\n{dtype}: how many times as fast (medians of ratios within rounds)\n")
        click.echo("\n".join(aligned(ratio_rows(points))))
    if ranks == 2:
        click.echo("\nof 2 ranks, the bus bandwidth is the algorithm bandwidth")
    if document["nodes"] == 1 and ranks > cores:
        click.echo(f"\n{ranks} ranks on {cores} cores: the machine sets the limit")
