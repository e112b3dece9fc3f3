"""`hpc-train bench loader`: how fast samples of one's own data come, beside h5py and PyTorch."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hpc_train.cli.report import dry_run_option, json_option, print_json
from hpc_train.cli.table import aligned


@click.command(name="loader")
@click.argument("path")
@click.option("--field", "fields", multiple=True, help="Dataset of a sample; several are allowed.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True)
@click.option(
    "--shuffle", type=click.Choice(["window", "full", "none"]), default="window", show_default=True
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Of a turn, at most.",
)
@click.option("--cold", is_flag=True, help="Drop the files from the page cache before each turn.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-loader"),
    show_default=True,
    help="Folder for results.",
)
@click.option("--plot/--no-plot", default=True, show_default=True, help="Draw a PNG as well.")
@dry_run_option
@json_option
def command(out: Path, plot: bool, dry_run: bool, as_json: bool, **numbers: Any) -> None:
    """Read shuffled batches of PATH by all means there are, and compare.

    PATH is a data set, an HDF5 file, or a folder or pattern of HDF5 files. Sides take turns with
    the same batches. The limits: the same bytes with pread from beginning to end, an array in
    memory, and for gzip zlib alone.

    \b
    hpc-train bench loader mydata
    hpc-train bench loader images.h5 --field image --field label --shuffle full
    """
    from hpc_train.bench.loader.settings import Settings, make_workload

    settings = Settings(**numbers)
    if dry_run:
        _show_turns(make_workload(settings), as_json=as_json)
        return
    from hpc_train.bench.harness import write_results
    from hpc_train.bench.loader.plot import draw
    from hpc_train.bench.loader.study import study
    from hpc_train.bench.scaling.plot import require

    if plot:
        require()
    document = study(settings, lambda line: click.echo(line, err=True))
    stem = out / f"loader-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    write_results(stem.with_suffix(".json"), document)
    if plot:
        draw(document, stem.with_suffix(".png"))
    if as_json:
        print_json(document)
    else:
        click.echo("\n".join(_lines(document)))
    click.echo(f"written to {stem}.json" + (" and .png" if plot else ""), err=True)


def _show_turns(workload: Any, *, as_json: bool) -> None:
    """Print the sides of a round."""
    from hpc_train.bench.loader.sides import sides_of

    titles = {name: side.title for name, side in sides_of(workload).items()}
    if as_json:
        print_json({"settings": workload.settings.to_json(), "round": titles})
        return
    click.echo(
        f"in each of {workload.settings.rounds} rounds, up to {len(workload.works):,} batches of "
        f"{', '.join(workload.fields)}:"
    )
    for title in titles.values():
        click.echo(f"  {title}")


def _lines(document: Mapping[str, Any]) -> list[str]:
    """The figures of every side."""
    rows = [["side", "samples/s", "MB/s", "hpc_train is"]]
    for name, side in document["sides"].items():
        ratio = side["ours_times_as_fast"]
        span = f"{ratio['median']:.2f}x  ({ratio['low']:.2f} to {ratio['high']:.2f})"
        rate = side["samples_per_second"]["median"]
        rows.append(
            [
                side["title"],
                f"{rate:,.0f}",
                f"{side['megabytes_per_second']:,.0f}",
                "" if name == "ours" else span,
            ]
        )
    data, settings = document["data"], document["settings"]
    head = (
        f"{data['samples']:,} samples of {data['sample_bytes']:,} bytes, "
        f"batches of {settings['batch_size']}, shuffle {settings['shuffle']}"
    )
    return ["", head, "", *aligned(rows)]
