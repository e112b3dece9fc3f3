"""`hpc-train data inspect PATH`: what a data set holds, and whether it will be read fast."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from hpc_train.cli.data_import import num_shards, statistics_told
from hpc_train.cli.report import human_bytes, json_option, print_json
from hpc_train.cli.table import aligned

if TYPE_CHECKING:
    from hpc_train.data.inspect import FieldReport, Report
    from hpc_train.data.portions import Portions

COUNT = click.IntRange(min=1)
_MOST_SHARDS = 8
_MOST_CLASSES = 12


@click.command(name="inspect")
@click.argument("path")
@click.option("--batch-size", type=COUNT, help="show what shuffling costs, for such batches")
@click.option("--ranks", type=COUNT, default=1, help="the ranks that share them  [1]")
@click.option("--shuffle-window", type=COUNT, help="blocks that are mixed; else as by auto")
@click.option("--window", type=COUNT, help="samples are so many rows of a series")
@click.option("--stride", type=COUNT, help="rows from one of them to the next; else as --window")
@click.option("--statistics", is_flag=True, help="mean and deviation of all fields, kept beside it")
@json_option
def command(
    path: str,
    batch_size: int | None,
    ranks: int,
    shuffle_window: int | None,
    window: int | None,
    stride: int | None,
    statistics: bool,
    as_json: bool,
) -> None:
    """Show shards, fields, storage and class balance of PATH, and whether reading will be fast.

    PATH is a data set, an HDF5 file, or a folder or pattern of HDF5 files.
    """
    from hpc_train.data.dataset import open_dataset, place_of
    from hpc_train.data.inspect import inspect
    from hpc_train.data.portions import find_portions
    from hpc_train.data.statistics import with_statistics
    from hpc_train.data.windows import Windows

    report = inspect(place_of(path))
    portions = None
    names = [name for name, field in report.fields.items() if field.info]
    if statistics:
        fields = with_statistics(open_dataset(path, names, 1024), names).index.fields
        measured = {n: dataclasses.replace(report.fields[n], info=fields[n]) for n in names}
        report = dataclasses.replace(report, fields={**report.fields, **measured})
    if batch_size:
        windows = Windows(window, stride or window) if window else None
        dataset = open_dataset(path, names, 1024, windows)
        portions = find_portions(dataset, batch_size, ranks, shuffle_window)
    if as_json:
        more = {"portions": dataclasses.asdict(portions)} if portions else {}
        print_json({**dataclasses.asdict(report), "is_fast": report.is_fast, **more})
    else:
        click.echo("\n".join(_lines(report) + (_portion_lines(portions) if portions else [])))


def _lines(report: Report) -> list[str]:
    size = sum(shard.num_bytes for shard in report.shards)
    samples = f"{report.num_samples:,}" if report.num_samples >= 0 else "datasets differ in length"
    kind = "data set" if report.is_dataset else "HDF5 files without an index"
    lines = [f"{report.path}: {kind}", f"samples    {samples}"]
    if report.source:
        lines.append(f"source     {report.source}")
    if report.licence:
        lines.append(f"licence    {report.licence}")
    lines.append(f"checksums  {'yes' if report.has_checksums else 'none'}")
    lines += [
        "",
        f"{num_shards(len(report.shards))}, {human_bytes(size)}",
        *_shard_lines(report),
        "",
    ]
    rows = [_HEAD, *(_row(n, f) for n, f in report.fields.items())]
    lines += aligned(rows, left=(0, 1, 2, 3, 4, 5, 6))
    for name, field in report.fields.items():
        if field.balance:
            lines += ["", f"classes of {name}", *_balance_lines(field.balance)]
    return [*lines, "", *_speed_lines(report)]


def _portion_lines(found: Portions) -> list[str]:
    ranks = f"{found.num_ranks} rank{'s' if found.num_ranks > 1 else ''}"
    return [
        "",
        f"shuffle window of {found.window_blocks:,} blocks of {found.block_rows:,} rows: "
        f"{found.window_samples:,} samples, {human_bytes(found.window_bytes)}",
        f"  {ranks}, batches of {found.batch_size:,}: up to {human_bytes(found.rank_bytes)} of "
        f"blocks on each (data.cache_bytes)",
        f"  bytes read / used: {found.read_per_used:.2f}, or {found.node_read_per_used:.2f} where "
        f"they share a node's blocks",
    ]


_HEAD = ["field", "dtype", "shape", "chunks", "compression", "range", "mean and deviation"]


def _row(name: str, field: FieldReport) -> list[str]:
    stored, info = field.stored, field.info
    shape = "x".join(map(str, stored.shape[1:])) or "scalar"
    chunks = "x".join(map(str, stored.chunks)) if stored.chunks else "contiguous"
    span = f"{info.low} .. {info.high}" if info and info.low is not None else ""
    if info is None:
        shape, span = "x".join(map(str, stored.shape)) or "no axes", "not usable as a field"
    told = statistics_told(info) if info else ""
    return [name, stored.dtype, shape, chunks, stored.compression or "none", span, told]


def _shard_lines(report: Report) -> list[str]:
    shown = report.shards[:_MOST_SHARDS]
    rows = [
        [
            f"  {s.file}",
            f"{s.samples:,} samples" if s.samples >= 0 else "",
            human_bytes(s.num_bytes),
        ]
        for s in shown
    ]
    more = len(report.shards) - len(shown)
    return aligned(rows) + ([f"  ... and {more:,} more"] if more else [])


def _balance_lines(balance: dict[str, int]) -> list[str]:
    whole = max(1, sum(balance.values()))
    entries = list(balance.items())
    rows = [
        [
            f"  {name if name.isprintable() and name.strip() else repr(name)}",
            f"{count:,}",
            f"{count / whole:.1%}",
        ]
        for name, count in entries[:_MOST_CLASSES]
    ]
    more = len(entries) - _MOST_CLASSES
    low, high = min(balance.values()), max(balance.values())
    tail = [f"  ... and {more:,} more, {low:,} to {high:,} samples each"] if more > 0 else []
    return aligned(rows) + tail


def _speed_lines(report: Report) -> list[str]:
    lines = ["reading will be " + ("fast" if report.is_fast else "slow")]
    for name, field in report.fields.items():
        if field.advice:
            lines.append(f"  {name}: {field.advice.reason}")
    if not report.is_fast:
        usable = [n for n, f in report.fields.items() if f.info] if not report.is_dataset else []
        names = "".join(f" --inputs {name}" for name in usable)
        lines.append(f"hint: repack with `hpc-train data import {report.path} NEW{names}`")
    return lines
