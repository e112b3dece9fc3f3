"""`hpc-train bench schedule`: what every policy makes of given ranks, beside the ideal."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click

from hpc_train.cli.report import json_option, print_json
from hpc_train.cli.table import aligned
from hpc_train.errors import UsageError


@click.command(name="schedule")
@click.argument("run", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--speeds", help="Samples a second of each rank: 4,4,4,1.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=64, show_default=True, help="With --speeds."
)
@click.option(
    "--micro-batch-size",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="What round_robin deals.",
)
@click.option(
    "--steps", type=click.IntRange(3), default=200, show_default=True, help="With --speeds."
)
@click.option(
    "--fixed",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="With --speeds: seconds that each rank needs besides its samples.",
)
@click.option(
    "--noise",
    type=click.FloatRange(0, 2),
    default=0.02,
    show_default=True,
    help="With --speeds: relative spread of the seconds.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-schedule"),
    show_default=True,
    help="Folder for results.",
)
@click.option("--plot/--no-plot", default=True, show_default=True, help="Draw a PNG as well.")
@json_option
def command(
    run: Path | None,
    speeds: str | None,
    batch_size: int,
    micro_batch_size: int,
    steps: int,
    fixed: float,
    noise: float,
    out: Path,
    plot: bool,
    as_json: bool,
) -> None:
    """Replay stated speeds, or a recorded RUN, through every policy.

    Nothing is started: the ranks are simulated, with the delays of training between measuring and
    a new plan. "ideal" knows the seconds of every step beforehand.

    \b
    hpc-train bench schedule --speeds 4,4,4,1
    hpc-train bench schedule --speeds 10,10,1 --fixed 0.5 --noise 0.1
    hpc-train bench schedule runs/mine-20260101-120000-ab12
    """
    from hpc_train.bench.schedule.ranks import parse_speeds, recorded, stated
    from hpc_train.bench.schedule.study import rows, study

    if (run is None) == (speeds is None):
        raise UsageError(
            "either a recorded run or --speeds must be given",
            hint="for example hpc-train bench schedule --speeds 4,4,4,1",
        )
    if plot:
        from hpc_train.bench.scaling.plot import require

        require()
    if run is not None:
        ranks = recorded(run)
    else:
        ranks = stated(
            parse_speeds(speeds or ""), batch_size, steps, fixed_seconds=fixed, noise=noise
        )
    document = study(ranks, micro_batch_size)
    stem = _write(document, out, plot=plot)
    if as_json:
        print_json(document)
    else:
        click.echo(f"{document['source']}: batch {ranks.batch_size}, {ranks.num_steps} steps\n")
        click.echo("\n".join(aligned(rows(document), left=(0, 5))))
    click.echo(f"\nwritten to {stem}.json" + (" and .png" if plot else ""), err=True)


def _write(document: dict[str, Any], out: Path, *, plot: bool) -> Path:
    """Write the results, and the picture if it is wanted; gives their path without the ending."""
    from hpc_train.bench.harness import circumstances, write_results
    from hpc_train.bench.schedule import plot as plots

    stem = out / f"schedule-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    write_results(stem.with_suffix(".json"), {**document, "environment": circumstances()})
    if plot:
        plots.draw(document, stem.with_suffix(".png"))
    return stem
